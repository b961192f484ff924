"""Replay: the archived events of an action's ended jobs, started again by a filter."""

from datetime import datetime
from typing import Any

from flask import Blueprint, Response

from app import body
from app.answers import json_answer
from app.auth import check_touch, needs, session
from app.query import instant_of
from app.resources import resources
from worker.errors import Invalid, NotFound
from worker.store import actions, replay
from worker.store.jobs import FINAL

routes = Blueprint("replay", __name__)

ACCEPTED = 202
DEFAULT_LIMIT, MAX_LIMIT = 1_000, 10_000
DEFAULT_RATE, MAX_RATE = 50.0, 1_000.0
DEFAULT_STATUSES = ["FAILED", "TIMEOUT"]


@routes.post("/dpe/v3/actions/<id>/replay")
@routes.post("/dpe/v3/action/<id>/replay")
@needs("dpe:job:retry")
def start(id: str) -> Response:
    """Start the events of an action's ended jobs again, those that a filter names."""
    fields = body.json_object()
    limit = _number(fields, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    per_s = _number(fields, "rate", DEFAULT_RATE, MAX_RATE)
    dry_run = fields.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise Invalid(f'"dry_run" must be true or false, got {dry_run!r}')
    with resources().pool.connection() as conn:
        action = actions.get(conn, id)
        if action is None:
            raise NotFound(f"action {id} not found")
        check_touch(action.id)
        version = _version(fields)
        if version is not None and actions.source(conn, action.id, version) is None:
            raise NotFound(f"version {version} of action {action.id} not found")
        found = replay.replay(
            conn,
            replay.Which(
                action.id,
                _statuses(fields),
                _time(fields, "since"),
                _time(fields, "until"),
                int(limit),
            ),
            session().key_id,
            version=version,
            per_s=per_s,
            dry_run=dry_run,
        )
    return json_answer(
        {
            "id": action.id,
            "dry_run": dry_run,
            "count": len(found),
            "last_due_at": found[-1].due_at if found else None,
            "jobs": [
                {"replay_of": job.replay_of, "execution_id": None if dry_run else job.execution_id}
                for job in found
            ],
        },
        200 if dry_run else ACCEPTED,
    )


def _statuses(fields: dict[str, Any]) -> list[str]:
    given = fields.get("status", DEFAULT_STATUSES)
    wanted = [given] if isinstance(given, str) else given
    known = sorted(FINAL)
    if not isinstance(wanted, list) or not wanted or not all(one in known for one in wanted):
        raise Invalid(f'"status" must be of {", ".join(known)}, got {given!r}')
    return wanted


def _number(fields: dict[str, Any], name: str, default: float, most: float) -> float:
    given = fields.get(name, default)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= most:
        raise Invalid(f'"{name}" must be above 0 and at most {most:g}, got {given!r}')
    if name == "limit" and given != int(given):
        raise Invalid(f'"{name}" must be a whole number, got {given!r}')
    return given


def _version(fields: dict[str, Any]) -> int | None:
    given = fields.get("version")
    if given is not None and (
        isinstance(given, bool) or not isinstance(given, int) or not 0 < given < 2**31
    ):
        raise Invalid(f'"version" must be a version of the action, got {given!r}')
    return given


def _time(fields: dict[str, Any], name: str) -> datetime | None:
    given = fields.get(name)
    if given is None:
        return None
    if not isinstance(given, str):
        raise Invalid(f'"{name}" must be a time in ISO 8601, got {given!r}')
    return instant_of(name, given)
