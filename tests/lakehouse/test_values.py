"""What goes in comes out, whatever it is: for each type of column, by each way into a table."""

import datetime as dt
import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from worker.lakehouse import Connector, bulk_insert
from worker.store.claims import Claim

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
JSON_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
FLOATS = st.floats(allow_nan=False)
TIMES = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))  # noqa: DTZ001
ZONED = st.datetimes(
    dt.datetime(1900, 1, 1),  # noqa: DTZ001
    dt.datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.timezones(),
)
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXT, inner, max_size=3),
    max_leaves=6,
)


def same(value: Any) -> Any:
    return value


def utc(value: dt.datetime) -> dt.datetime:
    return value.astimezone(dt.UTC).replace(tzinfo=None)


def digits(value: float) -> Decimal:
    return Decimal(int(value) if value.is_integer() and abs(value) < 2**64 else repr(value))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


# (column's type, values, what comes out of a value)
KINDS: dict[str, tuple[str, st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "bigint": ("bigint", INT64, same),
    "bigint from numpy": ("bigint", INT64.map(np.int64), int),
    "bigint from text": ("bigint", INT64.map(str), int),
    "bigint from float": ("bigint", st.integers(-(2**53), 2**53).map(float), int),
    "smallint": ("smallint", st.integers(-(2**15), 2**15 - 1), same),
    "numeric from int": ("numeric", INT64, Decimal),
    "numeric from huge int": ("numeric", st.integers(-(10**40), 10**40), Decimal),
    "numeric from Decimal": (
        "numeric",
        st.decimals(allow_nan=False, allow_infinity=False, places=6),
        same,
    ),
    "numeric from float": ("numeric", FLOATS.filter(math.isfinite), digits),
    "numeric from short float": (
        "numeric",
        st.integers(-(10**9), 10**9).map(lambda v: v / 10_000),
        lambda v: Decimal(repr(v)),
    ),
    "double": ("double precision", FLOATS, same),
    "double from int": ("double precision", INT64, float),
    "double from numpy": ("double precision", FLOATS.map(np.float64), float),
    "real": ("real", st.floats(width=32, allow_nan=False).map(np.float32), lambda v: float(str(v))),
    "boolean": ("boolean", st.booleans(), same),
    "boolean from numpy": ("boolean", st.booleans().map(np.bool_), bool),
    "text": ("text", TEXT, same),
    "varchar": ("varchar(400)", TEXT.filter(lambda v: len(v) <= 400), same),
    "text from int": ("text", INT64, str),
    "timestamp": ("timestamp", TIMES, same),
    "timestamp from pandas": ("timestamp", TIMES.map(pd.Timestamp), lambda v: v.to_pydatetime()),
    "timestamp from text": ("timestamp", TIMES.map(str), dt.datetime.fromisoformat),
    "timestamp with a zone": ("timestamp", ZONED, utc),
    "timestamptz": ("timestamptz", ZONED, lambda v: v.astimezone(dt.UTC)),
    "date": ("date", st.dates(), same),
    "date from text": ("date", st.dates().map(str), dt.date.fromisoformat),
    "date from datetime": ("date", TIMES, lambda v: v.date()),
    "time": ("time", st.times(), same),
    "interval": ("interval", st.timedeltas(dt.timedelta(-(10**5)), dt.timedelta(10**5)), same),
    "uuid": ("uuid", st.uuids(), same),
    "bytea": ("bytea", st.binary(), same),
    "jsonb": ("jsonb", NESTED.filter(lambda v: not isinstance(v, str)), as_json),
    "jsonb in text": ("text", st.lists(NESTED, max_size=3), lambda v: None),
    "array of text": ("text[]", st.lists(st.none() | TEXT, max_size=3), same),
    "array of bigint": ("bigint[]", st.lists(INT64, max_size=3), same),
}
MISSING: list[Any] = [None, float("nan"), pd.NaT, pd.NA]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_value_comes_out_as_it_went_in(data: st.DataObject, kind: str, job: Claim) -> None:
    column, values, expected = KINDS[kind]
    drawn = data.draw(st.lists(values | st.sampled_from(MISSING), min_size=1, max_size=12))
    wanted = [None if is_missing(value) else expected(value) for value in drawn]
    if kind == "jsonb in text":
        wanted = [None if is_missing(v) else as_json(v) for v in drawn]
    many = 1 + 600 // len(drawn)  # enough for COPY
    for times in (1, many):
        rows = [{"at": at, "v": v} for at, v in enumerate(drawn * times)]
        objects = pd.DataFrame(rows)
        objects["v"] = pd.Series([row["v"] for row in rows], dtype=object)
        inferred = pd.DataFrame(rows) if can_be_inferred(column, drawn) else objects
        for given_rows in (rows, objects, inferred):
            got = through(job, column, given_rows)
            if kind == "jsonb in text":
                got = [None if text is None else json.loads(text) for text in got]
            assert got == wanted * times
            assert [*map(type, got)] == [*map(type, wanted * times)]


def can_be_inferred(type: str, drawn: list[Any]) -> bool:
    """Whether the frame that pandas makes of the values by itself still holds the same ones.

    Integers beside a missing value become floats, and lose digits: that is pandas' doing.
    """
    try:
        column = pd.DataFrame([{"v": value} for value in drawn])["v"]
    except (OverflowError, ValueError):
        return False
    pairs = zip(column.tolist(), drawn, strict=True)
    return type not in {"text", "uuid", "interval", "jsonb"} and all(
        is_missing(b) if is_missing(a) else a == (b.item() if isinstance(b, np.generic) else b)
        for a, b in pairs
    )


def is_missing(value: Any) -> bool:
    return pd.isna(value) is True


def through(job: Claim, type: str, rows: Any) -> list[Any]:
    """The values as they stand in a table after they were inserted."""
    dataset = Connector("data_prim")
    dataset.query(f"DROP TABLE IF EXISTS t; CREATE TABLE t (v {type}, at int)")
    stats, error = bulk_insert(dataset, "t", rows)
    assert error is None
    assert stats["inserts"] == len(rows)
    found = job.conn.execute("SELECT v FROM data_prim.t ORDER BY at").fetchall()
    return [value for (value,) in found]


@pytest.mark.parametrize("type", ["numeric", "bigint"])
@pytest.mark.parametrize("count", [1, 600], ids=["statement", "copy"])
def test_ids_that_a_missing_one_made_floats_keep_their_digits(
    job: Claim, type: str, count: int
) -> None:
    rows = [{"at": at, "v": None if at == 0 else 2**62} for at in range(count + 1)]
    frame = pd.DataFrame(rows)
    assert frame["v"].dtype == "float64"
    assert through(job, type, frame) == [None, *[2**62] * count]


def test_frames_of_pandas_own_types(job: Claim) -> None:
    columns = {
        "i": ("bigint", pd.array([2**62 + 1, None, -5], dtype="Int64"), [2**62 + 1, None, -5]),
        "u": ("numeric", pd.array([2**64 - 1, 0, None], dtype="UInt64"), [2**64 - 1, 0, None]),
        "f": ("double precision", pd.array([1.5, None, -0.0], dtype="Float64"), [1.5, None, 0.0]),
        "b": ("boolean", pd.array([True, None, False], dtype="boolean"), [True, None, False]),
        "s": ("text", pd.array(["a", None, ""], dtype="string"), ["a", None, ""]),
        "c": ("text", pd.Categorical(["x", None, "x"]), ["x", None, "x"]),
        "t": (
            "timestamp",
            pd.to_datetime(["2024-07-01 12:00", None, "2024-01-01 00:00"]).tz_localize(
                "Europe/Paris"
            ),
            ["2024-07-01 10:00:00", None, "2023-12-31 23:00:00"],
        ),
        "n": (
            "timestamp",
            pd.to_datetime(["2024-07-01 12:00:00.123456789", None, "1999-12-31 00:00:00.0"]).astype(
                "datetime64[ns]"
            ),
            ["2024-07-01 12:00:00.123456", None, "1999-12-31 00:00:00"],
        ),
        "d": ("interval", pd.to_timedelta([90, None, 1], unit="s"), ["00:01:30", None, "00:00:01"]),
    }
    for repeated in (1, 400):
        data = {name: list(values) * repeated for name, (_, values, _) in columns.items()}
        frame = pd.DataFrame(
            {n: pd.Series(data[n], dtype=values.dtype) for n, (_, values, _) in columns.items()}
        )
        dataset = Connector("data_prim")
        types = ", ".join(f"{name} {type}" for name, (type, _, _) in columns.items())
        dataset.query(f"DROP TABLE IF EXISTS t; CREATE TABLE t (at serial, {types})")
        _, error = bulk_insert(dataset, "t", frame)
        assert error is None
        for name, (type, _, wanted) in columns.items():
            read = f"{name}::text" if type in {"timestamp", "interval"} else name
            query = f"SELECT {read} FROM data_prim.t ORDER BY at"
            assert [v for (v,) in job.conn.execute(query.encode())] == wanted * repeated, name


def test_floats_of_any_size_go_into_numeric(job: Claim) -> None:
    floats = [1e308, -1e308, 1e-300, 0.1, 1.0, 123456789.1234, 1e15, 1e22, float("inf"), -0.0]
    for times in (1, 100):
        for repeated in ([value] * times * 10 for value in floats):
            frame = pd.DataFrame({"v": repeated, "at": range(len(repeated))})
            assert through(job, "numeric", frame) == [Decimal(repr(v)) for v in repeated]
