"""Which changes of a column's type lose nothing, whatever is in the column."""

import re

_PLACES = re.compile(r"^(.*?)(?:\((\d+)(?:,(-?\d+))?\))?( with(?:out)? time zone)?$")

# From a type to those that hold each of its values exactly.  Sessions are in UTC.
_WIDER = {
    "smallint": {"integer", "bigint", "numeric", "real", "double precision"},
    "integer": {"bigint", "numeric", "double precision"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "date": {"timestamp without time zone", "timestamp with time zone"},
    "timestamp without time zone": {"timestamp with time zone"},
    "timestamp with time zone": {"timestamp without time zone"},
    "character varying": {"text"},
    "character": {"text", "character varying"},
}
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}


def loses_nothing(old: str, new: str) -> bool:
    """Whether every value of the type `old` is the same in `new`; both as Postgres writes them."""
    if new in {old, "text"}:
        return True  # each type's text is what Postgres itself reads back
    old_base, old_size, old_scale = _parted(old)
    new_base, new_size, new_scale = _parted(new)
    if new_size is None:
        return new_base == old_base or new_base in _WIDER.get(old_base, ())
    if new_base == "numeric":
        whole = new_size - new_scale
        if old_base in _DIGITS:
            return new_scale >= 0 and whole >= _DIGITS[old_base]
        return (
            old_base == "numeric"
            and old_size is not None
            and new_scale >= old_scale
            and whole >= old_size - old_scale
        )
    same = new_base == old_base or new_base in _WIDER.get(old_base, ())
    return same and old_size is not None and new_size >= old_size


def _parted(type: str) -> tuple[str, int | None, int]:
    """`timestamp(3) without time zone`: what it is called without numbers, and the numbers."""
    found = _PLACES.match(type)
    if found is None:
        return type, None, 0
    base, size, scale, zone = found.groups()
    return base + (zone or ""), int(size) if size else None, int(scale or 0)
