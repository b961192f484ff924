"""A Python value in the text form that Postgres reads for a column's type.

Postgres alone decides what a column can hold; here it is only said what a Python value *means*:
- None, NaN, NaT and pd.NA are NULL, everywhere.
- Numbers: whole floats are whole numbers with all their digits (a frame makes floats of integers,
  even of 2**62, as soon as a value is missing), True is 1.  Other floats go in by their shortest
  text, Decimals exactly.
- Dates and times: text in any form that Postgres reads, dates, datetimes; what has a time zone is
  turned into UTC.  Parts of a microsecond are cut off.  A number is no date: its unit is unknown.
- Text: `true` and `false`, JSON for dicts, lists, tuples and arrays, UTF-8 for bytes, else str().
- JSON: text is taken for JSON already, everything else is encoded.
"""

import datetime as dt
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import numpy as np
import orjson
import pandas as pd

Convert = Callable[[Any], str | None]

INTEGERS = {"smallint", "integer", "bigint"}
WHOLE_BELOW = 2**64  # what pandas may have had as an integer before
ZONELESS = {"date", "timestamp without time zone"}
JSON = {"json", "jsonb"}


def converter(type: str, category: str) -> Convert:
    """What turns values into text for a type, given as `format_type` writes it, and its category
    (`pg_type.typcategory`).  The result raises ValueError or TypeError saying why a value can't be.
    """
    by_type = {"bytea": _bytes, "boolean": _boolean}
    if type in JSON:
        return _json
    if type in INTEGERS:
        return _integer
    if type in ZONELESS:
        return _zoneless
    by_category = {"N": _number, "D": _time, "T": _interval, "A": _array}
    return by_type.get(type) or by_category.get(category, _text)


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pd.NA; a list or an array never is."""
    missing = pd.isna(value)
    return missing if isinstance(missing, bool) else isinstance(missing, np.bool_) and bool(missing)


def _number(value: Any) -> str | None:
    kind = type(value)
    if kind is int or kind is str:
        return str(value)
    if isinstance(value, float):  # numpy's as well
        if value != value:  # noqa: PLR0124 -- NaN
            return None
        whole = value.is_integer() and abs(value) < WHOLE_BELOW
        return str(int(value)) if whole else repr(float(value))
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, np.generic):
        # A float32 by its own shortest text: 0.1, not 0.10000000149011612.
        return None if is_missing(value) else str(value).removesuffix(".0")
    return None if is_missing(value) else str(value)


def _integer(value: Any) -> str | None:
    if type(value) is int:
        return str(value)
    if isinstance(value, (float, np.floating, Decimal)):
        if is_missing(value):
            return None
        if abs(value) != float("inf") and value == int(value):
            return str(int(value))
    return _number(value)


def _boolean(value: Any) -> str | None:
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return _integer(value)


def _zoneless(value: Any) -> str | None:
    if type(value) is str:
        # Postgres would drop the zone of a text without a word.
        return _utc(value) if ":" in value and _ZONE.search(value) else value
    return _time(value)


_ZONE = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?|\bUTC|\bGMT)\s*$", re.IGNORECASE)


def _utc(text: str) -> str:
    try:
        at = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        at = cast("pd.Timestamp", pd.Timestamp(text))
    if at.tzinfo is None:
        return text
    return at.astimezone(dt.UTC).isoformat(" ", "microseconds")[:26]


def _time(value: Any) -> str | None:
    if type(value) is str:
        return value
    if isinstance(value, dt.datetime):  # pd.Timestamp and NaT are ones, too
        return _instant(value)
    if is_missing(value):
        return None
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[us]"))
    if isinstance(value, (int, float, np.number, np.bool_, Decimal)):
        raise TypeError("a number is no date: send text, a date or a datetime")
    return str(value)


def _instant(value: dt.datetime) -> str | None:
    if value is pd.NaT:
        return None
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
        return f"{value.isoformat(' ', 'microseconds')}+00"
    return value.isoformat(" ", "microseconds")


def _interval(value: Any) -> str | None:
    if is_missing(value):
        return None
    if isinstance(value, np.timedelta64):
        value = pd.Timedelta(value)
    if isinstance(value, dt.timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    return str(value)


def _text(value: Any) -> str | None:
    if type(value) is str:
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple, np.ndarray)):
        return _json(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return str(value.astimezone(dt.UTC))
    return None if is_missing(value) else str(value)


def _json(value: Any) -> str | None:
    if type(value) is str:
        return value
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return orjson.dumps(value, default=_jsonable, option=_JSON_OPTIONS).decode()
    except orjson.JSONEncodeError:
        # Whole numbers beyond 64 bits, arrays of objects.
        return json.dumps(value, default=_jsonable_slowly)


_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))  # as a number, with all its digits
    return _jsonable_slowly(value)


def _jsonable_slowly(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    return None if is_missing(value) else str(value)


def _bytes(value: Any) -> str | None:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    return _text(value)


def _array(value: Any) -> str | None:
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return "{" + ",".join(_element(element) for element in value) + "}"
    return _text(value)


def _element(value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        return _array(value) or "NULL"
    text = _text(value)
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
