"""Starting the archived events of ended jobs again, many by one filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Which:
    """Jobs of one action; None: not narrowed by this."""

    action_id: str
    statuses: Sequence[str]
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 1_000


@dataclass(frozen=True, slots=True)
class Replayed:
    """A job and the one that does it again; `due_at` is when that may begin."""

    execution_id: UUID  # of the new one
    replay_of: UUID  # the job that was chosen
    due_at: datetime


def replay(
    conn: psycopg.Connection,
    which: Which,
    key_id: int | None,
    *,
    version: int | None,
    per_s: float,
    dry_run: bool,
) -> list[Replayed]:
    """Start the events of these jobs again, the oldest first, `per_s` of them a second; commits.

    `version` None: the action's newest.  Safe to repeat: a job that was retried since is passed
    over, and its newest retry stands for it; so those that are under way are not started twice.
    Steps and runs of workflows are not among them.  With `dry_run` nothing is stored.
    """
    values = {
        "action": which.action_id,
        "statuses": list(which.statuses),
        "since": which.since,
        "until": which.until,
        "key": key_id,
        "version": version,
        "limit": which.limit,
        "pause": 1 / per_s,
    }
    with conn.transaction(force_rollback=dry_run):
        # Of two replays at the same instant the second one sees what the first has started.
        conn.execute("SELECT FROM dpe.actions WHERE id = %s FOR UPDATE", [which.action_id])
        with conn.cursor(row_factory=class_row(Replayed)) as cursor:
            return cursor.execute(
                """
                WITH chosen AS (
                  SELECT j.execution_id, j.seq, coalesce(j.retry_of, j.execution_id) AS origin,
                         j.event, j.priority, gen_random_uuid() AS id,
                         now() + (row_number() OVER (ORDER BY j.seq) - 1) * %(pause)s
                           * interval '1 second' AS due
                  FROM dpe.jobs j
                  WHERE j.action_id = %(action)s AND j.status = ANY(%(statuses)s)
                    AND j.ended_at IS NOT NULL AND j.run_id IS NULL AND j.plan IS NULL
                    AND (%(since)s::timestamptz IS NULL OR j.submitted_at >= %(since)s)
                    AND (%(until)s::timestamptz IS NULL OR j.submitted_at < %(until)s)
                    AND NOT EXISTS (
                      SELECT FROM dpe.jobs r
                      WHERE r.retry_of = coalesce(j.retry_of, j.execution_id) AND r.seq > j.seq)
                  ORDER BY j.seq LIMIT %(limit)s
                ), stored AS (
                  INSERT INTO dpe.jobs (execution_id, action_id, version, name, status, event,
                                        event_type, key_id, timeout_s, priority, due_at, retry_of,
                                        max_running, held)
                  SELECT c.id, v.action_id, v.version, v.name, 'SUBMITTED', c.event, 'retry',
                         %(key)s, v.timeout_s, c.priority, c.due, c.origin,
                         v.max_running, v.max_running IS NOT NULL
                  FROM chosen c
                  JOIN dpe.actions a ON a.id = %(action)s AND a.deleted_at IS NULL
                  JOIN dpe.action_versions v ON v.action_id = a.id
                    AND v.version = coalesce(%(version)s::int, a.version)
                  ORDER BY c.seq
                  RETURNING execution_id, due_at
                )
                SELECT s.execution_id, c.execution_id AS replay_of, s.due_at
                FROM stored s JOIN chosen c ON c.id = s.execution_id ORDER BY c.seq
                """,
                values,
            ).fetchall()
