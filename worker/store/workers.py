"""The workers: who is there, since when, and when each last gave a sign and made progress."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row


def register(conn: psycopg.Connection, worker_id: UUID, host: str, pid: int, children: int) -> None:
    """Make a worker known; before this its children can claim nothing."""
    conn.execute(
        "INSERT INTO dpe.workers (id, host, pid, children) VALUES (%s, %s, %s, %s)",
        [worker_id, host, pid, children],
    )


def beat(conn: psycopg.Connection, worker_id: UUID, *, progress: bool) -> bool:
    """Give a sign; False: the row is gone (a restored database), register again."""
    done = conn.execute(
        """
        UPDATE dpe.workers
        SET beat_at = now(), progress_at = CASE WHEN %s THEN now() ELSE progress_at END
        WHERE id = %s
        """,
        [progress, worker_id],
    )
    return done.rowcount == 1


def leave(conn: psycopg.Connection, worker_id: UUID) -> None:
    """Forget a worker that ended in order."""
    conn.execute("DELETE FROM dpe.workers WHERE id = %s", [worker_id])


def forget_dead(conn: psycopg.Connection, silent_s: float) -> int:
    """Delete workers that gave no sign for `silent_s` seconds."""
    return conn.execute(
        "DELETE FROM dpe.workers WHERE beat_at < now() - %s * interval '1 second'", [silent_s]
    ).rowcount


def take_watch(conn: psycopg.Connection, interval_s: float) -> bool:
    """Whether this caller keeps the watch this time: one in all of them, once an interval.

    A lease and not a lock: a holder that is frozen or cut off would keep a lock for ever.
    """
    return (
        conn.execute(
            """
        UPDATE dpe.installation SET watched_at = now()
        WHERE watched_at < now() - %s * interval '1 second'
        """,
            [interval_s],
        ).rowcount
        == 1
    )


STUCK_S = 15.0  # longer than a supervisor takes to replace a child that takes nothing


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker, as its row and its jobs say.

    `state`: "silent" (gave no sign), "stuck" (liveness is progress: it gives signs, and takes
    nothing though jobs have waited for long), "busy" (runs a job), "idle".
    """

    host: str
    pid: int
    children: int
    running: int  # jobs
    started_at: datetime
    beat_at: datetime
    progress_at: datetime  # when one of its children last claimed or ended a job
    state: str


def states(conn: psycopg.Connection, silent_s: float, host: str | None = None) -> list[WorkerState]:
    """All known workers, or those of one host; who gave no sign for `silent_s` is silent."""
    with conn.cursor(row_factory=class_row(WorkerState)) as cursor:
        return cursor.execute(
            """
            SELECT host, pid, children, running, started_at, beat_at, progress_at, CASE
                WHEN beat_at < now() - %(silent)s * interval '1 second' THEN 'silent'
                WHEN running > 0 THEN 'busy'
                WHEN greatest(progress_at, started_at) < now() - %(stuck)s * interval '1 second'
                     AND EXISTS (SELECT FROM dpe.jobs WHERE status = 'QUEUED'
                                 AND published_at < now() - %(stuck)s * interval '1 second')
                THEN 'stuck' ELSE 'idle' END AS state
            FROM dpe.workers w, LATERAL (
              SELECT count(*)::int AS running FROM dpe.jobs
              WHERE status = 'PROCESSING' AND worker_id = w.id) r
            WHERE host = coalesce(%(host)s, host) ORDER BY started_at, pid
            """,
            {"silent": silent_s, "stuck": STUCK_S, "host": host},
        ).fetchall()


def unhealthy(
    conn: psycopg.Connection, host: str, silent_s: float, *, progress_possible: bool = True
) -> str | None:
    """Why no worker of this host can be called healthy; None: one is.

    One that can't take anything (`progress_possible`: there is a broker) is (F18).
    """
    found = {worker.state for worker in states(conn, silent_s, host)} - {"silent"}
    if not found:
        return f"none on {host} has given a sign in the last {silent_s:g} s"
    if found == {"stuck"} and progress_possible:
        return f"jobs wait, and for {STUCK_S:g} s none on {host} has taken one"
    return None
