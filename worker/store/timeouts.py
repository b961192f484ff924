"""Jobs that run for too long."""

import psycopg

from worker.store import workflow_runs


def end_late(conn: psycopg.Connection) -> int:
    """End jobs that run, or wait to begin, past their deadline as TIMEOUT; return how many.

    The processes of those that run are ended by their supervisors.
    """
    with conn.transaction():
        late = conn.execute(
            """
            UPDATE dpe.jobs
            SET status = 'TIMEOUT', ended_at = now(), error = json_build_object(
                  'type', CASE status WHEN 'PROCESSING' THEN 'Timeout' ELSE 'Expired' END,
                  'traceback', NULL, 'message', CASE status
                    WHEN 'PROCESSING'
                    THEN format('it ran longer than its timeout of %s s', timeout_s)
                    ELSE format('it expired: no worker had begun it by %s',
                                to_char(deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
                    END)
            WHERE (status = 'PROCESSING' AND deadline < now())
               OR (status IN ('SUBMITTED', 'QUEUED') AND deadline < now() AND deadline IS NOT NULL)
            RETURNING run_id
            """
        ).fetchall()
        workflow_runs.advance(conn, (run_id for (run_id,) in late))
    return len(late)
