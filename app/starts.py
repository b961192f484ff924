"""Starting an action: check, accept (stored and published), answer."""

import re

import psycopg
from flask import Blueprint, Response, g

from app import body, checked_starts, query
from app.answers import Reply, accepted_json, job_json, json_answer
from app.auth import check_session, check_touch, needs, session
from app.resources import Resources, resources
from worker.errors import NotFound
from worker.store import acceptance, idempotency, jobs, turns

routes = Blueprint("starts", __name__)

PERMISSION = "dpe:action:start"
ACCEPTED = 202
POLL_AFTER_S = "1"
ACTION_ID = re.compile("[0-9a-f]{24}")


@routes.post("/dpe/v3/actions/<id>/start")
@routes.post("/dpe/v3/action/<id>/start")
@needs(PERMISSION, checked_with_the_statement=True)
def start(id: str) -> Response:
    """Accept an event for an action: durable when this answers."""
    wait_s = query.wait_s()
    priority, event_type = query.priority(), query.event_type()
    event = body.event()
    # Checked here: what Postgres can't take, like a NUL, would fail all starts of its statement.
    if not ACTION_ID.fullmatch(id):
        raise unknown(id)
    delay_s, not_before = query.due()
    start = jobs.Start(
        id,
        event,
        event_type,
        session().key_id,
        session().id,
        priority,
        delay_s,
        not_before,
        query.duration("expires"),
        waiter=resources().waits.channel if wait_s else None,
    )
    check_touch(id)
    if checked_starts.wanted():
        planned = checked_starts.check(id, event)
        if planned is not None:
            return planned
    key = query.idempotency_key()
    found = accept(start, key)
    if found is None:
        check_session()  # it may have ended since it was read
        raise unknown(id)
    return answer(*found, wait_s)


def accept(start: jobs.Start, key: str | None) -> tuple[jobs.Accepted, str] | None:
    """Store and publish a start, with a key only once; return it with its status.

    None: no such action, or its session has ended.
    """
    if key is not None:
        return _accept_once(start, key)
    held = resources()
    held.limits.check(session())
    with held.pool.connection() as conn:
        accepted = acceptance.accept(conn, start)
    if accepted is None:
        return accept_alone(held, start)
    status = held.handover.publish([accepted])
    return accepted, status if accepted.published_at else accepted.status


def accept_alone(held: Resources, start: jobs.Start) -> tuple[jobs.Accepted, str] | None:
    """Accept a start of an action that allows one open job: those it never shares a statement."""
    with held.pool.connection() as conn:
        accepted = turns.accept_alone(conn, start)
    if accepted is None:
        return None
    held.handover.publish([accepted])
    return accepted, accepted.status


def _accept_once(start: jobs.Start, key: str) -> tuple[jobs.Accepted, str] | None:
    held = resources()

    def accept(conn: psycopg.Connection, start: jobs.Start) -> jobs.Accepted | None:
        held.limits.check(session())  # not of a start that was accepted before: it gets its answer
        return acceptance.accept(conn, start) or turns.accept_alone(conn, start)

    with held.pool.connection() as conn:
        found = idempotency.accept_once(conn, start, key, accept)
    if found is None:
        return None
    accepted, before = found
    if before:
        g.replayed = True
        return accepted, accepted.status
    status = held.handover.publish([accepted])
    return accepted, status if accepted.published_at else accepted.status


def answer(accepted: jobs.Accepted, status: str, wait_s: float, type: str = "action") -> Response:
    """Answer an accepted start: at once, or with its end within `wait_s` seconds."""
    held, job = resources(), None
    if wait_s:
        told = type == "action"
        job = held.waits.until_ended(accepted.execution_id, wait_s, told=told)
        if job is None:
            with held.pool.connection() as conn:
                job = jobs.get(conn, accepted.execution_id)
    shown, code, headers = outcome(accepted, status, job, type)
    if g.get("replayed"):
        headers["Idempotent-Replayed"] = "true"
    return json_answer(shown, code, headers)


def outcome(
    accepted: jobs.Accepted, status: str, job: jobs.Job | None, type: str = "action"
) -> Reply:
    """What an accepted start is answered; `job` is what its caller has waited for."""
    shown = accepted_json(accepted, status, type) if job is None else job_json(job)
    headers = {"Location": shown["url"]}
    if job is not None and job.ended:
        return shown, 200, headers
    return shown, ACCEPTED, headers | {"Retry-After": POLL_AFTER_S}


def unknown(id: str) -> NotFound:
    """What a start of an action that there is not is told."""
    return NotFound(f"action {id} not found", "GET /dpe/v3/actions lists those there are")
