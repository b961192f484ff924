"""A body of JSON as Python values, for handlers and for those who check it beforehand."""

import json
import re
from typing import Any

import orjson

# A whole number of more digits may be beyond 64 bits: orjson makes a float of it, and digits go.
_LONG_NUMBER = re.compile(r"[0-9]{19}")


def decoded(text: str) -> Any:
    """Whole numbers are exact, however long.  Raises orjson.JSONDecodeError as orjson does."""
    value = orjson.loads(text)
    return json.loads(text) if _LONG_NUMBER.search(text) else value
