"""A run that is looked at and rolled back: what it would have written, and that it did not."""

from typing import Any

import psycopg
import pytest

from app.embedded import Postgres
from worker import logs
from worker.errors import Invalid
from worker.rehearsal import rehearse
from worker.store import tables

HEAD = """
from forepaas.dwh import bulk_insert, connect
dwh = connect("dwh/data_prim/")
"""


@pytest.fixture(autouse=True)
def stock(conn: psycopg.Connection) -> psycopg.Connection:
    logs.install()
    number = {"type": "Number", "format": "integer"}
    attributes = [{"name": "id", **number}, {"name": "left", **number}]
    for name, key in (("stock", ["id"]), ("notes", None), ("other", None)):
        description = {"dataset": "data_prim", "name": name, "attributes": attributes}
        tables.build(conn, description | ({"primary_key": key} if key else {}))
    conn.execute('INSERT INTO data_prim.stock (id, "left") VALUES (1, 10), (2, 20), (3, 30)')
    conn.execute('INSERT INTO data_prim.notes (id, "left") VALUES (1, 1), (2, 2)')
    return conn


def run(postgres: Postgres, main: str, event: str | None = None) -> dict[str, Any]:
    files = {"main.py": (HEAD + main).encode(), "forepaas.json": b'{"function_name": "handle"}'}
    return rehearse(postgres.url, files, event)


def test_rows_in_changed_and_gone_are_told_and_none_is_kept(
    conn: psycopg.Connection, postgres: Postgres
) -> None:
    before = conn.execute("SELECT * FROM data_prim.stock ORDER BY id").fetchall()
    outcome = run(
        postgres,
        "def handle(event):\n"
        "    print('hello')\n"
        "    bulk_insert(dwh, 'stock', event.content)\n"
        "    dwh.delete('stock', {'id': 3})\n"
        "    dwh.update('notes', {'left': 9}, {'id': 2})\n"
        "    return {'type': event.type}\n",
        '[{"id": 2, "left": 21}, {"id": 4, "left": 40}]',
    )
    assert outcome["status"] == "SUCCESS", outcome["error"]
    assert outcome["result"] == {"type": "manual"}
    assert outcome["stats"][0]["inserts"] == 1
    assert "hello" in [line["message"] for line in outcome["log"]]
    assert outcome["log"][-1]["message"].startswith('"')
    notes, stock = outcome["tables"]
    assert (stock["table"], stock["notes"]) == ("data_prim.stock", [])
    assert stock["inserted"] == [{"id": 4, "left": 40}]
    assert stock["updated"] == [{"before": {"id": 2, "left": 20}, "after": {"id": 2, "left": 21}}]
    assert stock["deleted"] == [{"id": 3, "left": 30}]
    # Without a key nobody can say which row became which.
    assert (notes["deleted"], notes["inserted"]) == ([{"id": 2, "left": 2}], [{"id": 2, "left": 9}])

    assert conn.execute("SELECT * FROM data_prim.stock ORDER BY id").fetchall() == before
    for table in ("actions", "action_files", "jobs", "job_logs"):
        assert conn.execute(f"SELECT count(*) FROM dpe.{table}".encode()).fetchone() == (0,)


def test_what_a_handler_takes_back_itself_is_no_change(postgres: Postgres) -> None:
    outcome = run(
        postgres,
        "def handle(event):\n"
        "    bulk_insert(dwh, 'stock', [{'id': 9, 'left': 1}])\n"
        "    dwh.delete('stock', {'id': 9})\n"
        "    dwh.update('stock', {'left': 11}, {'id': 1})\n"
        "    dwh.update('stock', {'left': 12}, {'id': 1})\n",
    )
    (stock,) = outcome["tables"]
    assert (stock["inserted"], stock["deleted"]) == ([], [])
    assert [row["after"]["left"] for row in stock["updated"]] == [12]


