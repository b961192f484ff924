"""Rows that their table did not take: kept aside by the job that brought them, listed, replayed.

They stand in the database of their dataset, so that they are committed with the rows that fit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import kwargs_row

from worker.errors import Invalid, NotFound
from worker.store.catalogue import standing
from worker.store.json_values import text_of
from worker.store.row_check import Column, columns, find

REPLAYED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Aside:
    """A row on its way into quarantine; `number` counts from 1, `data` is JSON."""

    number: int
    column: str | None
    reason: str
    data: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A row in quarantine."""

    id: int
    execution_id: UUID
    row_number: int
    column_name: str | None
    reason: str
    data: Any
    quarantined_at: datetime


def put(
    conn: psycopg.Connection, dataset: str, table: str, execution_id: UUID, rows: Sequence[Aside]
) -> None:
    """Keep rows, in the transaction of the job; `conn` is the one that holds it."""
    conn.execute(
        """
        INSERT INTO dpe.quarantine
          (dataset, table_name, execution_id, row_number, column_name, reason, data)
        SELECT %s, %s, %s, * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::json[])
        """,
        [
            dataset,
            table,
            execution_id,
            [row.number for row in rows],
            [row.column for row in rows],
            [row.reason.replace("\0", "\\0") for row in rows],
            [row.data for row in rows],
        ],
    )


def list_rows(
    conn: psycopg.Connection, dataset: str, table: str, limit: int, after: int = 0
) -> list[Kept]:
    """Rows of a table in quarantine, oldest first, those after an id."""
    return _select(conn, "id > %(after)s", "", dataset, table, {"after": after, "limit": limit})


def drop(
    conn: psycopg.Connection, dataset: str, table: str, ids: Sequence[int] | None = None
) -> int:
    """Delete rows from quarantine, all of the table's where no ids are given; how many."""
    return conn.execute(
        "DELETE FROM dpe.quarantine WHERE dataset = %(dataset)s AND table_name = %(table)s"
        " AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))",
        {"dataset": dataset, "table": table, "ids": None if ids is None else list(ids)},
    ).rowcount


def replay(
    conn: psycopg.Connection,
    dataset: str,
    table: str,
    ids: Sequence[int] | None = None,
    mended: Mapping[int, Any] | None = None,
) -> dict[str, Any]:
    """Bring rows from quarantine into their table: {replayed, left, errors: [{id, reason}]}.

    At most REPLAYED_AT_ONCE of those with these ids (None: any), oldest first; `mended` has rows
    that take the place of what is kept.  A row that goes in and its leaving of the quarantine are
    one transaction, so it goes in once whoever repeats the call.  Raises NotFound, Invalid.
    """
    stands = standing(conn, dataset, table)
    if stands is None:
        raise NotFound(f"table {dataset}.{table} not found", "build it: dpe table build FILE.json")
    known, key = columns(conn, dataset, table), stands.key
    wanted = None if ids is None else list(ids)
    errors: list[dict[str, Any]] = []
    with conn.transaction():
        rows = _select(
            conn,
            "(%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))",
            "FOR UPDATE SKIP LOCKED",
            dataset,
            table,
            {"ids": wanted, "limit": REPLAYED_AT_ONCE},
        )
        strange = set(mended or ()) - {row.id for row in rows}
        if strange:
            raise Invalid(f"not in the quarantine of {dataset}.{table}: {sorted(strange)}")
        done: list[int] = []
        for row in rows:
            try:
                with conn.transaction():
                    data = (mended or {}).get(row.id, row.data)
                    _insert(conn, (dataset, table), known, key, data)
            except (ValueError, psycopg.DataError, psycopg.IntegrityError) as error:
                why = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
                errors.append({"id": row.id, "reason": why})
            else:
                done.append(row.id)
        drop(conn, dataset, table, done)
    left = conn.execute(
        "SELECT count(*) FROM dpe.quarantine WHERE dataset = %s AND table_name = %s",
        [dataset, table],
    ).fetchone()
    return {"replayed": len(done), "left": left[0] if left else 0, "errors": errors}


def _insert(
    conn: psycopg.Connection,
    target: tuple[str, str],
    known: Sequence[Column],
    key: Sequence[str],
    data: Any,
) -> None:
    """Insert or upsert one row, as `bulk_insert` would; raises ValueError or psycopg.Error."""
    if not isinstance(data, dict) or not data:
        raise ValueError("a row must be an object with a value")
    values: dict[str, str | None] = {}
    for name, value in data.items():
        column = find(known, name)
        if column is None and value is not None:
            raise ValueError(f'the table has no column "{name}"')
        if column is not None:
            values[column.name] = text_of(column.type, column.category, value)
    names = sql.SQL(", ").join(sql.Identifier(name) for name in values)
    upsert = sql.SQL("")
    if key and set(key) <= set(values):
        others = [sql.Identifier(name) for name in values if name not in key]
        upsert = sql.SQL(" ON CONFLICT ({}) DO {}").format(
            sql.SQL(", ").join(sql.Identifier(name) for name in key),
            sql.SQL("UPDATE SET ({}) = ROW ({})").format(
                sql.SQL(", ").join(others),
                sql.SQL(", ").join(sql.SQL("excluded.{}").format(name) for name in others),
            )
            if others
            else sql.SQL("NOTHING"),
        )
    conn.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({}){}").format(
            sql.Identifier(*target), names, sql.SQL(", ").join([sql.Placeholder()] * len(values)),
            upsert,
        ),
        list(values.values()),
    )  # fmt: skip


def _select(
    conn: psycopg.Connection,
    where: LiteralString,
    lock: LiteralString,
    dataset: str,
    table: str,
    values: dict[str, Any],
) -> list[Kept]:
    query = f"""
        SELECT id, execution_id, row_number, column_name, reason, data::text AS data, quarantined_at
        FROM dpe.quarantine
        WHERE dataset = %(dataset)s AND table_name = %(table)s AND {where}
        ORDER BY id LIMIT %(limit)s {lock}
        """  # noqa: S608 -- constants
    with conn.cursor(row_factory=kwargs_row(_read)) as cursor:
        return cursor.execute(query, values | {"dataset": dataset, "table": table}).fetchall()


def _read(data: str, **columns: Any) -> Kept:
    return Kept(data=json.loads(data), **columns)  # not orjson: whole numbers of any length
