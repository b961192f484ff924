"""What is deleted after its time: ended jobs with their logs, and sessions."""

import psycopg


def delete_old_jobs(conn: psycopg.Connection, keep_s: float, limit: int) -> int:
    """Delete at most `limit` jobs that ended more than `keep_s` seconds ago, with their logs."""
    return conn.execute(
        """
        WITH old AS (
          DELETE FROM dpe.jobs WHERE execution_id IN (
            SELECT execution_id FROM dpe.jobs j
            WHERE ended_at < now() - %s * interval '1 second'
              AND (run_id IS NULL OR NOT EXISTS (  -- a run that goes on knows by them what is done
                SELECT FROM dpe.jobs r WHERE r.execution_id = j.run_id AND r.ended_at IS NULL))
            ORDER BY ended_at LIMIT %s)
          RETURNING execution_id
        ), logs AS (
          DELETE FROM dpe.job_logs WHERE execution_id IN (SELECT execution_id FROM old)
        )
        SELECT count(*) FROM old
        """,
        [keep_s, limit],
    ).fetchone()[0]  # pyright: ignore[reportOptionalSubscript]


def delete_ended_sessions(conn: psycopg.Connection) -> int:
    """Delete sessions past their expiry."""
    return conn.execute("DELETE FROM dpe.sessions WHERE expires_at < now()").rowcount
