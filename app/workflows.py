"""Workflows: list, look at, push, delete, start, stop; a run of one is a job (`app.jobs`)."""

import re

import psycopg
from flask import Blueprint, Response, g

from app import body, query
from app.answers import json_answer, workflow_json
from app.auth import check_touch, needs, session
from app.job_log import log_answer
from app.jobs import find
from app.resources import resources
from app.starts import answer
from worker.errors import NotFound
from worker.store import idempotency, jobs, workflow_starts, workflows
from worker.store.publishing import Message
from worker.store.workflows import Workflow

routes = Blueprint("workflows", __name__)

CREATED = 201
WORKFLOW_ID = re.compile("[0-9a-f]{24}")


@routes.get("/dpe/v3/workflows")
@routes.get("/dpe/v3/workflow")
@needs("dpe:workflow:read")
def list_workflows() -> Response:
    """All workflows, oldest first."""
    with resources().pool.connection() as conn:
        found = workflows.list_workflows(conn)
    return json_answer([workflow_json(workflow) for workflow in found])


@routes.get("/dpe/v3/workflows/<id>")
@routes.get("/dpe/v3/workflow/<id>")
@needs("dpe:workflow:read")
def one(id: str) -> Response:
    """One workflow, by its id or its name."""
    with resources().pool.connection() as conn:
        return json_answer(workflow_json(_find(conn, id)))


@routes.post("/dpe/v3/workflows")
@routes.post("/dpe/v3/workflow")
@needs("dpe:workflow:write")
def push_new() -> Response:
    """Store a definition as a new workflow, with an id of its own."""
    definition = body.json_object()
    with resources().pool.connection() as conn:
        workflow = workflows.push(conn, None, definition)
    headers = {"Location": f"/dpe/v3/workflows/{workflow.id}"}
    return json_answer(workflow_json(workflow), CREATED, headers)


@routes.put("/dpe/v3/workflows/<id>")
@routes.put("/dpe/v3/workflow/<id>")
@needs("dpe:workflow:write")
def push(id: str) -> Response:
    """Store a definition as the newest version of this workflow, which need not be known yet."""
    definition = body.json_object()
    with resources().pool.connection() as conn:
        return json_answer(workflow_json(workflows.push(conn, id, definition)))


@routes.delete("/dpe/v3/workflows/<id>")
@routes.delete("/dpe/v3/workflow/<id>")
@needs("dpe:workflow:write")
def delete(id: str) -> Response:
    """Take a workflow out of service; runs that were started go on."""
    with resources().pool.connection() as conn:
        workflow = _find(conn, id)
        workflows.delete(conn, workflow.id)
    return json_answer({"id": workflow.id, "name": workflow.name, "deleted": True})


@routes.post("/dpe/v3/workflows/<id>/start")
@routes.post("/dpe/v3/workflow/<id>/start")
@needs("dpe:workflow:start")
def start(id: str) -> Response:
    """Start a run: it and its first steps are durable when this answers."""
    wait_s = query.wait_s()
    priority, event_type = query.priority(), query.event_type()
    query.refuse("delay", "not_before", "expires", why="a run of a workflow begins at once")
    event = body.event()
    if not WORKFLOW_ID.fullmatch(id):
        raise _unknown(id)
    start = jobs.Start(id, event, event_type, session().key_id, priority=priority)
    messages: list[Message] = []
    held = resources()

    check_touch(id)

    def accept(conn: psycopg.Connection, start: jobs.Start) -> jobs.Accepted | None:
        held.limits.check(session())
        started = workflow_starts.start(conn, start, queued=True)
        if started is None:
            return None
        messages.extend(started.messages)
        return started.run

    key = query.idempotency_key()
    with held.pool.connection() as conn:
        if key is None:
            run = accept(conn, start)
        else:
            found = idempotency.accept_once(conn, start, key, accept)
            run, g.replayed = found or (None, False)
    if run is None:
        raise _unknown(id)
    if messages:
        held.handover.publish(messages)
    return answer(run, run.status, wait_s, "workflow")


@routes.route("/dpe/v3/workflows/<id>/stop", methods=["DELETE", "POST"])
@routes.route("/dpe/v3/workflow/<id>/stop", methods=["DELETE", "POST"])
@needs("dpe:job:stop")
def stop_all(id: str) -> Response:
    """End every run of a workflow that goes on, and its steps, as STOPPED."""
    check_touch(id)
    with resources().pool.connection() as conn:
        stopped = jobs.stop_all(conn, id, session().name)
        # Runs of a deleted workflow can be stopped too.
        if not stopped and workflows.get(conn, id) is None:
            raise _unknown(id)
    return json_answer({"id": id, "stopped": stopped})


@routes.get("/dpe/v3/workflows/<id>/logs/<execution_id>")
@routes.get("/dpe/v3/workflow/<id>/logs/<execution_id>")
@needs("dpe:job:read")
def logs(id: str, execution_id: str) -> Response:
    """The log of a run."""
    with resources().pool.connection() as conn:
        run = find(conn, execution_id)
        if run.action_id != id:
            raise NotFound(f"execution {execution_id} of workflow {id} not found")
        return log_answer(conn, run)


def _find(conn: psycopg.Connection, id: str) -> Workflow:
    workflow = workflows.get(conn, id)
    if workflow is None:
        raise _unknown(id)
    return workflow


def _unknown(id: str) -> NotFound:
    return NotFound(f"workflow {id} not found", "GET /dpe/v3/workflows lists those there are")
