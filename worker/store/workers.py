"""The workers: who is there, since when, and when each last gave a sign and made progress."""

from uuid import UUID

import psycopg


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


def alive(conn: psycopg.Connection, silent_s: float) -> int:
    """How many workers gave a sign within the last `silent_s` seconds."""
    row = conn.execute(
        "SELECT count(*) FROM dpe.workers WHERE beat_at > now() - %s * interval '1 second'",
        [silent_s],
    ).fetchone()
    return row[0] if row else 0


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


SILENT_S = 15.0
STUCK_S = 30.0


def unhealthy(conn: psycopg.Connection, host: str, *, progress_possible: bool = True) -> str | None:
    """Why no worker of this host can be called healthy; None: one is.

    Liveness is progress: a worker that gives signs, and takes nothing while jobs have waited for
    long, is not healthy.  One that has nothing to do is, and one that can't (`progress_possible`).
    """
    row = conn.execute(
        """
        SELECT count(*), count(*) FILTER (
          WHERE NOT %(possible)s OR progress_at > now() - %(stuck)s * interval '1 second'
             OR started_at > now() - %(stuck)s * interval '1 second'
             OR NOT EXISTS (SELECT FROM dpe.jobs WHERE status = 'QUEUED'
                            AND published_at < now() - %(stuck)s * interval '1 second')
             OR EXISTS (SELECT FROM dpe.jobs WHERE status = 'PROCESSING' AND worker_id = w.id))
        FROM dpe.workers w
        WHERE host = %(host)s AND beat_at > now() - %(silent)s * interval '1 second'
        """,
        {"host": host, "silent": SILENT_S, "stuck": STUCK_S, "possible": progress_possible},
    ).fetchone()
    giving_signs, working = row or (0, 0)
    if not giving_signs:
        return f"none on {host} has given a sign in the last {SILENT_S:g} s"
    return None if working else f"jobs wait, and for {STUCK_S:g} s none on {host} has taken one"
