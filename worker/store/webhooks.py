"""Webhooks of actions: which form of signature a sender uses, and its secret, encrypted."""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

STANDARD, GITHUB, STRIPE = FORMS = ("standard", "github", "stripe")


@dataclass(frozen=True, slots=True)
class Webhook:
    """What may start an action without a session."""

    action_id: str
    form: str
    secret: str  # encrypted
    key_id: int  # the API key that made it
    created_at: datetime


def put(conn: psycopg.Connection, action_id: str, form: str, secret: str, key_id: int) -> bool:
    """Make or replace an action's webhook; False: no such action.  `secret` is encrypted."""
    return (
        conn.execute(
            """
            INSERT INTO dpe.webhooks (action_id, form, secret, key_id)
            SELECT id, %s, %s, %s FROM dpe.actions WHERE id = %s AND deleted_at IS NULL
            ON CONFLICT (action_id) DO UPDATE SET form = excluded.form, secret = excluded.secret,
              key_id = excluded.key_id, created_at = now()
            """,
            [form, secret, key_id, action_id],
        ).rowcount
        == 1
    )


def get(conn: psycopg.Connection, action_id: str) -> Webhook | None:
    """The webhook of an action; None: it has none, or is deleted."""
    with conn.cursor(row_factory=class_row(Webhook)) as cursor:
        return cursor.execute(
            """
            SELECT w.action_id, w.form, w.secret, w.key_id, w.created_at
            FROM dpe.webhooks w JOIN dpe.actions a ON a.id = w.action_id
            WHERE w.action_id = %s AND a.deleted_at IS NULL
            """,
            [action_id],
        ).fetchone()


def delete(conn: psycopg.Connection, action_id: str) -> bool:
    """Remove it: what it signs is refused from now on.  False: there was none."""
    done = conn.execute("DELETE FROM dpe.webhooks WHERE action_id = %s", [action_id])
    return done.rowcount == 1
