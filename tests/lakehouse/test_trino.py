"""Trino's SQL on real Postgres: each line of docs/howto/trino.md, and what is said around it."""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest

from worker.errors import DatasetError
from worker.lakehouse import Connector, connect
from worker.lakehouse import datasets as lakehouse_datasets
from worker.store import datasets
from worker.store.claims import Claim

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "trino.md"


def lines(part: str) -> list[tuple[str, str]]:
    """Statement and result of each line of the page's tables, with "refused" or without."""
    text = PAGE.read_text()
    passes, _, refused = text.partition("## What is refused")
    found = re.findall(r"^\| `(.*)` \| (.*) \|$", refused if part == "refused" else passes, re.M)
    return [(statement.replace(r"\|", "|"), result) for statement, result in found]


def shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dt.datetime | dt.date):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


@pytest.fixture
def trino(job: Claim, monkeypatch: pytest.MonkeyPatch) -> Connector:
    """data_prim, where Trino's SQL is spoken, with some rows."""
    job.conn.execute(
        "CREATE TABLE data_prim.orders (id bigint PRIMARY KEY, customer text, amount numeric,"
        ' day date, at timestamp, tags text[], extra jsonb, "user" text)'
    )
    job.conn.execute(
        "INSERT INTO data_prim.orders VALUES"
        " (1, 'ann', 11.1, '2024-01-15', '2024-01-15 10:30:45', '{x,y}', '{\"city\": \"Paris\"}',"
        "  'u1'), (2, 'bob', 2, '2024-02-28', NULL, '{x}', NULL, 'u2'),"
        " (3, 'cyd', NULL, '2024-03-31', NULL, NULL, NULL, 'u3')"
    )
    job.conn.execute("CREATE TABLE data_prim.incoming (id bigint, customer text, amount numeric)")
    job.conn.execute("INSERT INTO data_prim.incoming VALUES (3, 'cyd', 5), (4, 'dan', 6)")
    datasets.set_dialect(job.conn, "data_prim", "trino")
    job.conn.commit()
    monkeypatch.setattr(lakehouse_datasets, "_dialects", {})
    return connect("dwh/data_prim/")


def test_the_page_has_lines() -> None:
    assert len(lines("passes")) > 50
    assert len(lines("refused")) > 10


@pytest.mark.parametrize(("statement", "result"), lines("passes"))
def test_a_statement_gives_what_the_page_says(
    trino: Connector, statement: str, result: str
) -> None:
    rows = trino.query(statement, return_type="cursor")
    if rows.description is None:
        assert str(max(rows.rowcount, 0)) == result
        return
    assert "; ".join(", ".join(map(shown, row)) for row in rows) == result


@pytest.mark.parametrize(("statement", "words"), lines("refused"))
def test_a_statement_is_refused_with_the_pages_words(
    trino: Connector, statement: str, words: str
) -> None:
    with pytest.raises(DatasetError) as refused:
        trino.query(statement)
    assert words in str(refused.value)
    assert trino.query("SELECT count(*) AS n FROM orders")["n"].tolist() == [3]


def test_what_postgres_refuses_is_shown_as_it_ran(trino: Connector) -> None:
    with pytest.raises(DatasetError) as refused:
        trino.query("SELECT date_add('day', 1, customer) FROM orders")
    assert (
        "in Postgres' words it was: SELECT (\"customer\" + INTERVAL '1 DAY'" in refused.value.hint
    )


def test_a_replaced_table_has_the_new_rows_and_its_name(trino: Connector, job: Claim) -> None:
    for _ in range(2):  # the same text again is translated once and runs twice
        frame = trino.query(
            "CREATE OR REPLACE TABLE data_prim.Orders AS SELECT id + 1 AS id FROM orders"
        )
        assert frame.iloc[0, 0] == 3
    assert trino.query("SELECT id FROM orders ORDER BY id")["id"].tolist() == [3, 4, 5]
    assert trino.list() == ["incoming", "orders"]
    job.conn.rollback()
    assert trino.query("SELECT min(id) AS id FROM orders")["id"].tolist() == [1]


def test_a_results_columns_are_called_as_it_was_written(trino: Connector) -> None:
    frame = trino.query(
        "SELECT Day, max(ID) AS MaxId FROM (SELECT id AS Id, day AS DAY FROM orders) AS Inner_"
        " GROUP BY day ORDER BY maxid DESC, Day"
    )
    assert frame.columns.tolist() == ["day", "MaxId"]
    assert frame["MaxId"].tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    "query",
    [
        "-- a comment; with COMMIT\nSELECT 'a;b -- c' AS x /* ; */;",
        "SELECT 'dpe_new_table it''s' AS x;\n",
        "WITH a AS (SELECT 'x' AS x), b AS (SELECT x FROM a) SELECT x FROM b UNION ALL SELECT 'y'",
        "SELECT 'back\\slash' AS x",
        "SELECT CASE WHEN id > 1 THEN 'many' END AS x FROM orders",
    ],
)
def test_what_stands_around_does_not_matter(trino: Connector, query: str) -> None:
    assert trino.query(query).columns.tolist() == ["x"]


def test_a_text_comes_out_as_it_was_written(trino: Connector) -> None:
    found = trino.query("SELECT 'a\\nb', 'it''s', '%s {0} $1', U&'\\0041', 'Ö'")
    assert found.iloc[0].tolist() == ["a\\nb", "it's", "%s {0} $1", "A", "Ö"]


def test_limits_forms_and_other_calls_are_as_everywhere(trino: Connector) -> None:
    assert trino.query("SELECT id FROM orders ORDER BY 1", limit=2)["id"].tolist() == [1, 2]
    assert trino.query("SELECT id FROM orders LIMIT 0").columns.tolist() == ["id"]
    assert trino.query("SELECT 1 AS one", return_type="dict") == [{"one": 1}]
    assert trino.select("orders", {"id": [1, 2]}, limit=1)["user"].tolist() in (["u1"], ["u2"])
    assert trino.delete("orders", {"id": 1}) == 1


def test_a_dataset_speaks_postgres_unless_it_is_set(
    trino: Connector, job: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.set_dialect(job.conn, "data_prim", "postgres")
    monkeypatch.setattr(lakehouse_datasets, "_dialects", {})
    postgres_only = "SELECT '{1}'::int[] <@ ARRAY[1] AS x"
    assert trino.query(postgres_only)["x"].tolist() == [True]
    with pytest.raises(DatasetError, match="date_add"):
        trino.query("SELECT date_add('day', 1, DATE '2024-01-01')")
