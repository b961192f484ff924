"""Frames into tables: what is written, counted, and left whole where an insert fails.

Every test runs by each of the ways that rows can take: a statement for a few, COPY for many.
"""

import datetime as dt
from typing import Any

import pandas as pd
import psycopg
import pytest

from tests.lakehouse.rows import Pad, found, write
from worker.lakehouse import Connector, bulk_insert, connect
from worker.store.claims import Claim


@pytest.mark.parametrize("frame", [True, False], ids=["frame", "dicts"])
def test_columns_are_matched_by_name(job: Claim, table: str, pad: Pad, frame: bool) -> None:
    rows = pad([{"NAME": "x", "id": 1}] if frame else [{"name": "x", "ID": 1}])
    data: Any = rows
    if frame:
        data = pd.DataFrame(rows)
        if "name" in data:  # the filling brings the one, the row the other
            data["NAME"] = data.pop("name").fillna(data["NAME"])
    else:
        data = [{key.lower(): value for key, value in row.items()} for row in rows]
        data = [
            {"nAme": row["name"], "id": row["id"]} | {k: v for k, v in row.items() if k == "span"}
            for row in data
        ]
    stats = write(table, data)
    assert stats["inserts"] == stats["records"] == len(rows)
    assert (stats["updates"], stats["skipped"], stats["warnings"]) == (0, 0, [])
    assert found(job) == [(1, "x")]
    assert job.stats == [stats]
    assert stats["table"] == "data_prim.t"


def test_what_is_missing_in_a_frame_is_null(job: Claim, table: str, pad: Pad) -> None:
    rows = pad(
        [
            {"id": 1, "name": None, "amount": float("nan"), "day": pd.NaT, "ok": pd.NA},
            {"id": 2, "name": float("nan"), "at": None, "ratio": pd.NA, "whole": float("nan")},
            {"id": 3, "name": pd.NA, "extra": float("nan"), "whole": 3.0, "short": None},
        ]
    )
    columns = "id, name, amount, day, at, ok, extra, span, short, whole, ratio"
    for data in (rows, pd.DataFrame(rows)):
        write(table, data)
        assert found(job, columns) == [
            (1, *[None] * 10),
            (2, *[None] * 10),
            (3, *[None] * 8, 3, None),
        ]
        job.conn.execute("DELETE FROM data_prim.t")


def test_texts_are_read_by_postgres(job: Claim, table: str, pad: Pad) -> None:
    rows = pad(
        [
            {
                "id": "1",
                "amount": "9007199254740993.10",
                "day": "2020-05-21",
                "at": "2020-05-21 11:34:23 PM",
                "ok": "yes",
            },
            {
                "id": 2,
                "amount": "1e3",
                "day": "2020-05-21 11:34:23 PM",
                "at": "2020-05-21T01:00:00+02:00",
                "ok": "f",
            },
            {"id": 3, "day": "May 21, 2020", "at": "2020-05-21 23:30:00Z", "whole": "7"},
        ]
    )
    write(table, pd.DataFrame(rows))
    day = dt.date(2020, 5, 21)
    assert found(job, "id, amount::text, day, at::text, ok, whole") == [
        (1, "9007199254740993.10", day, "2020-05-21 23:34:23", True, None),
        (2, "1000", day, "2020-05-20 23:00:00", False, None),
        (3, None, day, "2020-05-21 23:30:00", None, 7),
    ]


def test_nested_values_go_into_jsonb_and_into_text(job: Claim, table: str, pad: Pad) -> None:
    nested = {"a": [1, {"b": None}], "c": 'it\'s \\ "quoted"\n'}
    rows = pad(
        [
            {"id": 1, "extra": nested, "name": [1, "two", None]},
            {"id": 2, "extra": [nested], "name": {"k": True}},
            {"id": 3, "extra": '{"x": 1}', "name": "plain"},
            {"id": 4, "extra": 2**70, "name": ""},
        ]
    )
    write(table, pd.DataFrame(rows))
    assert found(job, "id, extra, name::text") == [
        (1, nested, '[1,"two",null]'),
        (2, [nested], '{"k":true}'),
        (3, {"x": 1}, "plain"),
        (4, 2**70, ""),
    ]


def test_text_stays_as_it_is(job: Claim, table: str, pad: Pad) -> None:
    texts = [
        "\\N",
        "\\.",
        "a\tb\nc\rd\\e",
        "'; DROP TABLE t; --",
        "%s",
        "é\U0001f600",
        " x ",
        "\\'",
        "NULL",
    ]
    write(table, pd.DataFrame(pad([{"id": at, "name": text} for at, text in enumerate(texts)])))
    assert found(job) == list(enumerate(texts))


@pytest.mark.parametrize("data", [pd.DataFrame(), pd.DataFrame({"id": []}), []])
def test_nothing_to_write_is_no_error(job: Claim, table: str, data: Any) -> None:
    stats = write(table, data)
    assert (stats["records"], stats["inserts"], stats["updates"], stats["skipped"]) == (0, 0, 0, 0)


def test_an_insert_that_failed_leaves_the_rest_of_the_job_whole(
    job: Claim, table: str, pad: Pad, conn: psycopg.Connection
) -> None:
    dataset = connect("dwh/data_prim/")
    write(table, [{"id": 1, "name": "before"}])
    _, error = bulk_insert(dataset, table, pad([{"id": 2, "name": "bad"}, {"id": "x"}]))
    assert error is not None
    dataset.query("UPDATE t SET whole = 1")
    write(table, pad([{"id": 3, "name": "after"}]))
    job.conn.commit()
    rows = conn.execute(
        "SELECT id, whole FROM data_prim.t WHERE name <> 'filling' ORDER BY id"
    ).fetchall()
    assert rows == [(1, 1), (3, None)]


def test_a_connector_made_by_another_job_works_in_this_one(job: Claim, table: str) -> None:
    kept = Connector("data_prim")  # as at the top of a module
    stats, error = bulk_insert(
        kept, table, [{"id": 1}], source_default_schema={}, batch_size=10, statistics=True
    )
    assert (stats["inserts"], error) == (1, None)
