"""SQL by `query`: rows, counts, what may fail and what is not for handlers."""

import datetime as dt
import threading
from decimal import Decimal

import pandas as pd
import psycopg
import pytest

from worker.errors import DatasetError
from worker.lakehouse import Connector, bulk_insert, connect
from worker.store.claims import Claim

pytestmark = pytest.mark.usefixtures("orders")


def test_rows_come_as_a_frame(data_prim: Connector) -> None:
    frame = data_prim.query("SELECT id, name, price FROM orders ORDER BY id")
    assert frame.columns.tolist() == ["id", "name", "price"]
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["price"].fillna(-1).tolist() == [1.5, -1, 3]


def test_rows_come_as_dicts_or_as_a_cursor(data_prim: Connector) -> None:
    query = "SELECT id, name FROM orders WHERE id < 3 ORDER BY id"
    assert data_prim.query(query, return_type="dict") == [
        {"id": 1, "name": "ann"},
        {"id": 2, "name": "bob"},
    ]
    assert data_prim.query(query, return_type="cursor").fetchall() == [(1, "ann"), (2, "bob")]
    with pytest.raises(DatasetError, match="return_type must be one of"):
        data_prim.query(query, return_type="list")


def test_limit_bounds_what_comes_back(data_prim: Connector) -> None:
    query = "SELECT id FROM orders ORDER BY id"
    assert data_prim.query(query, limit=2)["id"].tolist() == [1, 2]
    assert len(data_prim.query(query, limit=0)) == 0
    assert len(data_prim.query(query, limit=-1)) == 3


@pytest.mark.parametrize("limit", ["LIMIT 0", "WHERE false"])
def test_a_frame_without_rows_has_its_columns(data_prim: Connector, limit: str) -> None:
    frame = data_prim.query(f"SELECT id, name FROM orders {limit}")
    assert (len(frame), frame.columns.tolist()) == (0, ["id", "name"])
    assert data_prim.query(f"SELECT id FROM orders {limit}", return_type="dict") == []


def test_columns_of_the_same_name_are_both_there(data_prim: Connector) -> None:
    frame = data_prim.query("SELECT 1 AS x, 2 AS x")
    assert frame.columns.tolist() == ["x", "x"]
    assert frame.iloc[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("statement", "count"),
    [
        ("UPDATE orders SET name = 'x' WHERE id > 1", 2),
        ("DELETE FROM orders", 3),
        ("DELETE FROM orders WHERE false", 0),
        ("INSERT INTO orders VALUES (4), (5)", 2),
        (
            "MERGE INTO orders t USING (VALUES (1, 'new'), (9, 'nine')) AS s (id, name)"
            " ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name"
            " WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name)",
            2,
        ),
        ("CREATE TABLE other (x int)", 0),
        ("DROP TABLE orders", 0),
    ],
)
def test_statements_without_rows_give_the_affected_count(
    data_prim: Connector, statement: str, count: int
) -> None:
    frame = data_prim.query(statement)
    assert frame.shape == (1, 1)
    assert frame.iloc[0, 0] == count


def test_returning_gives_rows(data_prim: Connector) -> None:
    frame = data_prim.query("DELETE FROM orders WHERE id = 1 RETURNING id, name")
    assert frame.to_dict("records") == [{"id": 1, "name": "ann"}]


def test_percent_signs_are_plain_text(data_prim: Connector) -> None:
    assert data_prim.query("SELECT id FROM orders WHERE name LIKE '%b'").iloc[0, 0] == 2
    assert data_prim.query("SELECT 5 % 3, '%s', '%(x)s'").iloc[0].tolist() == [2, "%s", "%(x)s"]


def test_of_several_statements_the_last_ones_rows_come(data_prim: Connector) -> None:
    frame = data_prim.query("UPDATE orders SET name = 'x'; SELECT count(*) AS n FROM orders;")
    assert frame["n"].tolist() == [3]


def test_a_failed_query_can_be_caught_and_nothing_else_is_lost(
    data_prim: Connector, job: Claim, conn: psycopg.Connection
) -> None:
    data_prim.query("INSERT INTO orders VALUES (10, 'before')")
    for wrong in ("SELECT nothing FROM orders", "SELEC 1", "INSERT INTO orders VALUES (1)"):
        with pytest.raises(DatasetError, match="^data_prim: "):
            data_prim.query(wrong)
    data_prim.query("INSERT INTO orders VALUES (11, 'after')")
    job.conn.commit()
    found = conn.execute("SELECT name FROM data_prim.orders WHERE id > 9 ORDER BY id").fetchall()
    assert found == [("before",), ("after",)]


