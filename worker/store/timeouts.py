"""Jobs that run for too long."""

import psycopg

from worker.store import workflow_runs


def end_late(conn: psycopg.Connection) -> int:
    """End jobs that run past their deadline as TIMEOUT; their supervisors end the processes."""
    with conn.transaction():
        late = conn.execute(
            """
            UPDATE dpe.jobs
            SET status = 'TIMEOUT', ended_at = now(), error = json_build_object(
                  'type', 'Timeout', 'traceback', NULL, 'message',
                  format('it ran longer than its timeout of %s s', timeout_s))
            WHERE status = 'PROCESSING' AND deadline < now()
            RETURNING run_id
            """
        ).fetchall()
        workflow_runs.advance(conn, (run_id for (run_id,) in late))
    return len(late)
