"""The audit trail: who changed and stopped what, before it is done; and who started what."""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from worker.store.access import Session


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, or one start; `status` None: begun, and its process died."""

    at: datetime
    who: str | None
    apikey: str | None
    address: str | None
    permission: str
    method: str | None
    path: str
    status: int | None
    made: str | None


def begin(
    conn: psycopg.Connection,
    session: Session,
    address: str,
    permission: str,
    method: str,
    path: str,
) -> int:
    """Write down what is about to be done; return the entry's number."""
    row = conn.execute(
        """
        INSERT INTO dpe.audit (key_id, who, address, permission, method, path)
        VALUES (%s, %s, %s, %s, %s, %s) RETURNING id
        """,
        [session.key_id, session.name, address, permission, method, path],
    ).fetchone()
    assert row is not None  # noqa: S101 -- RETURNING of one inserted row
    return row[0]


def end(conn: psycopg.Connection, id: int, status: int, made: str | None) -> None:
    """Add how it was answered."""
    conn.execute("UPDATE dpe.audit SET status = %s, made = %s WHERE id = %s", [status, made, id])


def changes(conn: psycopg.Connection, limit: int) -> list[Entry]:
    """The newest changes, newest first."""
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(
            """
            SELECT a.at, a.who, k.apikey, a.address, a.permission, a.method, a.path, a.status,
                   a.made
            FROM dpe.audit a LEFT JOIN dpe.keys k ON k.id = a.key_id ORDER BY a.id DESC LIMIT %s
            """,
            [limit],
        ).fetchall()


def starts(conn: psycopg.Connection, limit: int) -> list[Entry]:
    """The newest starts that are kept, newest first; by whom, where a key started it."""
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(
            """
            SELECT j.submitted_at AS at, k.name AS who, k.apikey, NULL AS address,
                   'start: ' || j.event_type AS permission, NULL AS method,
                   j.action_id AS path, NULL::int AS status, j.execution_id::text AS made
            FROM dpe.jobs j LEFT JOIN dpe.keys k ON k.id = j.key_id ORDER BY j.seq DESC LIMIT %s
            """,
            [limit],
        ).fetchall()