@pytest.mark.parametrize(
    "query",
    [
        "COMMIT",
        "rollback",
        "BEGIN",
        "  \n End;",
        "start transaction",
        "abort",
        "SAVEPOINT x",
        "RELEASE statement",
        "ROLLBACK TO statement",
        "PREPARE TRANSACTION 'x'",
        "-- a word first\nCOMMIT",
        "/* a /* nested */ word */ COMMIT",
        "SELECT 1; COMMIT",
        "SELECT ';'; COMMIT; SELECT 2",
        "SELECT $a$;$a$; COMMIT",
        r"SELECT E'\';'; COMMIT",
        "SELECT 'it''s'; COMMIT",
        'SELECT 1 AS "a;b"; COMMIT',
        "CALL nothing(); COMMIT",
        "EXPLAIN SELECT 1; COMMIT",
        ";;COMMIT",
    ],
)
def test_the_transaction_is_not_the_handlers(data_prim: Connector, job: Claim, query: str) -> None:
    data_prim.query("DELETE FROM orders")
    with pytest.raises(DatasetError, match="is not for handlers"):
        data_prim.query(query)
    job.conn.rollback()
    assert job.conn.execute("SELECT count(*) FROM data_prim.orders").fetchone() == (3,)


def test_a_block_of_code_cannot_commit_either(data_prim: Connector, job: Claim) -> None:
    data_prim.query("DELETE FROM orders")
    with pytest.raises(DatasetError, match="invalid transaction termination"):
        data_prim.query("DO $$ BEGIN COMMIT; END $$")
    job.conn.rollback()
    assert job.conn.execute("SELECT count(*) FROM data_prim.orders").fetchone() == (3,)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'COMMIT; COMMIT'",
        "SELECT 1 -- ; COMMIT",
        "SELECT 1 /* ; COMMIT */",
        "SELECT $$; COMMIT$$",
        "SELECT CASE WHEN true THEN 1 END",
        r"SELECT E'\\'; SELECT ';COMMIT'",
        r"SELECT '\', ';COMMIT'",
        'SELECT 1 AS "; COMMIT"',
        "DO $$ BEGIN PERFORM 1; END $$",
        "WITH t AS (SELECT 1 AS commit) SELECT commit FROM t",
    ],
)
def test_words_that_only_look_like_it_are_fine(data_prim: Connector, query: str) -> None:
    data_prim.query(query)


def test_numbers_are_exact(data_prim: Connector) -> None:
    frame = data_prim.query(
        "SELECT * FROM (VALUES (9007199254740993::numeric, 9007199254740993::bigint, 0.1::numeric,"
        " 12345678901234567890.123::numeric, 1::numeric, NULL::bigint, 10::numeric ^ 30),"
        " (1, 1, 2, 1, NULL, 9007199254740993, 1)) AS v (n, b, f, d, m, i, huge)"
    )
    assert frame["n"].tolist() == [9007199254740993, 1]
    assert frame["b"].tolist() == [9007199254740993, 1]
    assert frame["f"].tolist() == [0.1, 2]
    assert frame["d"].tolist() == [Decimal("12345678901234567890.123"), 1]
    assert frame["m"].dtype == frame["i"].dtype == "Int64"
    assert frame["i"][1] == 9007199254740993
    assert frame["huge"].tolist() == [10**30, 1]


def test_types_come_as_pandas_knows_them(data_prim: Connector) -> None:
    frame = data_prim.query(
        "SELECT true AS b, '2024-01-02 03:04:05.000006'::timestamp AS t, '2024-01-02'::date AS d,"
        " '2024-01-02 03:04:05+02'::timestamptz AS z, '{\"a\": [1]}'::jsonb AS j, 1.5::float8 AS f,"
        " ARRAY[1, 2] AS a, NULL AS n"
    )
    assert frame["b"].dtype == bool
    assert frame["t"][0] == pd.Timestamp("2024-01-02 03:04:05.000006")
    assert frame["z"][0] == pd.Timestamp("2024-01-02 01:04:05", tz="UTC")
    assert frame["d"][0] == dt.date(2024, 1, 2)
    assert (frame["j"][0], frame["a"][0], frame["f"][0]) == ({"a": [1]}, [1, 2], 1.5)
    assert pd.isna(frame["n"][0])


def test_tables_are_listed(data_prim: Connector, job: Claim) -> None:
    job.conn.execute("CREATE VIEW data_prim.cheap AS SELECT 1 AS one")
    assert data_prim.list() == ["cheap", "orders"]
    job.conn.execute("CREATE SCHEMA empty")
    assert Connector("empty").list() == []


def test_five_threads_share_one_connector(data_prim: Connector) -> None:
    def work(number: int) -> None:
        for at in range(20):
            key = 100 + number * 20 + at
            stats, error = bulk_insert(data_prim, "orders", [{"id": key, "name": f"t{number}"}])
            assert error is None, stats
            assert data_prim.select("orders", {"id": key})["name"].tolist() == [f"t{number}"]
            if at % 5 == 0:
                with pytest.raises(DatasetError):
                    data_prim.query("SELECT nothing")
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=work, args=[number]) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert data_prim.query("SELECT count(*) FROM orders WHERE id >= 100").iloc[0, 0] == 100


def test_each_dataset_looks_in_its_own_tables(data_prim: Connector, job: Claim) -> None:
    job.conn.execute("CREATE SCHEMA data_mart")
    job.conn.execute("CREATE TABLE data_mart.orders (id int)")
    mart = connect("dwh/data_mart/")
    for _ in range(2):
        assert len(data_prim.query("SELECT * FROM orders")) == 3
        assert len(mart.query("SELECT * FROM orders")) == 0
        assert len(mart.query("SELECT * FROM data_prim.orders")) == 3