def test_what_others_write_meanwhile_is_not_taken_for_the_handler_s(
    conn: psycopg.Connection, postgres: Postgres
) -> None:
    outcome = run(
        postgres,
        "import psycopg\n"
        "def handle(event):\n"
        "    bulk_insert(dwh, 'stock', [{'id': 9, 'left': 1}])\n"
        f"    with psycopg.connect({postgres.url!r}) as other:\n"
        "        other.execute('INSERT INTO data_prim.stock VALUES (100, 1)')\n"
        "        other.execute('DELETE FROM data_prim.stock WHERE id = 1')\n"
        "        other.execute('SELECT FROM data_prim.stock WHERE id = 2 FOR UPDATE')\n",
    )
    (stock,) = outcome["tables"]
    assert stock["inserted"] == [{"id": 9, "left": 1}]
    assert (stock["updated"], stock["deleted"]) == ([], [])
    assert conn.execute("SELECT count(*) FROM data_prim.stock").fetchone() == (3,)


def test_tables_that_are_emptied_made_and_dropped_are_told(
    conn: psycopg.Connection, postgres: Postgres
) -> None:
    outcome = run(
        postgres,
        "def handle(event):\n"
        "    dwh.truncate('stock')\n"
        "    bulk_insert(dwh, 'stock', [{'id': 1, 'left': 1}])\n"
        "    dwh.query('CREATE TABLE data_prim.made AS SELECT 7 AS n')\n"
        "    dwh.query('DROP TABLE data_prim.other')\n",
    )
    assert outcome["status"] == "SUCCESS", outcome["error"]
    told = {table["table"]: (table["inserted"], table["notes"]) for table in outcome["tables"]}
    assert told["data_prim.made"] == ([{"n": 7}], ["the table is new"])
    assert told["data_prim.other"] == ([], ["the table is dropped"])
    rows, (note,) = told["data_prim.stock"]
    assert rows == [{"id": 1, "left": 1}]
    assert "emptied" in note
    assert conn.execute("SELECT count(*) FROM data_prim.stock").fetchone() == (3,)


def test_a_table_that_the_handler_locks_is_told_of_and_holds_nothing_up(postgres: Postgres) -> None:
    outcome = run(
        postgres,
        "def handle(event):\n"
        "    dwh.query('ALTER TABLE data_prim.notes ADD COLUMN more int')\n"
        "    bulk_insert(dwh, 'notes', [{'id': 3, 'left': 3}])\n"
        "    dwh.delete('stock', {'id': 1})\n",
    )
    notes, stock = outcome["tables"]
    assert notes["inserted"] == [{"id": 3, "left": 3, "more": None}]
    assert "locked" in notes["notes"][0]
    assert stock["deleted"] == [{"id": 1, "left": 10}]


def test_a_handler_that_fails_would_write_nothing(postgres: Postgres) -> None:
    outcome = run(
        postgres,
        "def handle(event):\n"
        "    bulk_insert(dwh, 'stock', [{'id': 9, 'left': 1}])\n"
        "    raise ValueError('no')\n",
    )
    assert (outcome["status"], outcome["tables"]) == ("FAILED", [])
    assert (outcome["error"]["type"], outcome["error"]["message"]) == ("ValueError", "no")
    assert "main.py" in outcome["error"]["traceback"]
    outcome = run(postgres, "def handle(event):\n    bulk_insert(dwh, 'nowhere', [{'id': 1}])\n")
    assert outcome["error"]["type"] == "InsertFailed"


def test_files_are_told_and_not_landed(postgres: Postgres, tmp_path: Any) -> None:
    outcome = run(
        postgres,
        "def handle(event):\n"
        "    bucket = connect('data_store/out')\n"
        "    bucket.put('a.txt', b'text')\n",
    )
    assert outcome["status"] == "SUCCESS", outcome["error"]
    assert outcome["files"] == [{"file": "out/a.txt", "what": "written"}]


def test_what_is_no_action_is_refused(postgres: Postgres) -> None:
    with pytest.raises(Invalid, match="main.py"):
        rehearse(postgres.url, {"forepaas.json": b"{}"}, None)
