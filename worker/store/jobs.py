"""The job as a client knows it: accept, look at, list, stop, retry.

Who owns a running job, and how it ends, is `claims`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import class_row

from worker.store import workflow_runs

FINAL = ("SUCCESS", "FAILED", "TIMEOUT", "STOPPED")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job, or a run of a workflow, as it stands right after its commit."""

    execution_id: UUID
    action_id: str
    name: str
    version: int
    status: str
    submitted_at: datetime
    published_at: datetime | None  # None: it is not due yet, or held
    priority: int
    held: bool = False  # see `turns`


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `dpe.jobs`, without the event."""

    execution_id: UUID
    seq: int
    action_id: str
    version: int
    name: str
    status: str
    attempt: int
    losses: int
    event_type: str
    priority: int
    retry_of: UUID | None
    submitted_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    error: dict[str, Any] | None
    result: Any
    stats: list[dict[str, Any]] | None
    run_id: UUID | None  # of a step of a workflow: its run
    step: str | None
    progress: int | None  # of a run of a workflow: the percentage of its steps that are decided

    @property
    def ended(self) -> bool:
        return self.status in FINAL


# As everybody is shown it; in the row a job is PROCESSING from its claim on (see `building`).
STATUS: LiteralString = """
    CASE WHEN building = attempt AND status = 'PROCESSING' THEN 'BUILDING' ELSE status END"""
COLUMNS: LiteralString = f"""
    execution_id, seq, action_id, version, name, {STATUS} AS status,
    attempt, losses, event_type, priority,
    retry_of, submitted_at, published_at, started_at, ended_at, error, result, stats, run_id, step,
    CASE WHEN plan IS NOT NULL THEN 100 * (SELECT count(*) FROM json_object_keys(standings))
      / json_array_length(plan->'steps') END AS progress
    """  # noqa: S608 -- constants


@dataclass(frozen=True, slots=True)
class Start:
    """One start call, checked as far as it can be without Postgres."""

    action_id: str
    event: str | None
    event_type: str = "api"
    key_id: int | None = None
    session_id: str | None = None  # must be open still; None: nobody asks for one
    priority: int | None = None  # a place in PRIORITIES; None: the action's
    delay_s: float | None = None  # after its acceptance; `not_before` counts before it
    not_before: datetime | None = None
    expires_s: float | None = None  # not begun so long after it is due, it ends; None: the action's
    in_line: bool = False  # also where its action allows one open job, and there may be one
    waiter: str | None = None  # the channel of Postgres on which its end is to be told
    execution_id: UUID = field(default_factory=uuid4)


def unpublished(conn: psycopg.Connection, execution_ids: list[UUID]) -> None:
    """Mark jobs whose publishing failed, so that the watch publishes them next."""
    conn.execute(
        """
        UPDATE dpe.jobs SET status = 'SUBMITTED', published_at = NULL
        WHERE execution_id = ANY(%s) AND status = 'QUEUED'
        """,
        [execution_ids],
    )


def retry(conn: psycopg.Connection, execution_id: UUID, key_id: int | None) -> Accepted | None:
    """Accept the event of an ended job again, with the newest version, linked to the first."""
    with conn.cursor(row_factory=class_row(Accepted)) as cursor:
        return cursor.execute(
            """
            INSERT INTO dpe.jobs (execution_id, action_id, version, name, status, event,
                                  event_type, key_id, timeout_s, priority, published_at,
                                  retry_of, max_running, held)
            SELECT %(id)s, v.action_id, v.version, v.name,
                   CASE WHEN v.max_running IS NULL THEN 'QUEUED' ELSE 'SUBMITTED' END, j.event,
                   'retry', %(key)s, v.timeout_s, j.priority,
                   CASE WHEN v.max_running IS NULL THEN now() END,
                   coalesce(j.retry_of, j.execution_id), v.max_running, v.max_running IS NOT NULL
            FROM dpe.jobs j
            JOIN dpe.actions a ON a.id = j.action_id AND a.deleted_at IS NULL
            JOIN dpe.action_versions v ON v.action_id = a.id AND v.version = a.version
            WHERE j.execution_id = %(of)s AND j.ended_at IS NOT NULL
            RETURNING execution_id, action_id, name, version, status, submitted_at,
                      published_at, priority, held
            """,
            {"id": uuid4(), "of": execution_id, "key": key_id},
        ).fetchone()


def get(conn: psycopg.Connection, execution_id: UUID) -> Job | None:
    """One job, or None."""
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(
            f"SELECT {COLUMNS} FROM dpe.jobs WHERE execution_id = %s",  # noqa: S608 -- constants
            [execution_id],
        ).fetchone()


def find(conn: psycopg.Connection, prefix: str) -> list[UUID]:
    """The executions whose id begins with `prefix` (people see the first 7 characters); at most 2.

    A range over the primary key, so that it stays fast however many jobs there are.
    """
    digits = prefix.replace("-", "").lower()
    rows = conn.execute(
        """
        SELECT execution_id FROM dpe.jobs
        WHERE execution_id BETWEEN %s::uuid AND %s::uuid LIMIT 2
        """,
        [digits.ljust(32, "0"), digits.ljust(32, "f")],
    ).fetchall()
    return [row[0] for row in rows]


def ended(conn: psycopg.Connection, execution_ids: list[UUID]) -> list[Job]:
    """Those of the jobs that have ended; one statement serves all that wait."""
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(
            f"""
            SELECT {COLUMNS} FROM dpe.jobs WHERE execution_id = ANY(%s) AND ended_at IS NOT NULL
            """,  # noqa: S608 -- constants
            [execution_ids],
        ).fetchall()


def stop(conn: psycopg.Connection, execution_id: UUID, by: str) -> bool:
    """End one job as STOPPED, queued or running; False: it had ended (or does not exist).

    The decision is this row: from its commit on, the attempt that runs can't commit any more
    (its fence asks for PROCESSING), and its supervisor ends the process within a second.
    """
    return _stop(conn, "execution_id = %(id)s", execution_id, by) == 1


def stop_all(conn: psycopg.Connection, action_id: str, by: str) -> int:
    """End every open job of an action as STOPPED; return how many there were."""
    return _stop(conn, "action_id = %(id)s", action_id, by)


def _stop(conn: psycopg.Connection, which: str, id: UUID | str, by: str) -> int:
    query = f"""
        UPDATE dpe.jobs SET status = 'STOPPED', ended_at = now(),
               error = json_build_object('type', 'Stopped', 'traceback', NULL,
                                          'message', 'stopped by ' || %(by)s::text)
        WHERE {which} AND status IN ('SUBMITTED', 'QUEUED', 'PROCESSING')
        RETURNING run_id, plan IS NOT NULL
        """  # noqa: S608 -- constants
    with conn.transaction():
        # A caller that is frozen in here must not hold its row locks for ever.
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = '5s'")
        stopped = conn.execute(query.encode(), {"id": id, "by": by}).fetchall()
        workflow_runs.advance(conn, (run_id for run_id, _ in stopped))
    if any(is_run for _, is_run in stopped):
        workflow_runs.mend(conn)  # ends their steps; where this process dies, the watch does it
    return len(stopped)


def log_parts(
    conn: psycopg.Connection, execution_id: UUID, after: tuple[int, int] = (0, 0)
) -> list[tuple[int, int, str]]:
    """The stored log after (attempt, part), in order: (attempt, part, lines as JSON text)."""
    return conn.execute(
        """
        SELECT attempt, part, lines FROM dpe.job_logs
        WHERE execution_id = %s AND (attempt, part) > (%s, %s) ORDER BY attempt, part
        """,
        [execution_id, *after],
    ).fetchall()
