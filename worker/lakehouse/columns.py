"""A table's columns, and the data's columns matched to them by name."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from worker.errors import DatasetError
from worker.lakehouse.values import Convert, converter

MAX_SHOWN = 120  # characters of a value in an error


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `type` as Postgres writes it (`numeric`, `timestamp without …`)."""

    name: str
    type: str
    generated: bool  # Postgres alone writes it
    has_default: bool
    convert: Convert = field(repr=False)  # a value to the text that Postgres reads for the type


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is to know of a table to write into it."""

    dataset: str
    table: str
    columns: dict[str, Column] = field(hash=False)
    key: tuple[str, ...]  # the primary key's columns, in its order
    # What was made of it once, per names of the data's columns: at once forgotten with it.
    made: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.dataset}.{self.table}"


# A type that was changed by others and raises no error is noticed after so long.
LAYOUT_KEPT_S = 1.0

_layouts: dict[tuple[str, str], tuple[Layout, float]] = {}  # with the time when it was read
_guard = threading.Lock()


def layout(conn: psycopg.Connection, dataset: str, table: str, *, fresh: bool = False) -> Layout:
    """The table's layout; kept for LAYOUT_KEPT_S in this process, read anew with `fresh`.

    A table may have changed since: whoever meets an error with a kept layout tries once more with
    a fresh one, and whoever must not be wrong asks for a fresh one, under a lock on the table.
    Raises DatasetError where there is no such table, with the ones that there are.
    """
    kept, read_at = _layouts.get((dataset, table), (None, 0.0))
    now = time.monotonic()
    if kept is not None and not fresh and now - read_at < LAYOUT_KEPT_S:
        return kept
    found = _read_layout(conn, dataset, table)
    if kept is not None and found == kept:
        found = kept  # what was made of it still holds
    with _guard:
        if len(_layouts) > 1000:  # noqa: PLR2004 -- a handler may make tables without end
            _layouts.clear()
        _layouts[dataset, table] = found, now
    return found


def forget_layouts() -> None:
    """After a statement that may have changed a table."""
    with _guard:
        _layouts.clear()


def _read_layout(conn: psycopg.Connection, dataset: str, table: str) -> Layout:
    rows = conn.execute(
        """
        SELECT a.attname, format_type(a.atttypid, NULL), t.typcategory,
               a.attgenerated <> '' OR a.attidentity = 'a', a.atthasdef OR a.attidentity <> '',
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
        raise no_such_table(conn, dataset, table)
    columns = {
        name: Column(name, type, generated, has_default, converter(type, category))
        for name, type, category, generated, has_default, _ in rows
    }
    key = sorted((position, name) for name, *_, position in rows if position)
    return Layout(dataset, table, columns, tuple(name for _, name in key))


def no_such_table(conn: psycopg.Connection, dataset: str, table: str) -> DatasetError:
    """The error for a table that is not there; it lists the ones that are."""
    known = tables(conn, dataset)
    return DatasetError(
        f"{dataset}.{table}: there is no such table; the dataset has:"
        f" {', '.join(known) or 'none yet'}",
        "build it: dpe table build FILE.json",
    )


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


class UnknownColumn(DatasetError):
    """The data has a column that the table lacks."""


def match(layout: Layout, names: Iterable[Any], first_row: Sequence[Any] = ()) -> list[Column]:
    """The table's columns for those of the data, by name: exactly, else whatever their case.

    `first_row`, values in the order of `names`, is shown in the error for a column that the table
    lacks.  Raises UnknownColumn for that, and DatasetError for a column that is there twice.
    """
    columns: list[Column] = []
    for at, name in enumerate(names):
        column = find(layout, name)
        if column is None:
            example = f"; row 1 has {shown(first_row[at])} there" if len(first_row) > at else ""
            raise UnknownColumn(
                f'{layout.name} has no column "{name}"{example}; its columns:'
                f" {', '.join(layout.columns)}",
                "leave the column out of the data, or add it to the table's description and build",
            )
        if column in columns:
            raise DatasetError(f'{layout.name}: column "{column.name}" is there twice in the data')
        if column.generated:
            raise DatasetError(
                f'{layout.name}: column "{column.name}" is filled by the database itself',
                "leave it out of the data",
            )
        columns.append(column)
    return columns


def find(layout: Layout, name: Any) -> Column | None:
    """The column of that name: exactly, else the only one that differs in case alone."""
    column = layout.columns.get(str(name))
    if column is None:
        folded = str(name).casefold()
        alike = [c for c in layout.columns.values() if c.name.casefold() == folded]
        column = alike[0] if len(alike) == 1 else None
    return column


def texts(
    layout: Layout, column: Column, values: Sequence[Any], first_row: int = 1
) -> list[str | None]:
    """Values in Postgres' text form, None for NULL.

    Raises DatasetError naming the row (counted from 1; `first_row` is that of the first value).
    """
    convert = column.convert
    try:
        return [None if value is None else convert(value) for value in values]
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        for row, value in enumerate(values, first_row):
            try:
                if value is not None:
                    convert(value)
            except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
                raise bad_value(layout, column, row, value, str(error)) from None
        raise


def check_encodable(
    layout: Layout, column: Column, found: Sequence[str | None], first_row: int = 1
) -> None:
    """Raise DatasetError naming the first text that Postgres can't take in any column."""
    for row, text in enumerate(found, first_row):
        if text is not None and "\0" in text:
            raise bad_value(layout, column, row, text, "Postgres' text can't hold a NUL character")
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise bad_value(layout, column, row, text, str(error)) from None


def bad_value(layout: Layout, column: Column, row: int, value: Any, why: str = "") -> DatasetError:
    """The error for one value that its column can't hold; rows are counted from 1."""
    said = f" ({why})" if why else ""
    return DatasetError(
        f'{layout.name}, row {row}: column "{column.name}" is {column.type},'
        f" got {shown(value)}{said}"
    )


def shown(value: Any) -> str:
    """A value in an error, cut where it is long."""
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:
        value = value.item()
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
