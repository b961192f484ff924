"""Secrets of handlers: their names, and their values as they are kept, encrypted."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from worker.errors import Invalid

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


def check_name(name: str) -> None:
    """Raise Invalid for what is no name."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"a secret's name is 1 to 100 letters, digits, dots, - and _, and begins with a letter"
            f" or a digit, got {name!r}"
        )


def put(conn: psycopg.Connection, name: str, sealed: str) -> Secret:
    """Set a secret, new or not, to an encrypted value."""
    with conn.cursor(row_factory=class_row(Secret)) as cursor:
        found = cursor.execute(
            """
            INSERT INTO dpe.secrets (name, value) VALUES (%s, %s)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = now()
            RETURNING name, created_at, updated_at
            """,
            [name, sealed],
        ).fetchone()
    assert found is not None  # noqa: S101 -- RETURNING of one row
    return found


def list_secrets(conn: psycopg.Connection) -> list[Secret]:
    """All of them, by name."""
    with conn.cursor(row_factory=class_row(Secret)) as cursor:
        return cursor.execute(
            "SELECT name, created_at, updated_at FROM dpe.secrets ORDER BY name"
        ).fetchall()


def delete(conn: psycopg.Connection, name: str) -> bool:
    """Remove one: jobs that need it fail from now on.  False: there was none."""
    return conn.execute("DELETE FROM dpe.secrets WHERE name = %s", [name]).rowcount == 1


def values(conn: psycopg.Connection, names: Collection[str]) -> dict[str, str]:
    """The encrypted values of those that there are."""
    rows = conn.execute(
        "SELECT name, value FROM dpe.secrets WHERE name = ANY(%s)", [list(names)]
    ).fetchall()
    return dict(rows)
