"""Rows from Postgres as handlers get them: a frame, a list of dicts, or a cursor.

In a frame a column's type follows the column of the query, and not the values that happen to be
there, but for `numeric`, which has no counterpart: whole numbers become integers of any size,
fractions floats where no digit is lost by it, and else Decimals.
- smallint, integer, bigint: `int64`, and `Int64` where one is NULL, so that ids stay exact.
- timestamp: `datetime64[us]`, which is UTC; with time zone: `datetime64[us, UTC]`.
- date, time, uuid, bytea, arrays: Python's own objects.  json and jsonb: dicts, lists, ….
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pandas as pd
import psycopg
from psycopg.postgres import types

_OIDS = {name: types[name].oid for name in ("int2", "int4", "int8", "oid", "float4", "float8")}
INTEGERS = {_OIDS["int2"], _OIDS["int4"], _OIDS["int8"], _OIDS["oid"]}
FLOATS = {_OIDS["float4"], _OIDS["float8"]}
NUMERIC, BOOLEAN = types["numeric"].oid, types["bool"].oid
TIMESTAMP, TIMESTAMPTZ = types["timestamp"].oid, types["timestamptz"].oid


class Rows:
    """The rows of a query: what of a cursor is about reading them."""

    def __init__(self, cursor: psycopg.Cursor[Any], rows: list[tuple[Any, ...]]) -> None:
        self.description = cursor.description
        self.rowcount = cursor.rowcount
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, None after the last one."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """At most `size` further rows."""
        return [row for row, _ in zip(self._rows, range(size), strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return list(self._rows)

    def close(self) -> None:
        """Nothing has to be closed."""


def returned(cursor: psycopg.Cursor[Any], limit: int, return_type: str) -> Any:
    """The result that the cursor stands at, in one of the forms; at most `limit` rows (-1: all)."""
    if cursor.description is None:
        count = max(cursor.rowcount, 0)
        if return_type == "dataframe":
            return pd.DataFrame({"rows": [count]})
        return [{"rows": count}] if return_type == "dict" else Rows(cursor, [])
    rows = cursor.fetchall() if limit < 0 else cursor.fetchmany(limit) if limit else []
    if return_type == "cursor":
        return Rows(cursor, rows)
    names = [column.name for column in cursor.description]
    if return_type == "dict":
        return [dict(zip(names, row, strict=True)) for row in rows]
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    series = [
        _series(column.type_code, found)
        for column, found in zip(cursor.description, values, strict=True)
    ]
    # Names may be there twice: so they are set after, and not the keys of a dict.
    frame = pd.DataFrame(dict(enumerate(series)), index=pd.RangeIndex(len(rows)))
    frame.columns = pd.Index(names, dtype=object if not names else None)
    return frame


def _series(oid: int, values: Sequence[Any]) -> pd.Series:
    found = list(values)
    if oid == NUMERIC:
        found, oid = _undecimal(found)
    nulls = None in found
    if oid in INTEGERS:
        return pd.Series(found, dtype="Int64" if nulls else "int64")
    if oid in FLOATS:
        return pd.Series(found, dtype="float64")
    if oid == BOOLEAN and not nulls:
        return pd.Series(found, dtype="bool")
    if oid == TIMESTAMP:
        return _times(found, "datetime64[us]")
    if oid == TIMESTAMPTZ:
        return _times(found, "datetime64[us, UTC]")
    return pd.Series(found, dtype=object)


def _times(found: list[Any], dtype: str) -> pd.Series:
    try:
        return pd.Series(found, dtype=dtype)
    except (ValueError, OverflowError):
        return pd.Series(found, dtype=object)


def _undecimal(found: list[Any]) -> tuple[list[Any], int]:
    """The values of a `numeric` column, and the type to take them for."""
    present: list[Decimal] = [value for value in found if value is not None]
    if not present:
        return found, _OIDS["float8"] if found else NUMERIC
    if all(value.is_finite() and value == value.to_integral_value() for value in present):
        whole = [None if value is None else int(value) for value in found]
        small = all(-(2**63) <= value < 2**63 for value in map(int, present))
        return whole, _OIDS["int8"] if small else NUMERIC
    if all(not value.is_finite() or Decimal(repr(float(value))) == value for value in present):
        return [None if value is None else float(value) for value in found], _OIDS["float8"]
    return found, NUMERIC
