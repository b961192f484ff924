"""What the broker should hold and does not: jobs never published, and jobs whose message is lost.

The broker may forget anything at any moment; these statements, run by the watch, are how
everything that it forgot comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from worker.store.priorities import DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True)
class Message:
    """What goes to the broker for one job; the event itself stays in Postgres."""

    execution_id: UUID
    name: str
    published_at: datetime  # Postgres' clock
    priority: int = DEFAULT_PRIORITY  # a place in PRIORITIES


def take_due(conn: psycopg.Connection, limit: int) -> list[Message]:
    """Mark accepted, unpublished, due jobs as QUEUED and return their messages, oldest first.

    Run it in a transaction, publish, then commit: a failed publishing rolls the mark back, a
    failed commit leaves a second message, which finds its job taken.
    """
    with conn.cursor(row_factory=class_row(Message)) as cursor:
        return cursor.execute(
            """
            UPDATE dpe.jobs SET status = 'QUEUED', published_at = clock_timestamp()
            WHERE execution_id = ANY (ARRAY(
              SELECT execution_id FROM dpe.jobs
              WHERE status = 'SUBMITTED' AND due_at <= now() AND NOT held
              ORDER BY priority, seq LIMIT %s FOR UPDATE SKIP LOCKED))
            RETURNING execution_id, name, published_at, priority
            """,
            [limit],
        ).fetchall()


def take_overtaken(
    conn: psycopg.Connection,
    next_published_at: Sequence[datetime | None],
    grace_s: float,
    limit: int,
) -> list[Message]:
    """Mark queued jobs whose message must be lost as published anew; return the new messages.

    No more than `limit` of each priority, those that were published first.

    Messages of one priority are delivered in the order in which they were published.  So where
    the one that comes next was published at `next_published_at[priority]`, all that were published
    before it (by more than `grace_s`) have been delivered, and those that nobody claimed are lost.
    None: its queue is empty, and everything older than the grace is lost.  Run it like `take_due`.
    """
    with conn.cursor(row_factory=class_row(Message)) as cursor:
        return cursor.execute(
            """
            UPDATE dpe.jobs SET published_at = clock_timestamp()
            WHERE execution_id = ANY (ARRAY(
              SELECT lost.execution_id
              FROM unnest(%(next)s::timestamptz[]) WITH ORDINALITY AS n (at, ordinal)
              CROSS JOIN LATERAL (
                SELECT execution_id FROM dpe.jobs
                WHERE status = 'QUEUED' AND priority = n.ordinal - 1
                  AND published_at < coalesce(n.at, now()) - %(grace)s * interval '1 second'
                ORDER BY published_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) lost))
            RETURNING execution_id, name, published_at, priority
            """,
            {"next": list(next_published_at), "grace": grace_s, "limit": limit},
        ).fetchall()
