"""What the check before a start says of rows, and what `bulk_insert` then does: the same."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.lakehouse import bulk_insert, connect
from worker.store import row_check
from worker.store.claims import Claim

TYPES = {
    "whole": "bigint",
    "small": "smallint",
    "amount": "numeric",
    "cut": "numeric(5,2)",
    "ratio": "double precision",
    "name": "text",
    "short": "varchar(3)",
    "fixed": "char(3)",
    "ok": "boolean",
    "day": "date",
    "at": "timestamp",
    "instant": "timestamptz",
    "span": "interval",
    "extra": "jsonb",
    "loose": "json",
    "ids": "integer[]",
    "words": "text[]",
    "token": "uuid",
    "raw": "bytea",
}
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 32_768, 2**31, 2**63, 2**64 - 1, 0.5, 1.0, -0.0, 1e20, 1e300,
    999.995, 9.5e-324, "", " ", "1", " 7 ", "1.5", "1e3", "abc", "abcd", "ab   ", "a\0b", "é",
    "NaN",    "Infinity", "-inf", "true", "t", "yes", "on", "perhaps", "now", "today", "infinity",
    "2020-05-21", "2020-02-30", "2020-05-21 11:34:23 PM", "2020-05-21T11:34:23Z", "25:00",
    "2020-05-21T11:34:23+02:00", "0001-01-01T00:00:00+14:00", "21/05/2020", "05/21/2020", "soon",
    "1 day", "P1D", "00:01", "{}", "[]", "null", "{not json", '"text"', '{"a": 1}', '"\\u0000"',
    "{1,2}", "{1,x}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "\\x00ff", "\\xzz", {}, [], {"a": 1},
    {"a": [1, {"b": None}]}, [1, 2], [1, None], [[1], [2]], ["a", 'q"\\'], [1.5], [True], [{}],
    {"a": "\0"},
]  # fmt: skip


@pytest.fixture
def every(job: Claim) -> Claim:
    """A table with a column of each type."""
    columns = ", ".join(f"{name} {type}" for name, type in TYPES.items())
    job.conn.execute(f"CREATE TABLE data_prim.every ({columns})".encode())
    return job


def passes(job: Claim, rows: Any, table: str = "every") -> bool:
    known = row_check.columns(job.conn, "data_prim", table)
    return not row_check.check(job.conn, known, rows).errors


def inserts(rows: Any, table: str = "every") -> bool:
    return bulk_insert(connect("dwh/data_prim/"), table, rows)[1] is None


@pytest.mark.parametrize("column", TYPES)
def test_each_value_passes_the_check_where_it_can_be_written(every: Claim, column: str) -> None:
    told, taken = [], []
    for value in VALUES:
        rows = [{column: value}]
        told.append(passes(every, rows))
        taken.append(inserts(rows))
    different = [v for v, said, done in zip(VALUES, told, taken, strict=True) if said != done]
    assert different == []
    assert any(taken)
    assert not all(taken)


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
TIMES = st.datetimes().map(lambda at: at.isoformat()) | st.dates().map(str)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from([*TYPES, "WHOLE", "colour"]), JSON | TIMES, max_size=4),
    max_size=4,
)


@given(rows=ROWS)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_rows_pass_the_check_where_they_can_be_written(every: Claim, rows: Any) -> None:
    assert passes(every, rows) == inserts(rows)


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": 1, "name": "a"}],
        [{"id": 1, "name": "a"}, {"id": 2}],
        [{"id": 1}],
        [{"name": "a"}],
        [{"id": None, "name": "a"}],
        [{"id": 1, "name": "a", "made": 2}],
        [{"id": 1, "name": "a", "NAME": "b"}],
        [{"id": 1, "name": "a", "kind": None}],
        [{"id": 1, "name": "a", "kind": "k"}, {"id": 2, "name": "b"}],
        [{"ID": 1, "Name": "a"}],
        [{}],
        [],
        [1],
        {"id": 1},
        None,
        "rows",
    ],
)
def test_the_shape_of_rows_is_checked_as_it_is_when_written(job: Claim, rows: Any) -> None:
    job.conn.execute(
        "CREATE TABLE data_prim.keyed (id bigint PRIMARY KEY, name text NOT NULL,"
        " kind text NOT NULL DEFAULT 'plain', made bigint GENERATED ALWAYS AS (id) STORED)"
    )
    assert passes(job, rows, "keyed") == inserts(rows, "keyed")


def test_the_named_exceptions_are_ones(every: Claim) -> None:
    """These pass the check, and are refused when they are written."""
    every.conn.execute("ALTER TABLE data_prim.every ADD CHECK (whole < 10), ADD UNIQUE (name)")
    for rows in (
        [{"whole": 11}],  # CHECK
        [{"name": "a"}, {"name": "a"}],  # UNIQUE
        # A zone, and else not ISO 8601: pandas reads it then, which the API does not load.
        [{"at": "2020-05-21 24:00:00Z"}],
    ):
        assert passes(every, rows)
        assert not inserts(rows)


def test_errors_are_placed_counted_and_bounded(every: Claim) -> None:
    known = row_check.columns(every.conn, "data_prim", "every")
    found = row_check.check(
        every.conn, known, [{"whole": 1}, {"whole": "x", "a/b~c": 1}, {"Short": "long"}, 7]
    )
    assert (found.rows, found.bad_rows) == (4, 3)
    assert [(error.pointer, error.column) for error in found.errors] == [
        ("#/1/whole", "whole"),
        ("#/1/a~1b~0c", None),
        ("#/2/Short", "short"),
        ("#/3", None),
    ]
    assert found.errors[0].reason == 'is bigint: invalid input syntax for type bigint: "x"'
    many = row_check.check(every.conn, known, [{"whole": "x"}] * 30_000)
    assert (many.bad_rows, len(many.errors)) == (30_000, row_check.MAX_ERRORS)
