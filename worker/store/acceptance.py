"""Accepting starts: the statement that makes a job of a call, for one or for many at a time."""

import re
from collections.abc import Sequence
from itertools import count
from typing import Any, LiteralString

import psycopg
from psycopg.pq import Format
from psycopg.rows import class_row

from worker.store.database import LoopConnection, binary_texts, plain_array
from worker.store.jobs import Accepted, Start


def accept(conn: psycopg.Connection, start: Start) -> Accepted | None:
    """Store one start; None: no such action, or its session is not open any more."""
    return accept_all(conn, [start])[0]


def accept_all(conn: psycopg.Connection, starts: Sequence[Start]) -> list[Accepted | None]:
    """Store starts with their events, the actions' versions pinned, in one statement.

    With an autocommit connection all are durable on return, for the price of one commit.  They are
    stored as QUEUED, as if published already: the publishing that follows then needs no second
    statement.  Where it fails, `unpublished` says so; where the process dies in between, the watch
    finds it.  Those that are due later are stored as SUBMITTED; the watch publishes them.  None
    stands for a start whose action does not exist, whose session has ended, or whose action allows
    one open job (see `turns`).  The events go as a binary array: as text, each of their quotes is
    escaped by a regular expression.
    """
    with conn.cursor(row_factory=class_row(Accepted)) as cursor:
        rows = cursor.execute(_ACCEPT, _values(starts)).fetchall()
    return _in_order(starts, rows)


async def accept_all_on_loop(
    conn: LoopConnection, starts: Sequence[Start]
) -> list[Accepted | None]:
    """As `accept_all`, on an event loop."""
    values = _values(starts)
    values[_EVENTS] = binary_texts(values[_EVENTS])
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    rows = await conn.rows(_NUMBERED, encoded, Accepted, _FORMATS)
    return _in_order(starts, rows)


_ACCEPT: LiteralString = """
    INSERT INTO dpe.jobs (execution_id, action_id, version, name, status, event,
                          event_type, key_id, timeout_s, priority, due_at, published_at,
                          deadline, max_running, held, waiter)
    SELECT s.id, v.action_id, v.version, v.name,
           CASE WHEN waits THEN 'SUBMITTED' ELSE 'QUEUED' END, s.event, s.type,
           s.key, v.timeout_s, coalesce(s.priority, v.priority), due,
           CASE WHEN NOT waits THEN now() END,
           due + coalesce(s.expires_s, v.expires_s) * interval '1 second',
           v.max_running, v.max_running IS NOT NULL, s.waiter
    FROM unnest(%s::uuid[], %s::text[], %b::text[], %s::text[], %s::bigint[], %s::text[],
                %s::smallint[], %s::float8[], %s::timestamptz[], %s::float8[],
                %s::boolean[], %s::text[])
         WITH ORDINALITY AS s (id, action, event, type, key, session, priority, delay_s,
                               not_before, expires_s, in_line, waiter, ordinal)
    CROSS JOIN LATERAL greatest(
        now(), s.not_before, now() + s.delay_s * interval '1 second')
      AS due
    JOIN dpe.actions a ON a.id = s.action AND a.deleted_at IS NULL
    JOIN dpe.action_versions v ON v.action_id = a.id AND v.version = a.version
      AND (s.in_line OR NOT v.exclusive)
    CROSS JOIN LATERAL (VALUES (due > now() OR v.max_running IS NOT NULL)) AS w (waits)
    WHERE s.session IS NULL OR EXISTS (
      SELECT FROM dpe.sessions o JOIN dpe.keys k ON k.id = o.key_id
      WHERE o.id = s.session AND o.expires_at > now()
        AND k.revoked_at IS NULL AND k.expires_at > now())
    ORDER BY s.ordinal
    RETURNING execution_id, action_id, name, version, status, submitted_at, published_at,
              priority, held
    """


_EVENTS = 2  # the place among the values that is sent in the binary format
_FORMATS = [Format.BINARY if at == _EVENTS else Format.TEXT for at in range(_ACCEPT.count("%"))]
_PLACES = count(1)
_NUMBERED = re.sub("%[sb]", lambda _: f"${next(_PLACES)}", _ACCEPT).encode()


def _values(starts: Sequence[Start]) -> list[Any]:
    return [
        plain_array(start.execution_id for start in starts),
        plain_array(start.action_id for start in starts),
        [start.event for start in starts],
        plain_array(start.event_type for start in starts),
        plain_array(start.key_id for start in starts),
        plain_array(start.session_id for start in starts),
        plain_array(start.priority for start in starts),
        plain_array(start.delay_s for start in starts),
        plain_array(start.not_before for start in starts),
        plain_array(start.expires_s for start in starts),
        plain_array(start.in_line for start in starts),
        plain_array(start.waiter for start in starts),
    ]


def _in_order(starts: Sequence[Start], rows: Sequence[Accepted]) -> list[Accepted | None]:
    accepted = {row.execution_id: row for row in rows}
    return [accepted.get(start.execution_id) for start in starts]
