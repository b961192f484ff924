"""Postgres' refusal of some rows, told in terms of the data: table, row, column, value."""

import re

import psycopg
from psycopg import errors, sql

from worker.errors import DatasetError
from worker.lakehouse import by_copy
from worker.lakehouse.columns import Column, Layout, bad_value, check_encodable, match, texts
from worker.lakehouse.source import Source
from worker.lakehouse.transaction import savepoint

# `COPY dpe_stage, line 3, column event_id: "abc"`, whatever the language of the server's messages.
_PLACE = re.compile(r"dpe_stage\D*(\d+)(.*)", re.DOTALL)

# Nothing to add to "is numeric, got 'abc'".
_PLAIN = (errors.InvalidTextRepresentation, errors.InvalidDatetimeFormat)


def explained(
    conn: psycopg.Connection, layout: Layout, rows: Source, error: DatasetError | psycopg.Error
) -> DatasetError:
    """The error to show for an insert that failed; nothing of it stands any more.

    Only COPY says where it stopped: so the rows are copied once more, as text, into a table of the
    same form that then vanishes.  This costs an insert, and only where one has failed.
    """
    if isinstance(error, DatasetError) or conn.closed:
        return error if isinstance(error, DatasetError) else DatasetError(str(error))
    if not isinstance(error, (psycopg.DataError, psycopg.IntegrityError)):
        return said(layout.name, error)
    columns = match(layout, rows.names)
    try:
        with savepoint(conn):
            _try_again(conn, layout, columns, rows)
    except DatasetError as found:
        return found
    except psycopg.Error as found:
        try:
            return _placed(layout, columns, rows, error, found)
        except DatasetError as value:
            return value
    # They fit by themselves: it is each other that they hurt, or rows of this table or another.
    return said(layout.name, error)


def _try_again(
    conn: psycopg.Connection, layout: Layout, columns: list[Column], rows: Source
) -> None:
    conn.execute(
        sql.SQL(
            "CREATE TEMP TABLE dpe_stage (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
            " INCLUDING GENERATED INCLUDING IDENTITY)"
        ).format(sql.Identifier(layout.dataset, layout.table))
    )
    stage = sql.Identifier("pg_temp", "dpe_stage")
    by_copy.copy(conn, stage, layout, columns, rows, by_text=True)
    conn.execute("DROP TABLE pg_temp.dpe_stage")


def _placed(
    layout: Layout,
    columns: list[Column],
    rows: Source,
    error: psycopg.Error,
    found: psycopg.Error,
) -> DatasetError:
    place = _PLACE.search(found.diag.context or "")
    if place is None:
        return said(layout.name, error)
    row, rest = int(place[1]), place[2]
    named = [
        (at, column)
        for at, column in enumerate(columns)
        if re.match(rf", \w+ {re.escape(column.name)}(:|$)", rest)
    ]
    if isinstance(found, errors.NotNullViolation):
        name = found.diag.column_name
        if any(column.name == name for column in columns):
            return DatasetError(f'{layout.name}, row {row}: column "{name}" must have a value')
        return DatasetError(
            f'{layout.name}: column "{name}" must have a value, and the data has no such column'
        )
    if not named:
        for at, column in enumerate(columns):
            here = rows.column(at, row - 1, row)
            check_encodable(layout, column, texts(layout, column, here, row), row)
        return said(f"{layout.name}, row {row}", error)
    at, column = named[0]
    value = rows.column(at, row - 1, row)[0]
    why = "" if isinstance(found, _PLAIN) else found.diag.message_primary or ""
    return bad_value(layout, column, row, value, why)


def said(place: str, error: psycopg.Error) -> DatasetError:
    """Postgres' own words, with its detail and its hint."""
    diag = error.diag
    detail = f" ({diag.message_detail})" if diag.message_detail else ""
    return DatasetError(
        f"{place}: {diag.message_primary or str(error).strip()}{detail}", diag.message_hint or ""
    )
