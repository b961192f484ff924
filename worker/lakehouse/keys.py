"""Upserts: rows whose primary key is there already change the row that has it."""

import psycopg
from psycopg import sql

from worker.errors import DatasetError
from worker.lakehouse.columns import Column, Layout

OLD_AND_NEW = 180000  # since PostgreSQL 18, RETURNING knows the row as it was


def check_key(layout: Layout, columns: list[Column]) -> bool:
    """Whether rows of these columns are upserted: the table has a primary key, and they bring it.

    A key that the database fills in (a default, an identity) may be left out: then rows are
    appended.  Raises DatasetError where they lack a part of the key.
    """
    names = {column.name for column in columns}
    missing = [name for name in layout.key if name not in names]
    if not missing:
        return bool(layout.key)
    if all(layout.columns[name].has_default for name in missing):
        return False
    raise DatasetError(
        f'{layout.name}: the data lacks the primary key\'s column "{missing[0]}", without which'
        f" rows can't be told apart; the key is ({', '.join(layout.key)})"
    )


def on_conflict(conn: psycopg.Connection, layout: Layout, columns: list[Column]) -> sql.Composed:
    """The end of an INSERT that makes it an upsert, returning for each row whether it is new.

    Where rows are nothing but their key, one that is there stays as it is and isn't returned.
    """
    others = [column.name for column in columns if column.name not in layout.key]
    action = sql.SQL("NOTHING")
    if others:
        action = sql.SQL("UPDATE SET {}").format(
            sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in others
            )
        )
    # A key is never NULL, so where the old row has none there was no old row.  Before that was to
    # be had: xmax is 0 in a row that this statement made, and not in one that it changed.
    if conn.info.server_version >= OLD_AND_NEW:
        made = sql.SQL("old.{} IS NULL").format(sql.Identifier(layout.key[0]))
    else:
        made = sql.SQL("xmax = 0")
    return sql.SQL(" ON CONFLICT ({}) DO {} RETURNING {} AS made").format(
        sql.SQL(", ").join(sql.Identifier(name) for name in layout.key), action, made
    )
