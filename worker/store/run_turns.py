"""Whose turn it is: runs of workflows of which only some may go on at a time; `turns` for actions.

A run that has no place is held, and begins when the watch lets it in.  Workflows within others are
not counted: they are steps of a run that has its place.
"""

from uuid import UUID

import psycopg

from worker.errors import Conflict
from worker.store import workflow_runs


def check_alone(conn: psycopg.Connection, workflow_id: str) -> None:
    """Raise Conflict while a run of the workflow is open; in the caller's transaction."""
    _lock(conn, workflow_id)
    row = conn.execute(
        """
        SELECT execution_id, status FROM dpe.jobs
        WHERE action_id = %s AND plan IS NOT NULL AND run_id IS NULL AND max_running IS NOT NULL
          AND ended_at IS NULL AND status IN ('SUBMITTED', 'QUEUED', 'PROCESSING')
        ORDER BY seq LIMIT 1
        """,
        [workflow_id],
    ).fetchone()
    if row is not None:
        raise Conflict(
            f"the workflow allows no concurrent runs, and {row[0]} is {row[1]}",
            "start it when that one has ended; or set allow_concurrent in its definition",
        )


def has_place(conn: psycopg.Connection, workflow_id: str, max_running: int) -> bool:
    """Whether one more run may begin; nobody else takes the place before the caller commits."""
    _lock(conn, workflow_id)
    return _places(conn, workflow_id, max_running) > 0


def let_in(conn: psycopg.Connection) -> int:
    """Let held runs begin, as many as have a place, and return how many; commits."""
    count = 0
    waiting = conn.execute(
        """
        SELECT DISTINCT action_id FROM dpe.jobs
        WHERE plan IS NOT NULL AND held AND ended_at IS NULL AND due_at <= now()
        """
    ).fetchall()
    for (workflow_id,) in waiting:
        with conn.transaction():
            _lock(conn, workflow_id)
            runs = _begin(conn, workflow_id)
            workflow_runs.advance(conn, runs)
        count += len(runs)
    return count


def _lock(conn: psycopg.Connection, workflow_id: str) -> None:
    conn.execute("SELECT FROM dpe.workflows WHERE id = %s FOR UPDATE", [workflow_id])


def _places(conn: psycopg.Connection, workflow_id: str, max_running: int) -> int:
    row = conn.execute(
        """
        SELECT count(*) FROM dpe.jobs
        WHERE action_id = %s AND plan IS NOT NULL AND run_id IS NULL AND max_running IS NOT NULL
          AND NOT held AND ended_at IS NULL AND status IN ('SUBMITTED', 'QUEUED', 'PROCESSING')
        """,
        [workflow_id],
    ).fetchone()
    return max_running - (row[0] if row else 0)


def _begin(conn: psycopg.Connection, workflow_id: str) -> list[UUID]:
    """Those that stand first in line, each where its own limit leaves a place."""
    begun: list[UUID] = []
    while True:
        first = conn.execute(
            """
            SELECT execution_id, max_running FROM dpe.jobs
            WHERE action_id = %s AND plan IS NOT NULL AND held AND ended_at IS NULL
              AND due_at <= now() AND status = 'SUBMITTED'
            ORDER BY priority, seq LIMIT 1 FOR UPDATE
            """,
            [workflow_id],
        ).fetchone()
        if first is None or _places(conn, workflow_id, first[1]) <= 0:
            return begun
        conn.execute(
            """
            UPDATE dpe.jobs
            SET held = false, status = 'PROCESSING', attempt = 1, published_at = now(),
                started_at = now(), deadline = now() + timeout_s * interval '1 second'
            WHERE execution_id = %s
            """,
            [first[0]],
        )
        begun.append(first[0])
