"""Columns as rows of COPY's text form: for what has no binary form here.

Tab between fields, a newline after each row, \\N for NULL, a backslash before what means something.
Source: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute

from worker.lakehouse.values import INTEGERS, ZONELESS

pc: Any = pyarrow.compute  # its functions are made when it is imported: no checker sees them

FRACTIONS = {"numeric", "double precision"}
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def reads_alike(type: str, column: pa.Array) -> bool:
    """Whether Arrow's own text of these values is what Postgres should read for the type."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return type not in ZONELESS
    if pa.types.is_integer(column.type):
        return type in INTEGERS | FRACTIONS
    if column.type != pa.float64() or type not in FRACTIONS:
        return False
    # Above, the shortest text of a whole number may lack digits.
    return type != "numeric" or not pc.any(pc.greater(pc.abs(column), 2.0**53)).as_py()


def rows(columns: list[pa.Array]) -> memoryview:
    """Put columns of text (None for NULL) together to rows."""
    escaped = [_escaped(column.cast(pa.large_string())) for column in columns]
    tab, none = pa.scalar("\t", pa.large_string()), pa.scalar("", pa.large_string())
    lines = pc.binary_join_element_wise(*escaped, tab)
    ended = pc.binary_join_element_wise(lines, pa.scalar("\n", pa.large_string()), none)
    _, offsets, data = ended.buffers()
    ends = memoryview(offsets).cast("q")[ended.offset : ended.offset + len(ended) + 1]
    return memoryview(data)[ends[0] : ends[-1]]


def _escaped(column: pa.Array) -> pa.Array:
    for character, escape in _ESCAPES.items():
        if pc.any(pc.match_substring(column, character)).as_py():
            column = pc.replace_substring(column, character, escape)
    return column.fill_null("\\N")
