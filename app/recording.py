"""Writes the audit trail around a route that changes something."""

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
from flask import Response, request
from psycopg_pool import PoolTimeout

from app.resources import resources
from worker.store import audit
from worker.store.access import Session

# A start's record is its job, which names the key: the hot path has no further statement.
RECORDED_ELSEWHERE = {"read", "start", "retry"}
NAMES = ("apikey", "id", "name")
FAILED = 500


def is_recorded(permission: str) -> bool:
    """Whether the use of this permission changes something, and no job tells of it."""
    return permission.count(":") == 2 and permission.rpartition(":")[2] not in RECORDED_ELSEWHERE  # noqa: PLR2004


def recorded(session: Session, address: str, permission: str, view: Callable[[], Any]) -> Any:
    """Write down who is about to do what, do it, and add how it was answered.

    Before, and committed: nothing is changed that is not in the trail.
    """
    pool = resources().pool
    path = request.path.replace("\0", "�")  # without the query, which may hold a token
    with pool.connection() as conn:
        id = audit.begin(conn, session, address, permission, request.method, path)
    status, made = FAILED, None
    try:
        answer = view()
        status, made = answer.status_code, _made(answer)
    except Exception as error:
        status = getattr(error, "status", getattr(error, "code", FAILED))
        raise
    finally:
        with contextlib.suppress(psycopg.Error, PoolTimeout), pool.connection() as conn:
            audit.end(conn, id, status, made)
    return answer


def _made(answer: Response) -> str | None:
    if not answer.is_json or request.method != "POST":
        return None
    shown = answer.get_json(silent=True)
    if not isinstance(shown, dict):
        return None
    return next((str(shown[name]) for name in NAMES if shown.get(name)), None)
