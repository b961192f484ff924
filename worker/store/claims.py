"""The job as its worker owns it: the claim, and the fence between two owners.

A claim is the row's `attempt`: every claim raises it, every end asks for it.  A worker that was
frozen, cut off or given up on still holds the old number, so nothing that it does can commit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import args_row, class_row

from worker.store.database import plain_array
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
    began: float | None = None  # of time.monotonic(), where the claim came before (`claim_ahead`)
    met_outage: bool = False  # Postgres lacked what an insert needed (see `retry`)


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

    found = _claim(record, conn, "execution_id = %(which)s", {
        "which": execution_id, "worker": worker_id, "pid": pid, "grace_s": 0.0,
    })  # fmt: skip
    return found[0] if found else None


def claim_ahead(
    record: psycopg.Connection,
    conn: psycopg.Connection,
    execution_ids: Iterable[UUID],
    worker_id: UUID,
    pid: int,
) -> list[Claim]:
    """Take several jobs that this process is about to run, one after the other, in any order.

    Each must begin, or be given back by `withdraw`, within AHEAD_S.  Only jobs in their first
    attempt: one whose process was lost with others in hand is the only one the next time.  And
    none that is held back or followed by others, whose places are counted, or that may expire.
    """
    return _claim(
        record,
        conn,
        "execution_id = ANY(%(which)s::uuid[]) AND attempt = 0 AND deadline IS NULL"
        " AND max_running IS NULL AND run_id IS NULL",
        {
            "which": plain_array(execution_ids),
            "worker": worker_id,
            "pid": pid,
            "grace_s": AHEAD_S,
        },
    )


AHEAD_S = 0.2


def _claim(
    record: psycopg.Connection, conn: psycopg.Connection, which: LiteralString, values: Any
) -> list[Claim]:
    def claimed(max_running: int | None, *columns: Any) -> Claim:
        return Claim(*columns, conn=conn, max_running=max_running)

    with record.cursor(row_factory=args_row(claimed)) as cursor:
        return cursor.execute(
            f"""
            UPDATE dpe.jobs
            SET status = 'PROCESSING', attempt = attempt + 1, worker_id = %(worker)s,
                pid = %(pid)s, started_at = clock_timestamp(),
                deadline = clock_timestamp() + (timeout_s + %(grace_s)s) * interval '1 second'
            WHERE {which} AND status IN ('QUEUED', 'SUBMITTED') AND due_at <= now()
              AND (deadline IS NULL OR deadline > now()) AND NOT held
              AND EXISTS (SELECT FROM dpe.workers
                          WHERE id = %(worker)s AND beat_at > now() - interval '5 seconds')
            RETURNING max_running, execution_id, attempt, action_id, version, name, event,
                      event_type, failures, run_id, step, item
            """,  # noqa: S608 -- constants
            values,
        ).fetchall()


def withdraw(record: psycopg.Connection, unbegun: Iterable[Claim]) -> list[Message]:
    """Put jobs that were claimed, and of which nothing is to stand, back in line at once.

    Returns what is to be published; one that is not ours any more is left out.  The attempt's
    number stays used: whoever claims next has another one.
    """
    with record.cursor(row_factory=class_row(Message)) as cursor:
        return cursor.execute(
            """
            UPDATE dpe.jobs j
            SET status = 'QUEUED', published_at = clock_timestamp(), worker_id = NULL, pid = NULL,
                started_at = NULL, deadline = NULL
            FROM unnest(%s::uuid[], %s::int[]) AS mine (id, attempt)
            WHERE j.execution_id = mine.id AND j.attempt = mine.attempt
              AND j.status = 'PROCESSING'
            RETURNING j.execution_id, j.name, j.published_at, j.priority
            """,
            [
                plain_array(job.execution_id for job in unbegun),
                plain_array(job.attempt for job in unbegun),
            ],
        ).fetchall()


def add_log(conn: psycopg.Connection, job: Claim, part: int, lines: bytes) -> None:
    """Keep log lines of a job that still runs, so that they can be read live.

    On a connection of its own: the job's own one is in a transaction that may roll back.
    """
    conn.execute(
        "INSERT INTO dpe.job_logs (execution_id, attempt, part, lines) VALUES (%s, %s, %s, %s)",
        [job.execution_id, job.attempt, part, lines.decode()],
    )


def session_name(worker_id: UUID, pid: int, what: str = "job") -> str:
    """The `application_name` of a child's connection: its jobs' ("job"), or its "record"."""
    return f"dpe-{what} {worker_id} {pid}"
