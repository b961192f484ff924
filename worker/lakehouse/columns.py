"""Frame and table brought together: names, types, and every value in the form Postgres reads.

All values travel as Postgres' own text form, so the database alone decides what a column can
hold, in the small path (arrays) and in the large one (COPY) alike.
"""

import datetime as dt
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pandas as pd
import psycopg

from worker.errors import DatasetError

Texts = list[str | None]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `type` as Postgres writes it (`numeric`, `timestamp without …`)."""

    name: str
    type: str
    category: str  # pg_type.typcategory: N numeric, S string, D date and time, B boolean, A array …
    generated: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is to know of a table to write into it."""

    dataset: str
    table: str
    columns: dict[str, Column]
    key: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.dataset}.{self.table}"


_layouts: dict[tuple[str, str], Layout] = {}
_guard = threading.Lock()


def layout(conn: psycopg.Connection, dataset: str, table: str, *, fresh: bool = False) -> Layout:
    """The table's layout; kept per process, read anew with `fresh`.

    A table may have changed since: whoever meets an error with a kept layout tries once more with
    a fresh one.  Raises DatasetError where there is no such table, with the ones that there are.
    """
    found = None if fresh else _layouts.get((dataset, table))
    if found is None:
        found = _read_layout(conn, dataset, table)
        with _guard:
            _layouts[dataset, table] = found
    return found


def forget_layouts() -> None:
    """After a statement that may have changed a table."""
    with _guard:
        _layouts.clear()


def _read_layout(conn: psycopg.Connection, dataset: str, table: str) -> Layout:
    rows = conn.execute(
        """
        SELECT a.attname, format_type(a.atttypid, NULL), t.typcategory,
               a.attgenerated <> '' OR a.attidentity = 'a',
               coalesce(array_position(k.conkey, a.attnum), 0)
        FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_constraint k ON k.conrelid = a.attrelid AND k.contype = 'p'
        WHERE a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
          AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
        """,
        [dataset, table],
    ).fetchall()
    if not rows:
        known = tables(conn, dataset)
        raise DatasetError(
            f"{dataset}.{table}: there is no such table; the dataset has:"
            f" {', '.join(known) or 'none yet'}",
            "build it: dpe table build FILE.json",
        )
    columns = {name: Column(name, type, cat, gen) for name, type, cat, gen, _ in rows}
    key = sorted((position, name) for name, *_, position in rows if position)
    return Layout(dataset, table, columns, tuple(name for _, name in key))


def tables(conn: psycopg.Connection, dataset: str) -> list[str]:
    """Names of the tables and views of a dataset."""
    rows = conn.execute(
        """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.relname
        """,
        [dataset],
    ).fetchall()
    return [name for (name,) in rows]


@dataclass(frozen=True, slots=True)
class Matched:
    """The columns of some data, matched by name to those of a table."""

    layout: Layout
    columns: list[Column]
    values: list[Sequence[Any]]  # one sequence a column
    rows: int


def match(layout: Layout, data: Any) -> Matched:
    """Match a DataFrame, or a list of dicts, to the table by name; raises DatasetError."""
    frame = data if isinstance(data, pd.DataFrame) else None
    names = list(frame.columns) if frame is not None else _names(layout, data)
    columns = [_find(layout, name) for name in names]
    doubled = [c.name for c in columns if columns.count(c) > 1]
    if doubled:
        raise DatasetError(f'{layout.name}: column "{doubled[0]}" is there twice in the data')
    if frame is not None:
        values = [frame.iloc[:, at].tolist() for at in range(len(names))]
        return Matched(layout, columns, values, len(frame))
    return Matched(layout, columns, [[row.get(n) for row in data] for n in names], len(data))


def _names(layout: Layout, data: Any) -> list[Any]:
    if not isinstance(data, (list, tuple)) or not all(isinstance(row, dict) for row in data):
        raise DatasetError(
            f"{layout.name}: the data must be a DataFrame or a list of dicts,"
            f" got {type(data).__name__}"
        )
    return list(dict.fromkeys(name for row in data for name in row))


