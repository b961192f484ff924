"""Whether rows fit a table, asked of Postgres itself and nothing stored.

What a type takes is decided by its input function (`pg_input_is_valid`), as it is when the rows are
written.  Not seen here, since only writing shows it: CHECK, UNIQUE, FOREIGN KEY and exclusion
constraints, triggers, partitions, the size of an index entry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from worker.errors import NotFound
from worker.store.json_values import text_of

MAX_ERRORS = 100  # that are told; all bad rows are counted
CHUNK = 20_000  # values a statement
ANY_TEXT = {"text", "character varying"}  # of no length: these take whatever Postgres can hold


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `type` as Postgres writes it, `exact` with its length."""

    name: str
    type: str
    exact: str
    category: str  # pg_type.typcategory
    generated: bool  # Postgres alone writes it
    has_default: bool
    required: bool


@dataclass(frozen=True, slots=True)
class Unfit:
    """What is wrong: in which row (from 0; None: in all of the data), in which member of it."""

    row: int | None
    member: str | None  # None: the row itself
    column: str | None
    reason: str

    @property
    def pointer(self) -> str:
        """A JSON pointer into the event, as a URI's fragment (RFC 6901, 6)."""
        parts = [str(part) for part in (self.row, self.member) if part is not None]
        return "#" + "".join("/" + p.replace("~", "~0").replace("/", "~1") for p in parts)


@dataclass(frozen=True, slots=True)
class Checked:
    """How many rows there are, how many don't fit, and the first MAX_ERRORS reasons."""

    rows: int
    bad_rows: int
    errors: list[Unfit]


def columns(conn: psycopg.Connection, dataset: str, table: str) -> list[Column]:
    """The table's columns in its order; raises NotFound."""
    rows = conn.execute(
        """
        SELECT a.attname, format_type(a.atttypid, NULL), format_type(a.atttypid, a.atttypmod),
               t.typcategory::text, a.attgenerated <> '' OR a.attidentity = 'a',
               a.atthasdef OR a.attidentity <> '', a.attnotnull
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
          AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
        """,
        [dataset, table],
    ).fetchall()
    if not rows:
        raise NotFound(f"table {dataset}.{table} not found", "build it: dpe table build FILE.json")
    return [Column(*row) for row in rows]


def check(
    conn: psycopg.Connection, known: Sequence[Column], data: Any, filled: Iterable[str] = ()
) -> Checked:
    """Check an event's content, decoded JSON, against a table's columns.

    `filled` are columns that rows need not bring, since the handler fills them.
    """
    if not isinstance(data, list):
        return _whole(0, f"the event must be a list of rows, got {_kind(data)}")
    errors = [
        Unfit(at, None, None, f"a row must be an object, got {_kind(row)}")
        for at, row in enumerate(data)
        if not isinstance(row, dict)
    ]
    rows = [(at, row) for at, row in enumerate(data) if isinstance(row, dict)]
    names = dict.fromkeys(name for _, row in rows for name in row)
    if rows and not names:
        return _whole(len(data), "the rows have no columns")
    brought: dict[str, str] = {}  # a column, and the member that has its values
    for name in names:
        column = find(known, name)
        why = _objection(known, column, name, brought)
        if why is not None:
            errors += [Unfit(at, name, column and column.name, why) for at, r in rows if name in r]
        elif column is not None:
            brought[column.name] = name
            errors += _unfit_values(conn, column, name, rows)
    for column in known:
        errors += _missing(column, brought.get(column.name), rows, set(filled))
    errors.sort(key=lambda unfit: -1 if unfit.row is None else unfit.row)
    return Checked(len(data), len({unfit.row for unfit in errors}), errors[:MAX_ERRORS])


def find(known: Sequence[Column], name: str) -> Column | None:
    """The column of that name: exactly, else the only one that differs in case alone."""
    exact = next((column for column in known if column.name == name), None)
    alike = [column for column in known if column.name.casefold() == name.casefold()]
    return exact or (alike[0] if len(alike) == 1 else None)


def refused(
    conn: psycopg.Connection, type: str, texts: Sequence[str | None]
) -> list[tuple[int, str]]:
    """Those of the texts that the type does not take: their places from 0, and why."""
    if type in ANY_TEXT:
        return []
    found: list[tuple[int, str]] = []
    for start in range(0, len(texts), CHUNK):
        rows = conn.execute(
            """
            SELECT ordinal, (pg_input_error_info(value, %(type)s)).message
            FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS given (value, ordinal)
            WHERE value IS NOT NULL AND NOT pg_input_is_valid(value, %(type)s)
            """,
            {"type": type, "texts": list(texts[start : start + CHUNK])},
        ).fetchall()
        found += [(start + ordinal - 1, why) for ordinal, why in rows]
    return found


def _unfit_values(
    conn: psycopg.Connection, column: Column, name: str, rows: list[tuple[int, dict[str, Any]]]
) -> list[Unfit]:
    errors: list[Unfit] = []
    texts: list[str | None] = []
    for at, row in rows:
        try:
            texts.append(text_of(column.type, column.category, row.get(name)))
        except (ValueError, RecursionError) as error:
            texts.append(None)
            errors.append(Unfit(at, name, column.name, f"is {column.exact}: {error}"))
    errors += [
        Unfit(rows[place][0], name, column.name, f"is {column.exact}: {why}")
        for place, why in refused(conn, column.exact, texts)
    ]
    return errors


def _objection(
    known: Sequence[Column], column: Column | None, name: str, brought: dict[str, str]
) -> str | None:
    if column is None:
        return f"the table has no such column; it has {', '.join(c.name for c in known)}"
    if column.generated:
        return "is filled by the database itself"
    if column.name in brought:
        return f'is there twice: also as "{brought[column.name]}"'
    return None


def _missing(
    column: Column,
    member: str | None,
    rows: list[tuple[int, dict[str, Any]]],
    filled: set[str],
) -> list[Unfit]:
    left_to_others = column.generated or column.name in filled
    if not column.required or left_to_others or (member is None and column.has_default):
        return []
    return [
        Unfit(at, member if member in row else None, column.name, "must have a value")
        for at, row in rows
        if member is None or row.get(member) is None
    ]


def _whole(rows: int, reason: str) -> Checked:
    return Checked(rows, rows, [Unfit(None, None, None, reason)])


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    return "nothing" if value is None else names.get(type(value), "a number")
