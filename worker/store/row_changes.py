"""What one transaction has changed in the datasets, seen before it ends: rows in, changed, gone.

Two sessions look at the same snapshot, one from within the transaction (REPEATABLE READ), one from
beside it.  A row version that only the one inside sees is new, one that only the other sees is
gone; a new and a gone one of the same primary key are a change.  Only tables that the transaction
wrote to are read, by what Postgres counts for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from psycopg import errors, sql

from worker.store.database import connect

MOST_ROWS = 10_000  # of a table that are read, new and gone each


@dataclass(slots=True)
class TableChanges:
    """The rows of one table, each as a JSON object; `notes` say what is not shown."""

    table: str
    inserted: list[dict[str, Any]] = field(default_factory=list)
    updated: list[dict[str, Any]] = field(default_factory=list)  # {"before": …, "after": …}
    deleted: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Table:
    name: tuple[str, str]
    file: int  # another one after TRUNCATE, or where the table was rewritten
    key: list[str]
    written: bool  # by the transaction that looks

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(*self.name)


@contextmanager
def beside(conn: psycopg.Connection, database_url: str) -> Iterator[psycopg.Connection]:
    """Begin a transaction on `conn`, and a session beside it that sees what it sees now."""
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    row = conn.execute("SELECT pg_export_snapshot()").fetchone()
    snapshot = row[0] if row else ""
    with connect(database_url, "dpe-changes", autocommit=False) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        other.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
        other.execute("SET LOCAL lock_timeout = '1s'")
        yield other
        other.rollback()


def changes(conn: psycopg.Connection, other: psycopg.Connection) -> list[TableChanges]:
    """What `conn`'s transaction has changed so far; `other` is the session beside it."""
    now, before = _tables(conn), _tables(other)
    found = []
    for oid in sorted(now.keys() | before.keys(), key=lambda oid: (now | before)[oid].name):
        table, was = now.get(oid), before.get(oid)
        change = TableChanges(".".join((table or was or now[oid]).name))
        if table is None:
            change.notes.append("the table is dropped")
        elif was is None:
            change.notes.append("the table is new")
            change.inserted = [row for _, row in _new(conn, table)]
        elif table.file != was.file:
            change.notes.append("the table is emptied, or rewritten: rows that it had aren't shown")
            change.inserted = [row for _, row in _new(conn, table)]
        elif table.written:
            _compare(conn, other, table, change)
        if change.inserted or change.updated or change.deleted or change.notes:
            if max(len(change.inserted), len(change.deleted)) >= MOST_ROWS:
                change.notes.append(f"at most {MOST_ROWS:,} rows are looked at")
            found.append(change)
    return found


def _compare(
    conn: psycopg.Connection, other: psycopg.Connection, table: _Table, change: TableChanges
) -> None:
    new = [row for _, row in _new(conn, table)]
    try:
        with other.transaction():  # a savepoint: the snapshot stays
            gone = _gone(conn, other, table)
    except errors.LockNotAvailable:
        change.notes.append("the table is locked by the handler: rows that are gone aren't shown")
        change.inserted = new
        return
    by_key = {_key(table, row): row for row in gone} if table.key else {}
    for row in new:
        before = by_key.pop(_key(table, row), None)
        if before is None:
            change.inserted.append(row)
        else:
            change.updated.append({"before": before, "after": row})
    change.deleted = list(by_key.values()) if table.key else gone


def _key(table: _Table, row: dict[str, Any]) -> bytes:
    return orjson.dumps([row[name] for name in table.key])


def _tables(conn: psycopg.Connection) -> dict[int, _Table]:
    """The datasets' tables by oid, as the session's snapshot and its own changes have them."""
    rows = conn.execute(
        """
        SELECT c.oid, n.nspname, c.relname, c.relfilenode, ARRAY(
                 SELECT a.attname FROM pg_index i
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
                 WHERE i.indrelid = c.oid AND i.indisprimary),
               coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0, false)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_stat_xact_user_tables s ON s.relid = c.oid
        WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%'
          AND n.nspname NOT IN ('information_schema', 'public', 'dpe')
        """
    ).fetchall()
    return {
        oid: _Table((schema, name), file, key, written)
        for oid, schema, name, file, key, written in rows
    }


def _new(conn: psycopg.Connection, table: _Table) -> list[tuple[str, dict[str, Any]]]:
    """Row versions of this transaction: under REPEATABLE READ it sees no younger ones."""
    return _rows(
        conn, table, "age(t.xmin) <= age(pg_current_xact_id_if_assigned()::xid) ORDER BY t.ctid"
    )


def _gone(
    conn: psycopg.Connection, other: psycopg.Connection, table: _Table
) -> list[dict[str, Any]]:
    # A version that somebody locked, or tried to change in vain, has an xmax as well: what is
    # seen from within as before is not gone.
    asked = _rows(other, table, "t.xmax <> '0' ORDER BY t.ctid")
    still = conn.execute(
        sql.SQL("SELECT ctid::text FROM {} WHERE ctid = ANY(%s::tid[])").format(table.identifier),
        [[ctid for ctid, _ in asked]],
    ).fetchall()
    there = {ctid for (ctid,) in still}
    return [row for ctid, row in asked if ctid not in there]


def _rows(conn: psycopg.Connection, table: _Table, which: str) -> list[tuple[str, dict[str, Any]]]:
    query = sql.SQL("SELECT t.ctid::text, row_to_json(t)::text FROM {} AS t WHERE {} LIMIT {}")
    rows = conn.execute(
        query.format(table.identifier, sql.SQL(which), sql.Literal(MOST_ROWS))  # pyright: ignore
    ).fetchall()
    return [(ctid, orjson.loads(row)) for ctid, row in rows]
