"""The versions of an action: which there are, and going back to one.

Going back moves the action's pointer and copies nothing; a push after it makes a number of its own.
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from worker.errors import Conflict, NotFound
from worker.store import actions
from worker.store.actions import Action


@dataclass(frozen=True, slots=True)
class Version:
    """One version; `current` is the one that the next start runs, `digest` is of all files."""

    version: int
    name: str
    digest: str
    created_at: datetime
    current: bool


def list_versions(conn: psycopg.Connection, action_id: str) -> list[Version]:
    """All versions of an action, newest first."""
    with conn.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(
            """
            SELECT v.version, v.name, v.digest, v.created_at, v.version = a.version AS current
            FROM dpe.action_versions v JOIN dpe.actions a ON a.id = v.action_id
            WHERE v.action_id = %s ORDER BY v.version DESC
            """,
            [action_id],
        ).fetchall()


def roll_back(conn: psycopg.Connection, action_id: str, version: int | None) -> Action:
    """Make this version the one that the next start runs; None: the one before the current.

    Jobs accepted before keep the version that they were accepted with.  Raises NotFound for a
    version that there is not, Conflict where none is before the current one.
    """
    with conn.transaction():
        conn.execute("SELECT FROM dpe.actions WHERE id = %s FOR UPDATE", [action_id])
        versions = list_versions(conn, action_id)
        current = next((v.version for v in versions if v.current), 0)
        if version is None:
            version = next((v.version for v in versions if v.version < current), None)
        if version is None:
            raise Conflict(f"action {action_id} has no version before {current}")
        if version not in {v.version for v in versions}:
            raise NotFound(
                f"version {version} of action {action_id} not found",
                f"dpe action versions {action_id} lists those there are",
            )
        if version != current:
            conn.execute(
                "UPDATE dpe.actions SET version = %s, updated_at = now() WHERE id = %s",
                [version, action_id],
            )
        found = actions.get(conn, action_id)
    if found is None:
        raise NotFound(f"action {action_id} not found")  # deleted meanwhile
    return found
