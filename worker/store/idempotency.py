"""`Idempotency-Key`: a start call that is sent again starts nothing again.

Modelled on the IETF draft (draft-ietf-httpapi-idempotency-key-header) and on Stripe's.  The key is
the caller's own; it is never derived from the body, since two equal events may both be meant.
"""

from collections.abc import Callable
from hashlib import sha256

import psycopg
from psycopg.rows import class_row

from worker.errors import Conflict, KeyReused
from worker.store.acceptance import accept
from worker.store.jobs import Accepted, Start

KEPT_S = 86_400.0
LOCK_TIMEOUT = "2s"


def accept_once(
    conn: psycopg.Connection,
    start: Start,
    key: str,
    accept: Callable[[psycopg.Connection, Start], Accepted | None] = accept,
) -> tuple[Accepted, bool] | None:
    """Accept the start, or find the one accepted before under this key.

    Returns the accepted job and whether it was there before; None as `accept` does.  Raises
    KeyReused where the body is another one, Conflict where the first call is still under way.
    Key and job are one transaction: of two calls at the same instant one waits for the other.
    """
    try:
        with conn.transaction():
            conn.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
            if not _keep(conn, start, key):
                return _found(conn, start, key), True
            accepted = accept(conn, start)
            if accepted is None:
                raise psycopg.Rollback
            return accepted, False
    except psycopg.errors.LockNotAvailable:
        raise Conflict(
            "the first call with this Idempotency-Key is still under way", "send it again later"
        ) from None
    return None


def forget_old(conn: psycopg.Connection) -> int:
    """Delete keys past their time."""
    return conn.execute(
        "DELETE FROM dpe.idempotency_keys WHERE created_at < now() - %s * interval '1 second'",
        [KEPT_S],
    ).rowcount


def _keep(conn: psycopg.Connection, start: Start, key: str) -> bool:
    values = {
        "key_id": start.key_id,
        "action": start.action_id,
        "key": key,
        "digest": _digest(start),
        "id": start.execution_id,
        "kept": KEPT_S,
    }
    # An insert that meets another's uncommitted key waits for its end.
    done = conn.execute(
        """
        INSERT INTO dpe.idempotency_keys AS k (key_id, action_id, key, digest, execution_id)
        VALUES (%(key_id)s, %(action)s, %(key)s, %(digest)s, %(id)s)
        ON CONFLICT (key_id, action_id, key) DO UPDATE
        SET digest = excluded.digest, execution_id = excluded.execution_id, created_at = now()
        WHERE k.created_at < now() - %(kept)s * interval '1 second'
        """,
        values,
    )
    return done.rowcount == 1


def _found(conn: psycopg.Connection, start: Start, key: str) -> Accepted:
    where = [start.key_id, start.action_id, key]
    row = conn.execute(
        "SELECT digest FROM dpe.idempotency_keys WHERE key_id = %s AND action_id = %s AND key = %s",
        where,
    ).fetchone()
    if row is None or row[0] != _digest(start):
        raise KeyReused(
            "this Idempotency-Key was used for another body", "use a new key for every event"
        )
    with conn.cursor(row_factory=class_row(Accepted)) as cursor:
        job = cursor.execute(
            """
            SELECT j.execution_id, j.action_id, j.name, j.version,
                   CASE WHEN j.plan IS NULL THEN 'QUEUED' ELSE 'PROCESSING' END AS status,
                   j.submitted_at, coalesce(j.published_at, now()) AS published_at, j.priority
            FROM dpe.idempotency_keys k JOIN dpe.jobs j ON j.execution_id = k.execution_id
            WHERE k.key_id = %s AND k.action_id = %s AND k.key = %s
            """,
            where,
        ).fetchone()
    if job is None:
        raise Conflict("the job started with this Idempotency-Key is not kept any more")
    return job


def _digest(start: Start) -> bytes:
    return sha256((start.event or "").encode()).digest()
