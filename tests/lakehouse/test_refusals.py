"""What a table can't take: named with table, column, row and value, by each way into it."""

from typing import Any

import pandas as pd
import pytest

from tests.lakehouse.rows import Pad, found, refusal, write
from worker.lakehouse import bulk_insert, connect
from worker.store.claims import Claim
from worker.store.retry import is_outage

REFUSED = [
    ("id", "one", "bigint"),
    ("id", 1.5, "bigint"),
    ("id", 2**63, "bigint"),
    ("amount", "a lot", "numeric"),
    ("day", "2020-02-30", "date"),
    ("day", "soon", "date"),
    ("at", "25:00", "timestamp"),
    ("ok", "perhaps", "boolean"),
    ("extra", "{not json", "jsonb"),
    ("whole", 2**31, "integer"),
    ("ratio", "half", "double precision"),
    ("name", "a\0b", "text"),
    ("name", "\ud800", "text"),
    ("short", "long", "character varying"),
    ("fixed", "long", "character"),
]


@pytest.mark.parametrize("frame", [True, False], ids=["frame", "dicts"])
@pytest.mark.parametrize("refused", REFUSED, ids=[f"{c}-{v!r}" for c, v, _ in REFUSED])
def test_a_value_that_a_column_cannot_hold_is_named_with_its_place(
    job: Claim, table: str, pad: Pad, refused: tuple[str, Any, str], frame: bool
) -> None:
    column, value, type = refused
    rows = pad([{"id": 1, "name": "good"}, {"id": 2} | {column: value}, {"id": 3}])
    # pandas' own strings refuse a lone surrogate: then it stands among objects.
    dtype = object if value == "\ud800" else None
    said = refusal(job, table, pd.DataFrame(rows, dtype=dtype) if frame else rows)
    assert said.startswith(f'data_prim.t, row {len(rows) - 1}: column "{column}" is {type}')
    assert ("1.5" if value == 1.5 else repr(value).strip("'")) in said
    write(table, [{"id": 5, "name": "after"}])
    assert found(job) == [(5, "after")]


def test_a_column_that_the_table_lacks_is_named(job: Claim, table: str, pad: Pad) -> None:
    rows = pad([{"id": 1, "colour": "red"}])
    said = refusal(job, table, rows)
    assert 'data_prim.t has no column "colour"' in said
    assert "id, name, amount" in said


def test_a_table_that_is_not_there_is_named_with_those_that_are(
    job: Claim, table: str, pad: Pad
) -> None:
    said = refusal(job, "nothing", pad([{"id": 1}]))
    assert "data_prim.nothing: there is no such table; the dataset has: t" in said


def test_a_missing_value_is_named_with_its_row(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ALTER name SET NOT NULL")
    rows = pad([{"id": 1, "name": "x"}, {"id": 2, "name": None}])
    said = refusal(job, table, pd.DataFrame(rows))
    assert f"row {len(rows)}" in said
    assert '"name"' in said
    said = refusal(job, table, [{"id": row["id"]} for row in rows])
    assert '"name"' in said


def test_a_broken_constraint_is_told_in_postgres_words(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ADD CONSTRAINT positive CHECK (whole > 0)")
    assert "positive" in refusal(job, table, pad([{"id": 1, "whole": -1}]))


def test_a_column_that_is_there_twice_is_refused(job: Claim, table: str, pad: Pad) -> None:
    frame = pd.DataFrame(pad([{"id": 1, "name": "x"}]))
    twice = pd.concat([frame, frame[["name"]]], axis=1)
    assert '"name" is there twice' in refusal(job, table, twice)
    frame["NAME"] = "y"
    assert '"name" is there twice' in refusal(job, table, frame)


def test_generated_columns_are_not_for_the_data(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ADD twice bigint GENERATED ALWAYS AS (id * 2) STORED")
    assert '"twice"' in refusal(job, table, pad([{"id": 1, "twice": 2}]))
    write(table, pad([{"id": 1}]))
    assert found(job, "id, twice") == [(1, 2)]


@pytest.mark.parametrize("data", [None, "rows", 5, [1], [{"id": 1}, None], {"id": 1}])
def test_data_of_another_shape_is_refused(job: Claim, table: str, data: Any) -> None:
    _, error = bulk_insert(connect("dwh/data_prim/"), table, data)
    assert error is not None
    assert "must be a DataFrame or a list of dicts" in error


def test_rows_without_columns_are_refused(job: Claim, table: str) -> None:
    _, error = bulk_insert(connect("dwh/data_prim/"), table, pd.DataFrame(index=range(3)))
    assert error is not None
    assert "no columns" in error


def test_an_error_that_is_its_own_cause_is_looked_at_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_outage(first)
