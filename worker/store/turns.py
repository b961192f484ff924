"""Whose turn it is: actions of which only some jobs may run at a time.

Jobs of such an action are accepted as `held`, in line.  `let_in` alone lets them go on, as many as
there are places, under a lock of the action; so that no more of them are open and not held than may
run.  A place is free when its job has ended, however it ended: a job whose worker was lost keeps
it, since it begins again at once; one that waits to be tried again gets in line anew.
"""

from collections.abc import Iterable
from dataclasses import replace

import psycopg
from psycopg.rows import class_row

from worker.errors import Conflict
from worker.store import acceptance, jobs
from worker.store.publishing import Message


def let_in(conn: psycopg.Connection, action_id: str) -> list[Message]:
    """Let as many jobs of the action go on as have a place, and return their messages; commits."""
    with conn.transaction(), conn.cursor(row_factory=class_row(Message)) as cursor:
        # A statement of its own: the next one sees what others have let in before.
        conn.execute("SELECT FROM dpe.actions WHERE id = %s FOR UPDATE", [action_id])
        return cursor.execute(
            """
            UPDATE dpe.jobs SET held = false, status = 'QUEUED', published_at = clock_timestamp()
            WHERE execution_id IN (
              SELECT execution_id FROM dpe.jobs
              WHERE action_id = %(id)s AND max_running IS NOT NULL AND held AND plan IS NULL
                AND status = 'SUBMITTED' AND due_at <= now()
              ORDER BY priority, seq
              LIMIT (SELECT CASE WHEN v.max_running IS NOT NULL THEN greatest(0, v.max_running - (
                       SELECT count(*) FROM dpe.jobs
                       WHERE action_id = %(id)s AND max_running IS NOT NULL AND NOT held
                         AND status IN ('SUBMITTED', 'QUEUED', 'PROCESSING'))) END
                     FROM dpe.actions a
                     JOIN dpe.action_versions v ON v.action_id = a.id AND v.version = a.version
                     WHERE a.id = %(id)s))
            RETURNING execution_id, name, published_at, priority
            """,
            {"id": action_id},
        ).fetchall()


def waiting_actions(conn: psycopg.Connection) -> Iterable[str]:
    """Actions of which jobs are held that are due."""
    rows = conn.execute(
        """
        SELECT DISTINCT action_id FROM dpe.jobs
        WHERE max_running IS NOT NULL AND held AND status = 'SUBMITTED' AND due_at <= now()
          AND plan IS NULL
        """
    ).fetchall()
    return [row[0] for row in rows]


def accept_alone(conn: psycopg.Connection, start: jobs.Start) -> jobs.Accepted | None:
    """Accept a start of an action that allows one open job; None: there is no such action.

    Raises Conflict while another job of it is open.
    """
    with conn.transaction():
        conn.execute("SELECT FROM dpe.actions WHERE id = %s FOR UPDATE", [start.action_id])
        row = conn.execute(
            """
            SELECT execution_id, status FROM dpe.jobs
            WHERE action_id = %s AND max_running IS NOT NULL
              AND status IN ('SUBMITTED', 'QUEUED', 'PROCESSING')
            ORDER BY seq LIMIT 1
            """,
            [start.action_id],
        ).fetchone()
        if row is not None:
            raise Conflict(
                f"the action allows no concurrent executions, and {row[0]} is {row[1]}",
                "start it when that one has ended; or set allow_concurrent in its forepaas.json",
            )
        return acceptance.accept(conn, replace(start, in_line=True))
