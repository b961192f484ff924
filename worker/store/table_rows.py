"""Rows of a table on their way out: a few to look at, all of them as CSV or typed for a file.

Whatever the table's size, no more of it is held than a row (CSV) or a batch of the caller's size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from worker.errors import Invalid
from worker.store.catalogue import READABLE, Standing, standing
from worker.store.tables import no_table

MAX_HEAD_BYTES = 10_000_000
CSV_CHUNK_BYTES = 65_536
INT64_DIGITS = 18  # any whole number of so many digits fits
MOST_DIGITS = 76  # of the widest decimal that files know


@dataclass(frozen=True, slots=True)
class Field:
    """A column as a typed file has it."""

    name: str
    kind: str  # int16, int32, int64, decimal, float, double, bool, date, time, instant, string, …
    precision: int  # of a decimal
    scale: int
    expression: sql.Composed  # gives its values: whole numbers for dates (days) and times (µs)


def readable(conn: psycopg.Connection, dataset: str, name: str) -> Standing:
    """The table, or view, whose rows are wanted; raises NotFound."""
    stands = standing(conn, dataset, name)
    if stands is None or stands.kind not in READABLE:
        raise no_table(dataset, name)
    return stands


def head(conn: psycopg.Connection, dataset: str, name: str, limit: int) -> bytes:
    """The first rows in the order of the primary key, where there is one, as a JSON array.

    Postgres itself writes it, so that numbers keep all their digits.  Raises NotFound, Invalid for
    rows too large to be looked at.
    """
    table = readable(conn, dataset, name)
    order = sql.SQL("")
    if table.key:
        order = sql.SQL(" ORDER BY {}").format(_listed(table.key))
    query = sql.SQL("SELECT row_to_json(t)::text FROM (SELECT * FROM {}{} LIMIT {}) AS t").format(
        sql.Identifier(dataset, name), order, limit
    )
    lines: list[bytes] = []
    size = 0
    for (line,) in conn.cursor().stream(query):
        lines.append(line.encode())
        size += len(lines[-1])
        if size > MAX_HEAD_BYTES:
            raise Invalid(
                f"{len(lines)} rows of {table.full_name} have more than {MAX_HEAD_BYTES} bytes",
                "ask for fewer (limit), or export them",
            )
    return b"[" + b",\n ".join(lines) + b"]"


def csv(conn: psycopg.Connection, table: Standing, limit: int | None) -> Iterator[bytes]:
    """All rows, or `limit` of them, as CSV (RFC 4180 but for line ends, `\\n`) with a header.

    NULL is nothing between the commas, and an empty text `""`.
    """
    columns = [
        # Postgres' own text for a boolean is t or f, which few read back.
        sql.SQL("{0}::text AS {0}" if column.type == "boolean" else "{}").format(_id(name))
        for name, column in table.columns.items()
    ]
    command = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(
        _select(table, sql.SQL(", ").join(columns), limit)
    )
    waiting = bytearray()
    with conn.cursor().copy(command) as copy:
        for data in copy:
            waiting += data
            if len(waiting) >= CSV_CHUNK_BYTES:
                yield bytes(waiting)
                waiting.clear()
    yield bytes(waiting)


def fields(conn: psycopg.Connection, table: Standing) -> list[Field]:
    """What each column is in a typed file.

    `numeric` knows no bounds, and files do: so the values are looked at first.  It becomes int64
    where all are whole and fit, else a decimal of the digits that there are.  NaN and infinities
    (of dates, too) are in no such type: a column that has one becomes text.
    """
    asked = {name: c.type for name, c in table.columns.items() if _survey(name, c.type)}
    found: dict[str, tuple[bool, Decimal | None, int | None]] = {}
    if asked:
        looks = [look for name, type in asked.items() for look in _survey(name, type)]
        row = conn.execute(
            sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(looks), _target(table))
        ).fetchone()
        values = list(row or ())
        for at, name in enumerate(asked):
            odd, most, scale = values[3 * at : 3 * at + 3]
            found[name] = (bool(odd), most, scale)
    return [
        _field(name, column.type, *found.get(name, (False, None, None)))
        for name, column in table.columns.items()
    ]


def batches(
    conn: psycopg.Connection, table: Standing, columns: list[Field], limit: int | None
) -> psycopg.ServerCursor[tuple[Any, ...]]:
    """A cursor that stays in Postgres: each `fetchmany(n)` brings so many rows and no more."""
    cursor = conn.cursor("dpe_export", binary=True)
    expressions = sql.SQL(", ").join(column.expression for column in columns)
    return cursor.execute(_select(table, expressions, limit))


_PLAIN = {
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "real": "float",
    "double precision": "double",
    "boolean": "bool",
    "bytea": "binary",
}
_TIMES = {"timestamp without time zone": "time", "timestamp with time zone": "instant"}


def _survey(name: str, type: str) -> list[sql.Composed]:
    """Three looks at a column's values: whether an odd one is there, the largest, its places."""
    bare = _bare(type)
    none = sql.SQL("NULL::int").format()
    if bare == "numeric":
        return [
            sql.SQL("bool_or({0} IS NOT NULL AND scale({0}) IS NULL)").format(_id(name)),
            sql.SQL("max(abs(trunc({0}))) FILTER (WHERE scale({0}) IS NOT NULL)").format(_id(name)),
            sql.SQL("max(scale(trim_scale({})))").format(_id(name)),
        ]
    if bare == "date":
        return [sql.SQL("bool_or(NOT isfinite({}))").format(_id(name)), none, none]
    if bare in _TIMES:
        # Up to where microseconds since 1970 fit into 64 bits.
        odd = sql.SQL("bool_or(NOT isfinite({0}) OR {0} > '290000-01-01')").format(_id(name))
        return [odd, none, none]
    return []


def _field(name: str, type: str, odd: bool, most: Decimal | None, scale: int | None) -> Field:
    bare, column = _bare(type), _id(name)
    if bare in _PLAIN:
        return Field(name, _PLAIN[bare], 0, 0, sql.SQL("{}").format(column))
    if bare == "numeric" and not odd:
        places, digits = scale or 0, len(str(int(most or 0)))
        if not places and digits <= INT64_DIGITS and bare == type:
            return Field(name, "int64", 0, 0, sql.SQL("{}::bigint").format(column))
        if bare != type:  # it says itself how many digits it has
            declared, _, declared_scale = type[len("numeric(") : -1].partition(",")
            digits = max(digits, int(declared) - int(declared_scale))
            places = max(places, int(declared_scale))
        if digits + places <= MOST_DIGITS:
            expression = sql.SQL("{}").format(column)
            return Field(name, "decimal", digits + places, places, expression)
    if bare == "date" and not odd:
        return Field(name, "date", 0, 0, sql.SQL("({} - DATE '1970-01-01')").format(column))
    if bare in _TIMES and not odd:
        micros = sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint").format(column)
        return Field(name, _TIMES[bare], 0, 0, micros)
    return Field(name, "string", 0, 0, sql.SQL("{}::text").format(column))


def _bare(type: str) -> str:
    """The type without its numbers: `numeric(10,2)`, `timestamp(3) without time zone`."""
    first, bracket, rest = type.partition("(")
    return first + rest.partition(")")[2] if bracket else type


def _select(table: Standing, columns: sql.Composable, limit: int | None) -> sql.Composed:
    query = sql.SQL("SELECT {} FROM {}").format(columns, _target(table))
    return query if limit is None else sql.SQL("{} LIMIT {}").format(query, limit)


def _target(table: Standing) -> sql.Identifier:
    return sql.Identifier(table.dataset, table.name)


def _id(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def _listed(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
