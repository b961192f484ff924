"""A value of an event's JSON in the text that Postgres reads for a column's type.

It says the same as `worker.lakehouse.values` says of these few kinds of values, without pandas,
which the API does not load: `tests/lakehouse/test_row_check.py` holds the two against each other.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import orjson

JSON = {"json", "jsonb"}
ZONELESS = {"date", "timestamp without time zone"}
WHOLE_BELOW = 2**64

_ZONE = re.compile(r"(?:Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?|\bUTC|\bGMT)\s*$", re.IGNORECASE)


def text_of(type: str, category: str, value: Any) -> str | None:
    """The text, None for NULL; `type` and `category` as `pg_type` has them, without a length.

    Raises ValueError saying why a value can't be, before Postgres is asked.
    """
    text = _text_of(type, category, value)
    if text is not None and "\0" in text:
        raise ValueError("Postgres' text can't hold a NUL character")
    return text


def _text_of(type: str, category: str, value: Any) -> str | None:
    if value is None:
        return None
    if type in JSON:
        return value if isinstance(value, str) else _json(value)
    if category == "D" or type in ZONELESS:
        return _time(value, zoneless=type in ZONELESS)
    if category == "A" and isinstance(value, list):
        return "{" + ",".join(_element(element) for element in value) + "}"
    of_numbers = category == "N" or type == "boolean"
    if of_numbers and not (type == "boolean" and isinstance(value, bool)):
        return _number(value)
    return str(value) if category == "T" else _text(value)


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE_BELOW:
        return str(int(value))
    return str(value)


def _time(value: Any, *, zoneless: bool) -> str:
    if isinstance(value, (int, float)):
        raise ValueError("a number is no date: send text")  # noqa: TRY004 -- all are ValueErrors
    text = str(value)
    if not (zoneless and ":" in text and _ZONE.search(text)):
        return text
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return text
    try:
        return text if at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json(value) if isinstance(value, (dict, list)) else str(value)


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "{" + ",".join(_element(element) for element in value) + "}"
    return '"' + _text(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # whole numbers beyond 64 bits
        return json.dumps(value)
