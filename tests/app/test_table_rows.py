"""Rows to look at and to take along: exact, whole, and streamed."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import table_rows as routes
from app.embedded import Postgres
from app.parquet import parquet
from tests.app.conftest import Caller
from tests.stack import until
from worker.store import table_rows
from worker.store.database import connect

T = "/dwh/v4/tables/data_prim/t"

EVERY_TYPE = """
    CREATE TABLE data_prim.t (
      id bigint, number numeric, whole numeric, huge numeric, price numeric(10,2), ratio float8,
      text text, extra jsonb, yes boolean, day date, at timestamp, zoned timestamptz, tags text[],
      raw bytea, small smallint, odd numeric, never date, long numeric
    )
"""
FIRST_ROW = """
    INSERT INTO data_prim.t VALUES (
      9007199254740993, 12345678901234567890.125, 9007199254740993, 1e40, 1.5, 0.1, E'a "b",\\n ',
      '{"a": [1]}', true, '2024-02-29', '2024-01-02 03:04:05.000006', '2024-01-02 03:04:05+02',
      '{a,b}', '\\x00ff', 7, 'NaN', 'infinity', repeat('7', 90)::numeric)
"""


def export(caller: Caller, query: str = "") -> TestResponse:
    return caller.get(f"{T}/export?{query}", buffered=True)


@pytest.fixture
def t(conn: psycopg.Connection) -> None:
    """A row of every type, one of NULLs, one with an empty text."""
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute(EVERY_TYPE)
    conn.execute(FIRST_ROW)
    conn.execute("INSERT INTO data_prim.t (id, text) VALUES (2, NULL), (3, '')")


@pytest.mark.usefixtures("t")
def test_the_first_rows_are_exact(editor: Caller, conn: psycopg.Connection) -> None:
    answer = editor.get(f"{T}/rows?limit=1")
    (row,) = json.loads(answer.text, parse_float=Decimal)
    assert list(row)[:3] == ["id", "number", "whole"]
    assert row["id"] == 9007199254740993
    assert row["number"] == Decimal("12345678901234567890.125")
    assert (row["extra"], row["odd"], row["yes"]) == ({"a": [1]}, "NaN", True)
    conn.execute("ALTER TABLE data_prim.t ADD PRIMARY KEY (id)")
    assert [row["id"] for row in editor.get(f"{T}/rows").json] == [2, 3, 9007199254740993]
    conn.execute("TRUNCATE data_prim.t")
    assert editor.get(f"{T}/rows").json == []


def test_what_is_not_there_is_not_found(editor: Caller) -> None:
    for path in ("data_prim/t", "dpe/keys", "pg_catalog/pg_authid"):
        for what in ("rows", "export", "export?format=parquet"):
            answer = editor.get(f"/dwh/v4/tables/{path}/{what}", buffered=True)
            assert (answer.status_code, "not found" in answer.json["warning"]) == (404, True)


@pytest.mark.usefixtures("t")
@pytest.mark.parametrize(
    ("query", "words"),
    [("rows?limit=0", "limit"), ("rows?limit=1001", "limit"), ("export?format=xlsx", "parquet")],
)
def test_what_is_asked_for_is_checked(editor: Caller, query: str, words: str) -> None:
    answer = editor.get(f"{T}/{query}")
    assert (answer.status_code, words in answer.json["error"]) == (400, True)


def test_rows_too_large_to_look_at_are_refused(editor: Caller, conn: psycopg.Connection) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute("CREATE TABLE data_prim.t AS SELECT repeat('x', 4000000) AS x FROM"
                 " generate_series(1, 5)")  # fmt: skip
    answer = editor.get(f"{T}/rows")
    assert (answer.status_code, "3 rows of data_prim.t" in answer.json["error"]) == (400, True)
    assert len(editor.get(f"{T}/rows?limit=2").json) == 2


@pytest.mark.usefixtures("t")
def test_a_table_is_exported_as_csv(editor: Caller) -> None:
    answer = export(editor)
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="t.csv"'
    header, first, second, third = csv.reader(io.StringIO(answer.text, newline=""))
    row = dict(zip(header, first, strict=True))
    assert (row["id"], row["number"]) == ("9007199254740993", "12345678901234567890.125")
    assert (row["text"], row["yes"], row["day"]) == ('a "b",\n ', "true", "2024-02-29")
    assert (row["at"], row["zoned"]) == ("2024-01-02 03:04:05.000006", "2024-01-02 01:04:05+00")
    assert (second[0], third[0]) == ("2", "3")
    assert '3,,,,,,"",,' in answer.text  # an empty text is not NULL
    assert len(export(editor, "limit=1&format=csv").text.splitlines()) == 3


def parquet_of(caller: Caller) -> pa.Table:
    return pq.read_table(io.BytesIO(export(caller, "format=parquet").data))


@pytest.mark.usefixtures("t")
def test_a_table_is_exported_as_parquet(editor: Caller) -> None:
    answer = export(editor, "format=PARQUET")
    assert answer.content_type == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.data))
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64", "number": "decimal128(23, 3)", "whole": "int64",
        "huge": "decimal256(41, 0)", "price": "decimal128(10, 2)", "ratio": "double",
        "text": "large_string", "extra": "large_string", "yes": "bool", "day": "date32[day]",
        "at": "timestamp[us]", "zoned": "timestamp[us, tz=UTC]", "tags": "large_string",
        "raw": "large_binary", "small": "int16", "odd": "large_string", "never": "large_string",
        "long": "large_string",
    }  # fmt: skip
    row, second, third = table.to_pylist()
    zoned = dt.datetime(2024, 1, 2, 1, 4, 5, tzinfo=dt.UTC)
    assert row == {
        "id": 9007199254740993, "number": Decimal("12345678901234567890.125"),
        "whole": 9007199254740993, "huge": Decimal(10) ** 40, "price": Decimal("1.50"),
        "ratio": 0.1, "text": 'a "b",\n ', "extra": '{"a": [1]}', "yes": True,
        "day": dt.date(2024, 2, 29), "at": dt.datetime(2024, 1, 2, 3, 4, 5, 6), "zoned": zoned,  # noqa: DTZ001
        "tags": "{a,b}", "raw": b"\x00\xff", "small": 7, "odd": "NaN", "never": "infinity",
        "long": "7" * 90,
    }  # fmt: skip
    assert {k: v for k, v in second.items() if v is not None} == {"id": 2}
    assert third["text"] == ""


def test_an_empty_table_and_a_view_are_exported(editor: Caller, conn: psycopg.Connection) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute("CREATE TABLE data_prim.source (id numeric, text text)")
    conn.execute("CREATE VIEW data_prim.t AS SELECT * FROM data_prim.source")
    assert export(editor).text == "id,text\n"
    assert parquet_of(editor).num_rows == 0
    conn.execute("INSERT INTO data_prim.source VALUES (1, 'x')")
    assert parquet_of(editor).to_pylist() == [{"id": 1, "text": "x"}]


@pytest.mark.usefixtures("t")
def test_exports_leave_room_for_others(
    app: Flask, editor: Caller, conn: psycopg.Connection, postgres: Postgres
) -> None:
    """Those whose files are written; to send them takes no place."""
    for _ in range(2 * routes.EXPORTS):  # each gives its place back
        assert export(editor).status_code == 200
        assert editor.get("/dwh/v4/tables/a/b/export", buffered=True).status_code == 404
    waiting = "SELECT FROM pg_locks WHERE relation = 'data_prim.t'::regclass AND NOT granted"
    with ThreadPoolExecutor(routes.EXPORTS) as pool, psycopg.connect(postgres.url) as lock:
        lock.execute("LOCK TABLE data_prim.t IN ACCESS EXCLUSIVE MODE")
        under_way = [
            pool.submit(export, Caller(app.test_client(), editor.token))
            for _ in range(routes.EXPORTS)
        ]
        until(lambda: len(conn.execute(waiting).fetchall()) == routes.EXPORTS)
        refused = export(editor)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        lock.rollback()
        assert [one.result(10).status_code for one in under_way] == [200] * routes.EXPORTS
    sent = [
        editor.client.get(f"{T}/export?token={editor.token}", buffered=False)
        for _ in range(routes.EXPORTS + 1)
    ]
    assert [answer.status_code for answer in sent] == [200] * (routes.EXPORTS + 1)
    for answer in sent:
        answer.close()


@pytest.fixture
def large(conn: psycopg.Connection, postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A connection to export 200 MB with, some rows of which are a megabyte."""
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute(
        "CREATE TABLE data_prim.t AS SELECT at AS id, at * 1.5 AS number,"
        " repeat(md5(at::text), CASE WHEN at % 2000 = 0 THEN 32768 ELSE 24 END) AS text"
        " FROM generate_series(1, 130000) AS at"
    )
    with connect(postgres.url, "test", autocommit=False) as own:
        yield own


@pytest.mark.slow
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_large_table_is_not_held_in_memory(large: psycopg.Connection, format: str) -> None:
    table = table_rows.readable(large, "data_prim", "t")
    rows: Any = table_rows.csv if format == "csv" else parquet
    for _ in rows(large, table, 1000):
        pass  # what is loaded and warmed up once
    process = psutil.Process()
    before, most, size, pieces = process.memory_info().rss, 0, 0, 0
    for data in rows(large, table, None):
        most = max(most, process.memory_info().rss)
        size += len(data)
        pieces += 1
    assert pieces > 5
    assert size > (150_000_000 if format == "csv" else 3_000_000)
    assert most - before < 100_000_000, (most - before, size)
