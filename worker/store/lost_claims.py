"""Jobs whose worker or process was lost: whose they are, and how they get back in line."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg

from worker.store import workflow_runs


def owned(conn: psycopg.Connection, worker_id: UUID) -> list[tuple[UUID, int, int]]:
    """The claims of one worker as Postgres knows them: (execution id, attempt, pid)."""
    return conn.execute(
        "SELECT execution_id, attempt, pid FROM dpe.jobs"
        " WHERE worker_id = %s AND status = 'PROCESSING'",
        [worker_id],
    ).fetchall()


def give_back(
    conn: psycopg.Connection,
    lost: Iterable[tuple[UUID, int]],
    why: str,
    max_losses: int | None,
) -> int:
    """Put jobs whose process ended back in line, given as (execution id, attempt); commits.

    A job survives fewer than `max_losses` lost processes: a handler that kills its process must
    not go round for ever, so then it is FAILED and says `why`.  None: it was no loss but a worker
    that was shut down, and does not count.  Returns how many were taken.
    """
    pairs = list(lost)
    return _take_back(
        conn,
        "SELECT unnest(%(ids)s::uuid[]), unnest(%(attempts)s::int[])",
        {
            "ids": [execution_id for execution_id, _ in pairs],
            "attempts": [attempt for _, attempt in pairs],
            "why": why,
            "max": max_losses,
        },
    )


def give_back_silent(conn: psycopg.Connection, heartbeat_timeout_s: float, max_losses: int) -> int:
    """Cut off all workers that have stopped beating, and take their running jobs; commits.

    Their sessions are ended in Postgres, and that comes first: a frozen process may hold locks on
    the very rows that the next attempt will write, or on those that are to be taken back here.
    """
    conn.execute(
        """
        SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a, dpe.workers w
        WHERE a.datname = current_database() AND a.application_name LIKE 'dpe-job ' || w.id || ' %%'
          AND w.beat_at < now() - %s * interval '1 second'
        """,
        [heartbeat_timeout_s],
    )
    return _take_back(
        conn,
        """
        SELECT execution_id, attempt FROM dpe.jobs r
        WHERE status = 'PROCESSING' AND plan IS NULL AND NOT EXISTS (
          SELECT FROM dpe.workers w
          WHERE w.id = r.worker_id AND w.beat_at > now() - %(silent)s * interval '1 second')
        """,
        {
            "silent": heartbeat_timeout_s,
            "why": f"its worker gave no sign for {heartbeat_timeout_s:g} s",
            "max": max_losses,
        },
    )


def _take_back(conn: psycopg.Connection, which: str, values: dict[str, Any]) -> int:
    query = f"""
        WITH lost (execution_id, attempt) AS ({which}),
        taken AS (
          UPDATE dpe.jobs j
          SET losses = losses + CASE WHEN %(max)s::int IS NULL THEN 0 ELSE 1 END,
              worker_id = NULL, pid = NULL, published_at = NULL, deadline = NULL,
              due_at = now() + CASE WHEN losses = 0 OR %(max)s::int IS NULL THEN 0
                ELSE {LOSS_PAUSE_S} * 2 ^ (losses - 1) END * interval '1 second',
              status = CASE WHEN losses + 1 >= %(max)s THEN 'FAILED' ELSE 'SUBMITTED' END,
              ended_at = CASE WHEN losses + 1 >= %(max)s THEN now() END,
              error = CASE WHEN losses + 1 >= %(max)s THEN json_build_object(
                'type', 'WorkerLost', 'traceback', NULL, 'message',
                format('the process that ran it was lost %%s times; the last time: %%s',
                       losses + 1, %(why)s::text)) END
          FROM lost
          WHERE j.execution_id = lost.execution_id AND j.attempt = lost.attempt
            AND j.status = 'PROCESSING'
          RETURNING j.execution_id, j.attempt, j.run_id, j.ended_at
        ), logged AS (
          INSERT INTO dpe.job_logs (execution_id, attempt, part, lines)
          SELECT execution_id, attempt, {LAST_PART}, jsonb_build_array(jsonb_build_object(
                   'at', to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'level', 'warning', 'logger', 'dpe',
                   'message', format('attempt %%s was lost: %%s', attempt, %(why)s::text)))::text
          FROM taken
          ON CONFLICT DO NOTHING
        )
        SELECT run_id, ended_at IS NOT NULL FROM taken
        """  # noqa: S608 -- constants
    with conn.transaction():
        taken = conn.execute(query.encode(), values).fetchall()
        workflow_runs.advance(conn, (run_id for run_id, ended in taken if ended))
    return len(taken)


# The first loss is the process' fault, the next ones may be the job's: it must not end one process
# after the other as fast as they come.
LOSS_PAUSE_S = 0.5

# Parts are numbered from 1 by the process that runs the job; this one stands after all of them.
LAST_PART = 1_000_000_000
