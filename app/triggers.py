"""Triggers: set, list, look at, pause, resume, remove; and when they tick next."""

from typing import Any

import psycopg
from flask import Blueprint, Response

from app import body, query
from app.answers import json_answer
from app.auth import needs, session
from app.resources import resources
from worker.errors import Invalid, NotFound
from worker.store import triggers
from worker.store.triggers import Tick, Trigger

routes = Blueprint("triggers", __name__)

TICKS_SHOWN = 20
MOST_UPCOMING = 100


@routes.get("/dpe/v3/triggers")
@needs("dpe:trigger:read")
def list_triggers() -> Response:
    """All triggers, by name."""
    with resources().pool.connection() as conn:
        return json_answer([_json(trigger) for trigger in triggers.list_triggers(conn)])


@routes.put("/dpe/v3/triggers/<name>")
@needs("dpe:trigger:write")
def put(name: str) -> Response:
    """Make the trigger of this name, or change it to this."""
    given = body.json_object()
    if given.setdefault("name", name) != name:
        raise Invalid(f'"name" is {given["name"]!r}, and the address says {name!r}')
    with resources().pool.connection() as conn:
        return json_answer(_json(triggers.put(conn, given, session().key_id)))


@routes.get("/dpe/v3/triggers/<name>")
@needs("dpe:trigger:read")
def one(name: str) -> Response:
    """One trigger, and what became of its newest ticks."""
    with resources().pool.connection() as conn:
        found = _find(conn, name)
        ticks = triggers.ticks(conn, name, TICKS_SHOWN)
    return json_answer(_json(found) | {"ticks": [_tick_json(tick) for tick in ticks]})


@routes.get("/dpe/v3/triggers/<name>/next")
@needs("dpe:trigger:read")
def upcoming(name: str) -> Response:
    """The next ticks, paused or not; `?count=`."""
    count = query.count("count", 5, MOST_UPCOMING)
    with resources().pool.connection() as conn:
        found, now = _find(conn, name), triggers.now(conn)
    ticks = found.schedule.upcoming(now, count)
    return json_answer(
        {
            "name": name,
            "timezone": found.timezone,
            "paused": found.paused_at is not None,
            "next": [{"tick": t, "local": found.schedule.local(t).isoformat()} for t in ticks],
        }
    )


@routes.post("/dpe/v3/triggers/<name>/pause")
@needs("dpe:trigger:write")
def pause(name: str) -> Response:
    """Let it start nothing until it is resumed."""
    with resources().pool.connection() as conn:
        triggers.pause(conn, _find(conn, name).name)
        return json_answer(_json(_find(conn, name)))


@routes.post("/dpe/v3/triggers/<name>/resume")
@needs("dpe:trigger:write")
def resume(name: str) -> Response:
    """Let it tick again, from now on."""
    with resources().pool.connection() as conn:
        triggers.resume(conn, _find(conn, name))
        return json_answer(_json(_find(conn, name)))


@routes.delete("/dpe/v3/triggers/<name>")
@needs("dpe:trigger:write")
def delete(name: str) -> Response:
    """Remove a trigger; runs that it started go on."""
    with resources().pool.connection() as conn:
        triggers.delete(conn, _find(conn, name).name)
    return json_answer({"name": name, "deleted": True})


def _find(conn: psycopg.Connection, name: str) -> Trigger:
    found = triggers.get(conn, name)
    if found is None:
        raise NotFound(f"trigger {name} not found", "GET /dpe/v3/triggers lists those there are")
    return found


def _json(trigger: Trigger) -> dict[str, Any]:
    return trigger.definition() | {
        # Of a paused one it is not known: it ticks again from when it is resumed.
        "next_at": None if trigger.paused_at else trigger.next_at,
        "created_at": trigger.created_at,
        "updated_at": trigger.updated_at,
    }


def _tick_json(tick: Tick) -> dict[str, Any]:
    return {
        "tick": tick.tick,
        "outcome": tick.outcome,
        "execution_id": tick.execution_id,
        "error": tick.error,
        "decided_at": tick.decided_at,
    }
