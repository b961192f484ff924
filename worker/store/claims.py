"""The job as its worker owns it: claim, end, give back; and the fence between two owners.

A claim is the row's `attempt`: every claim raises it, every end asks for it.  A worker that was
frozen, cut off or given up on still holds the old number, so nothing that it does can commit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import errors, generators, pq
from psycopg.rows import args_row

from worker.errors import ClaimLost
from worker.store import workflow_runs
from worker.store.publishing import Message


@dataclass(slots=True)
class Claim:
    """One attempt of one job, and what gathers while it runs."""

    execution_id: UUID
    attempt: int
    action_id: str
    version: int
    name: str
    event: str | None
    event_type: str
    failures: int
    run_id: UUID | None  # of a step of a workflow: its run
    step: str | None
    item: Any
    # The connection that holds the job's transaction: every row of the handler goes through it.
    conn: psycopg.Connection = field(repr=False)
    stats: list[dict[str, Any]] = field(default_factory=list)
    insert_errors: list[str] = field(default_factory=list)
    # Of datasets on servers of their own: the connections with the job's transactions there.
    elsewhere: dict[str, psycopg.Connection] = field(default_factory=dict, repr=False)
    committed_elsewhere: bool = False
    quarantines: bool = False  # rows that don't fit go into quarantine, and the others in
    max_running: int | None = None  # of its action (see `turns`)
    met_outage: bool = False  # Postgres lacked what an insert needed (see `retry`)


NO_OWNER = "DP001"  # what `dpe.end_attempt` says to whoever lost the claim

# The job that this process runs now.  A plain attribute: a child runs one job at a time, and
# threads of a handler must see it (a context variable would be empty in a new thread).
running: Claim | None = None


def claim(
    record: psycopg.Connection,
    conn: psycopg.Connection,
    execution_id: UUID,
    worker_id: UUID,
    pid: int,
) -> Claim | None:
    """Take the job, or None: another has it, it has ended, or it is not due.

    `record` is an autocommit connection, so the claim stands when this returns; `conn` is the one
    that the job's transaction will run on.  A worker that has stopped beating must not claim: its
    job would be taken back at once.
    """

    def claimed(max_running: int | None, *columns: Any) -> Claim:
        return Claim(*columns, conn=conn, max_running=max_running)

    with record.cursor(row_factory=args_row(claimed)) as cursor:
        return cursor.execute(
            """
            UPDATE dpe.jobs
            SET status = 'PROCESSING', attempt = attempt + 1, worker_id = %(worker)s,
                pid = %(pid)s, started_at = clock_timestamp(),
                deadline = clock_timestamp() + timeout_s * interval '1 second'
            WHERE execution_id = %(id)s AND status IN ('QUEUED', 'SUBMITTED') AND due_at <= now()
              AND (deadline IS NULL OR deadline > now()) AND NOT held
              AND EXISTS (SELECT FROM dpe.workers
                          WHERE id = %(worker)s AND beat_at > now() - interval '5 seconds')
            RETURNING max_running, execution_id, attempt, action_id, version, name, event,
                      event_type, failures, run_id, step, item
            """,
            {"id": execution_id, "worker": worker_id, "pid": pid},
        ).fetchone()


def succeed(job: Claim, result: bytes | None, log: tuple[int, bytes]) -> list[Message]:
    """Write status, result, stats and log into the job's transaction, and commit it.

    `result` is encoded JSON or None; `log` is (part, lines as JSON).  Returns what the end of a
    step has started, to be published.  Raises ClaimLost, and then the transaction is rolled back.
    """
    return _end(job, "SUCCESS", None, result, log)


def fail(job: Claim, error: dict[str, Any], log: tuple[int, bytes]) -> list[Message]:
    """Roll back what the handler wrote, and commit FAILED with its error; else as `succeed`."""
    job.conn.rollback()
    return _end(job, "FAILED", error, None, log)


def fail_for_now(job: Claim, error: dict[str, Any], pause_s: float, log: tuple[int, bytes]) -> None:
    """Roll back what the handler wrote, and put the job back in line, due in `pause_s` seconds.

    The wait stands in Postgres, so it survives any restart.  Raises ClaimLost.
    """
    job.conn.rollback()
    _end(job, "SUBMITTED", error, None, log, pause_s)


def _end(
    job: Claim,
    status: str,
    error: dict[str, Any] | None,
    result: bytes | None,
    log: tuple[int, bytes],
    pause_s: float = 0.0,
) -> list[Message]:
    part, lines = log
    values = (
        str(job.execution_id).encode(),
        b"%d" % job.attempt,
        status.encode(),
        b"%f" % pause_s,
        None if error is None else orjson.dumps(error, default=str),
        result,
        orjson.dumps(job.stats, default=str) if job.stats else None,
        b"%d" % part,
        lines,
    )
    try:
        if job.run_id is None or status == "SUBMITTED":
            _call(job.conn, values, b"COMMIT")
            return []
        # What follows in the workflow is committed with this end, or not at all.
        _call(job.conn, values)
        messages = workflow_runs.advance(job.conn, [job.run_id], queued=True)
        job.conn.commit()
    except psycopg.Error as failed:
        if failed.sqlstate != NO_OWNER:
            raise
        job.conn.rollback()
        raise ClaimLost(failed.diag.message_primary or NO_OWNER) from None
    return messages


def _call(conn: psycopg.Connection, values: Sequence[bytes | None], then: bytes = b"") -> None:
    """Call `dpe.end_attempt` in the connection's transaction, and commit it in the same query.

    A worker that lost its claim stops at the call, which is an error then: so Postgres skips the
    COMMIT sent with it.  By libpq itself: psycopg's pipeline takes three times the processor time.
    """
    escape = pq.Escaping(conn.pgconn).escape_literal
    written = [b"NULL" if value is None else bytes(escape(value)) for value in values]
    begin = b"BEGIN;" if conn.pgconn.transaction_status == pq.TransactionStatus.IDLE else b""
    with conn.lock:
        conn.pgconn.send_query(
            b"%bSELECT dpe.end_attempt(%b);%b" % (begin, b",".join(written), then)
        )
        results = conn.wait(generators.execute(conn.pgconn))
    for result in results:
        if result.status not in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
            raise errors.error_from_result(result, encoding="utf-8")


def add_log(conn: psycopg.Connection, job: Claim, part: int, lines: bytes) -> None:
    """Keep log lines of a job that still runs, so that they can be read live.

    On a connection of its own: the job's own one is in a transaction that may roll back.
    """
    conn.execute(
        "INSERT INTO dpe.job_logs (execution_id, attempt, part, lines) VALUES (%s, %s, %s, %s)",
        [job.execution_id, job.attempt, part, lines.decode()],
    )


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


def session_name(worker_id: UUID, pid: int, what: str = "job") -> str:
    """The `application_name` of a child's connection: its jobs' ("job"), or its "record"."""
    return f"dpe-{what} {worker_id} {pid}"


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
