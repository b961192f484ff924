"""The data that a handler brings, a DataFrame or a list of dicts, read column by column."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from worker.errors import DatasetError

pc: Any = pyarrow.compute  # its functions are made when it is imported: no checker sees them


class Source(Protocol):
    """Rows are counted from 0 here; `start` and `stop` are as in a slice."""

    names: list[Any]
    rows: int

    def values(self, start: int, stop: int) -> list[list[Any]]:
        """The values of each column, as Python has them."""
        ...

    def column(self, at: int, start: int, stop: int) -> list[Any]:
        """The values of one column."""
        ...

    def array(self, at: int, start: int, stop: int) -> Any:
        """The same in what Arrow can read at once: an array of numpy or pandas, or a list."""
        ...


def source(name: str, data: Any) -> Source:
    """Take the data as it is; `name` is the table's, for the error of data that is neither."""
    if isinstance(data, pd.DataFrame):
        return Frame(data)
    if isinstance(data, (list, tuple)) and all(isinstance(row, dict) for row in data):
        return Rows(data)
    raise DatasetError(
        f"{name}: the data must be a DataFrame or a list of dicts, got {_kind(data)}"
    )


class Frame:
    """A DataFrame, whose index says nothing."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.names: list[Any] = _listed(frame.columns.array)
        self.rows = len(frame)
        self._columns = list(_column_arrays(frame))

    def values(self, start: int, stop: int) -> list[list[Any]]:
        whole = start == 0 and stop >= self.rows
        return [_listed(c if whole else c[start:stop]) for c in self._columns]

    def column(self, at: int, start: int, stop: int) -> list[Any]:
        return _listed(self._columns[at][start:stop])

    def array(self, at: int, start: int, stop: int) -> Any:
        return self._columns[at][start:stop]


class Rows:
    """A list of dicts; what a row lacks is None."""

    def __init__(self, rows: Sequence[dict[Any, Any]]) -> None:
        names: dict[Any, None] = {}
        for row in rows:
            names.update(dict.fromkeys(row))
        self.names: list[Any] = list(names)
        self.rows = len(rows)
        self._rows = rows

    def values(self, start: int, stop: int) -> list[list[Any]]:
        rows = self._rows[start:stop]
        return [[row.get(name) for row in rows] for name in self.names]

    def column(self, at: int, start: int, stop: int) -> list[Any]:
        name = self.names[at]
        return [row.get(name) for row in self._rows[start:stop]]

    array = column


def to_arrow(values: Any) -> pa.Array | None:
    """A column for the fast path, or None where Arrow might see it otherwise than Python does.

    Arrow guesses a type for mixed objects, and may round a large integer that stands beside a
    float: of objects only those types are taken of which all values are the same kind.
    """
    guessed = isinstance(values, list) or str(getattr(values, "dtype", "")) == "object"
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return None
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    if isinstance(found, pa.DictionaryArray):
        found = found.dictionary_decode()
    if pa.types.is_floating(found.type) and not isinstance(values, np.ndarray):
        found = pc.if_else(pc.is_nan(found), None, found)  # an array of pandas may hold both
    return found if not guessed or found.type in _SURE else None


_SURE = {pa.string(), pa.large_string(), pa.int64(), pa.bool_(), pa.null()}


def _column_arrays(frame: pd.DataFrame) -> Iterator[Any]:
    # A third of the time of `frame.items()`, which makes a Series of each column; not public.
    arrays = getattr(frame, "_iter_column_arrays", None)
    return arrays() if arrays else (column.array for _, column in frame.items())


def _listed(column: Any) -> list[Any]:
    if isinstance(column, pd.arrays.ArrowStringArray):
        return column.__arrow_array__().to_pylist()  # a fifth of the time of its tolist()
    if isinstance(column, np.ndarray) and column.dtype.kind in "mM":
        return list(column)  # its tolist() makes bare integers of nanoseconds
    return column.tolist()


def _kind(data: Any) -> str:
    if isinstance(data, (list, tuple)):
        other = next(row for row in data if not isinstance(row, dict))
        return f"a list with a {type(other).__name__} in it"
    return type(data).__name__
