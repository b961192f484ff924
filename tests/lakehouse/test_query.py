"""The connector's methods: SQL, and the few calls that spare it."""

import datetime as dt
import threading
from decimal import Decimal

import pandas as pd
import psycopg
import pytest

from worker.errors import DatasetError
from worker.lakehouse import Connector, bulk_insert, connect
from worker.store.claims import Claim


@pytest.fixture(autouse=True)
def orders(job: Claim) -> None:
    job.conn.execute(
        "CREATE TABLE data_prim.orders (id bigint PRIMARY KEY, name text, price numeric, day date)"
    )
    job.conn.execute(
        "INSERT INTO data_prim.orders VALUES (1, 'ann', 1.5, '2024-01-01'), (2, 'bob', NULL, NULL),"
        " (3, '100%', 3, '2024-03-01')"
    )
    job.conn.commit()


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


@pytest.mark.parametrize(
    ("conds", "ids"),
    [
        (None, [1, 2, 3]),
        ({}, [1, 2, 3]),
        ({"name": "bob"}, [2]),
        ({"id": [1, 3]}, [1, 3]),
        ({"id": (1, 2), "name": "ann"}, [1]),
        ({"price": None}, [2]),
        ({"price": [None, 3]}, [2, 3]),
        ({"price": float("nan")}, [2]),
        ({"id": []}, []),
        ({"price": 1.5}, [1]),
        ({"price": [1, 3]}, [3]),
        ({"day": "2024-03-01"}, [3]),
        ({"day": [dt.date(2024, 1, 1), pd.Timestamp("2024-03-01")]}, [1, 3]),
        ({"ID": pd.Series([3])[0]}, [3]),
        ({"name": "100%"}, [3]),
        ({"name": "x' OR true --"}, []),
    ],
)
def test_select_update_and_delete_take_conditions(
    data_prim: Connector, conds: dict[str, object], ids: list[int]
) -> None:
    assert sorted(data_prim.select("orders", conds)["id"].tolist()) == ids
    assert data_prim.update("orders", {"name": "new"}, conds) == len(ids)
    changed = data_prim.select("orders", {"name": "new"}, return_type="dict")
    assert sorted(row["id"] for row in changed) == ids
    assert data_prim.delete("orders", {"name": "new"}) == len(ids)
    assert data_prim.query("SELECT count(*) FROM orders").iloc[0, 0] == 3 - len(ids)


def test_select_has_limit_and_return_type(data_prim: Connector) -> None:
    assert len(data_prim.select("orders", limit=2)) == 2
    assert len(data_prim.select("orders", {"id": [1, 2]}, return_type="cursor").fetchall()) == 2


def test_update_takes_what_frames_hold(data_prim: Connector, job: Claim) -> None:
    job.conn.execute("ALTER TABLE data_prim.orders ADD extra jsonb")
    job.conn.commit()
    row = {
        "name": None,
        "price": float("nan"),
        "day": pd.Timestamp("2025-01-01"),
        "extra": {"a": [1]},
    }
    assert data_prim.update("orders", row, {"id": 1}) == 1
    found = data_prim.select("orders", {"id": 1}, return_type="dict")
    assert found == [
        {"id": 1, "name": None, "price": None, "day": dt.date(2025, 1, 1), "extra": {"a": [1]}}
    ]
    assert data_prim.update("orders", {}, {"id": 1}) == 0


def test_errors_of_the_calls_name_table_and_column(data_prim: Connector) -> None:
    with pytest.raises(
        DatasetError, match=r'data_prim.orders has no column "nam"; its columns: id, name'
    ):
        data_prim.update("orders", {"nam": 1})
    with pytest.raises(DatasetError, match=r"data_prim.missing: there is no such table.*orders"):
        data_prim.select("missing", {"id": 1})
    with pytest.raises(DatasetError, match="many"):
        data_prim.delete("orders", {"id": "many"})
    assert len(data_prim.select("orders")) == 3


def test_truncate_says_whether_there_was_a_table(data_prim: Connector) -> None:
    assert data_prim.truncate("orders") is True
    assert len(data_prim.select("orders")) == 0
    assert data_prim.truncate("missing") is False


def test_insert_takes_a_row_rows_or_a_frame(data_prim: Connector, job: Claim) -> None:
    assert data_prim.insert("orders", {"id": 4, "name": "d"})["inserts"] == 1
    assert data_prim.insert("orders", [{"id": 5}, {"id": 6, "name": "f"}])["inserts"] == 2
    assert data_prim.insert("orders", pd.DataFrame({"id": [7]}))["records"] == 1
    with pytest.raises(DatasetError, match=r"Key \(id\)=\(4\) already exists"):
        data_prim.insert("orders", {"id": 4, "name": "other"})
    stats = data_prim.insert("orders", [{"id": 4, "name": "other"}, {"id": 8}], odku=1)
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (1, 1, 0)
    assert data_prim.select("orders", {"id": 4})["name"].tolist() == ["other"]
    assert len(job.stats) == 4


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
