"""A table's life on the command line: planned, built, looked at, exported, changed, dropped."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from tests.cli.shell import Shell
from tests.stack import until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "till.json"


def describe(file: Path, *names: str, **more: Any) -> Path:
    attributes = [{"name": name, "type": "Number"} for name in names]
    given = {"dataset": "data_shop", "name": "till", "attributes": attributes, "primary_key": "id"}
    file.write_text(json.dumps(given | more))
    return file


@pytest.fixture
def till(shell: Shell, file: Path) -> Any:
    """data_shop.till (id, price) with two rows."""
    shell.ok("table", "build", describe(file, "id", "price"))
    url = shell.ok("env", "--json").data["DPE_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("INSERT INTO data_shop.till VALUES (9007199254740993, 0.10), (2, NULL)")
        yield conn
        conn.execute("DROP SCHEMA data_shop CASCADE")
        conn.execute("DELETE FROM dpe.tables WHERE dataset = 'data_shop'")


def test_a_change_is_shown_before_it_is_done(shell: Shell, till: Any, file: Path) -> None:
    describe(file, "id", "price", "pieces")
    assert shell.ok("table", "diff", file).out == "data_shop.till:\n  add pieces (numeric)\n"
    built = shell.ok("table", "build", file)
    assert "add pieces (numeric)" in built.err
    assert built.out == "built data_shop.till: added pieces (numeric)\n"
    assert shell.ok("table", "diff", file).out == "data_shop.till: nothing differs\n"

    describe(file, "id", "pieces")
    refused = shell.run("table", "build", file)
    assert (refused.code, refused.out) == (1, "")
    assert "drop price (numeric)  (loses data)" in refused.err
    assert "--allow-data-loss" in refused.err
    assert till.execute("SELECT price FROM data_shop.till WHERE id <> 2").fetchone() is not None
    done = shell.ok("table", "build", file, "--allow-data-loss", "--json")
    assert done.data["changes"] == ["dropped price (numeric)"]


@pytest.mark.usefixtures("till")
def test_rows_are_looked_at(shell: Shell) -> None:
    lines = shell.ok("table", "head", "data_shop.till").out.splitlines()
    assert [line.split() for line in lines] == [
        ["id", "price"],
        ["2"],
        ["9007199254740993", "0.10"],
    ]
    (row,) = shell.ok("table", "head", "data_shop.till", "--limit", "1", "--json").data
    assert row == {"id": 2, "price": None}
    assert "not found" in shell.fails("table", "head", "data_shop.nothing")
    assert "data_prim.orders" in shell.fails("table", "head", "till")


@pytest.mark.usefixtures("till")
def test_rows_are_exported_whole_or_not_at_all(shell: Shell, tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(shell.ok("table", "export", "data_shop.till").out)))
    assert rows[0] == ["id", "price"]
    assert sorted(rows[1:]) == [["2", ""], ["9007199254740993", "0.10"]]
    out = tmp_path / "till.parquet"
    assert shell.ok("table", "export", "data_shop.till", "--out", out).out == ""
    found = pq.read_table(out)
    assert sorted(found["id"].to_pylist()) == [2, 9007199254740993]
    assert "not found" in shell.fails("table", "export", "data_shop.no", "--out", tmp_path / "no")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".json"] == ["till.parquet"]


def test_an_export_that_breaks_off_is_an_error_and_no_half_file(
    shell: Shell, till: Any, tmp_path: Path
) -> None:
    ended = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'dpe-export' AND wait_event_type = 'Lock'
        """
    out = tmp_path / "till.csv"
    url = shell.ok("env", "--json").data["DPE_DATABASE_URL"]
    with ThreadPoolExecutor(1) as caller, psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE data_shop.till")  # so that it is under way when it is ended
        exported = caller.submit(shell.fails, "table", "export", "data_shop.till", "--out", out)
        until(lambda: till.execute(ended).fetchall())
        assert "database" in exported.result()
    assert not out.exists()
    assert len(shell.ok("table", "export", "data_shop.till").out.splitlines()) == 3


def test_a_table_of_others_is_taken_over(shell: Shell, till: Any, file: Path) -> None:
    till.execute("CREATE TABLE data_shop.old (id int PRIMARY KEY, name varchar(20))")
    assert "a table, not built here" in shell.ok("table", "list", "--all").out
    assert "data_shop.old" not in shell.ok("table", "list").out
    shown = shell.ok("table", "show", "data_shop.old", "--json")
    file.write_text(shown.out)
    assert "took over data_shop.old" in shell.ok("table", "build", file).out
    text = shell.ok("table", "show", "data_shop.old").out
    assert "String (character varying(20))" in text
    assert "not here" not in text
    till.execute("ALTER TABLE data_shop.old ADD more date")
    assert "drop more (date)  (loses data)" in shell.ok("table", "diff", "data_shop.old").out


@pytest.mark.usefixtures("till")
def test_a_table_is_dropped(shell: Shell) -> None:
    assert "has rows" in shell.fails("table", "drop", "data_shop.till")
    done = shell.ok("table", "drop", "data_shop.till", "--allow-data-loss")
    assert done.out == "dropped data_shop.till\n"
    assert "not found" in shell.fails("table", "show", "data_shop.till")