def _find(layout: Layout, name: Any) -> Column:
    column = layout.columns.get(name) if isinstance(name, str) else None
    if column is None:
        alike = [c for c in layout.columns.values() if c.name.lower() == str(name).lower()]
        if len(alike) != 1:
            raise UnknownColumn(
                f'{layout.name} has no column "{name}"; it has: {", ".join(layout.columns)}',
                "leave the column out of the data, or add it to the table's description and build",
            )
        column = alike[0]
    if column.generated:
        raise DatasetError(f'{layout.name}: column "{column.name}" is generated by the database')
    return column


class UnknownColumn(DatasetError):
    """The data has a column that the table lacks."""


def texts(layout: Layout, column: Column, values: Iterable[Any], first_row: int = 1) -> Texts:
    """Values in Postgres' text form, None for NULL; raises DatasetError naming row and value."""
    convert = _converter(column)
    done: Texts = []
    add = done.append
    for value in values:
        if value is None:
            add(None)
            continue
        try:
            text = convert(value)
        except (TypeError, ValueError) as error:
            row = first_row + len(done)
            raise bad_value(layout, column, row, value, str(error)) from None
        if text is not None and "\0" in text:
            row = first_row + len(done)
            raise bad_value(layout, column, row, value, "Postgres' text can't hold a NUL character")
        add(text)
    return done


def bad_value(layout: Layout, column: Column, row: int, value: Any, why: str = "") -> DatasetError:
    """The error for one value that its column can't hold; rows are counted from 1."""
    shown = repr(value)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."  # noqa: PLR2004
    said = f" ({why})" if why else ""
    return DatasetError(
        f'{layout.name}, row {row}: column "{column.name}" is {column.type}, got {shown}{said}'
    )


Convert = Callable[[Any], str | None]


def _converter(column: Column) -> Convert:
    if column.type in ("json", "jsonb"):
        return _json
    if column.type == "bytea":
        return _bytes
    if column.category == "N":
        return _integer if column.type in INTEGERS else _number
    if column.category == "D":
        return _time
    if column.category == "A":
        return _array
    return _text


INTEGERS = {"smallint", "integer", "bigint"}


def _number(value: Any) -> str | None:
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is float:
        return None if value != value else repr(value)  # noqa: PLR0124 -- NaN
    if kind is str:
        return value.strip() or None
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if _is_missing(value):
        return None
    return str(value)


def _integer(value: Any) -> str | None:
    if type(value) is int:
        return str(value)
    if isinstance(value, (float, np.floating, Decimal)):
        if value != value:  # noqa: PLR0124 -- NaN
            return None
        # Frames turn integers into floats as soon as one is missing.
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    return _number(value)


def _time(value: Any) -> str | None:
    if type(value) is str:
        return value.strip() or None
    if _is_missing(value):
        return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC)
        return value.isoformat(" ")
    if isinstance(value, np.datetime64):
        return str(pd.Timestamp(value))
    if isinstance(value, dt.timedelta):
        return f"{value.total_seconds()} seconds"
    return str(value)


def _text(value: Any) -> str | None:
    if type(value) is str:
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple, set, np.ndarray)):
        return _json(list(value) if isinstance(value, (set, np.ndarray)) else value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    if _is_missing(value):
        return None
    return str(value)


def _json(value: Any) -> str | None:
    if type(value) is str:
        return value  # JSON already, as Postgres would take it
    if not isinstance(value, (dict, list, tuple, np.ndarray)) and _is_missing(value):
        return None
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=_jsonable, option=options).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None


def _jsonable(value: Any) -> Any:
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (set, frozenset)):
        return list(value)
    return str(value)


def _bytes(value: Any) -> str | None:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    return _text(value)


def _array(value: Any) -> str | None:
    if isinstance(value, (list, tuple, set, np.ndarray)):
        return "{" + ",".join(_element(element) for element in value) + "}"
    return _text(value)


def _element(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return _array(value) or "NULL"
    text = _text(value) if value is not None else None
    if text is None:
        return "NULL"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_missing(value: Any) -> bool:
    missing = pd.isna(value)
    return missing if isinstance(missing, bool) else bool(np.all(missing)) and np.size(missing) > 0
