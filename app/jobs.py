"""Looking at jobs, stopping them, and starting them again."""

import re
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg
from flask import Blueprint, Response, request
from orjson import Fragment

from app import query
from app.answers import Reply, job_json, job_url, json_answer, step_json
from app.auth import check_touch, needs, session
from app.job_log import log_answer
from app.resources import Resources, resources
from app.starts import ACCEPTED, POLL_AFTER_S, answer
from worker.errors import Conflict, Invalid, NotFound
from worker.store import actions, job_list, jobs, workflow_starts, workflow_status, workflows
from worker.store.job_list import Filter
from worker.store.jobs import FINAL, Job

routes = Blueprint("jobs", __name__)

READ = "dpe:job:read"
STATUSES = ("SUBMITTED", "QUEUED", "BUILDING", "PROCESSING", *FINAL)
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
ID_DIGITS, FEWEST_DIGITS = 32, 7
MAX_SEQ = 2**63 - 1


@routes.get("/dpe/v3/jobs")
@routes.get("/dpe/v3/job")
@needs(READ)
def list_jobs() -> Response:
    """Jobs in order of acceptance, a page at a time."""
    limit = query.count("limit", DEFAULT_LIMIT, MAX_LIMIT)
    newest_first = query.choice("order", "asc", ("asc", "desc")) == "desc"
    with resources().pool.connection() as conn:
        where = Filter(
            action_id=_action_id(conn),
            statuses=query.words("status", STATUSES),
            since=query.instant("since"),
            until=query.instant("until"),
            retry_of=query.uuid("retry_of"),
            run_id=query.uuid("run_id"),
            after=_after(conn),
        )
        # One more than asked for: it tells whether there is a next page.
        found = job_list.list_jobs(conn, where, newest_first=newest_first, limit=limit + 1)
    page = found[:limit]
    headers = {"Link": _next_link(page[-1].seq)} if len(found) > limit else {}
    return json_answer([job_json(job) for job in page], headers=headers)


@routes.get("/dpe/v3/jobs/<execution_id>")
@routes.get("/dpe/v3/job/<execution_id>")
@needs(READ)
def one(execution_id: str) -> Response:
    """One job; with `?wait=`, when it has ended."""
    wait_s = query.wait_s()
    job = _look_up(execution_id)
    if wait_s and not job.ended:
        ended = resources().waits.until_ended(job.execution_id, wait_s)
        job = ended or _look_up(str(job.execution_id))
    return json_answer(*shown(resources(), job, wait_s))


def shown(held: Resources, job: Job, waited_s: float = 0.0, json: Fragment | None = None) -> Reply:
    """How one job is shown to whoever asks for it; a run of a workflow with its steps.

    `json` is what `job_json` gives for it, where that is at hand.
    """
    value: Any = json or job_json(job)
    if job.progress is not None:
        with held.pool.connection() as conn:
            steps = workflow_status.steps_of(conn, job.execution_id)
        value["steps"] = [step_json(step) for step in steps]
    if job.ended:
        return value, 200, {}
    return value, ACCEPTED if waited_s else 200, {"Retry-After": POLL_AFTER_S}


def _look_up(execution_id: str) -> Job:
    with resources().pool.connection() as conn:
        return find(conn, execution_id)


@routes.get("/dpe/v3/jobs/<execution_id>/logs")
@routes.get("/dpe/v3/job/<execution_id>/logs")
@needs(READ)
def logs(execution_id: str) -> Response:
    """The log of one job."""
    with resources().pool.connection() as conn:
        return log_answer(conn, find(conn, execution_id))


@routes.get("/dpe/v3/actions/<id>/logs/<execution_id>")
@routes.get("/dpe/v3/action/<id>/logs/<execution_id>")
@needs(READ)
def logs_of_action(id: str, execution_id: str) -> Response:
    """The same log, under the address that the platform gives it."""
    with resources().pool.connection() as conn:
        job = find(conn, execution_id)
        if job.action_id != id:
            raise NotFound(f"execution {execution_id} of action {id} not found")
        return log_answer(conn, job)


@routes.post("/dpe/v3/jobs/<execution_id>/retry")
@routes.post("/dpe/v3/job/<execution_id>/retry")
@needs("dpe:job:retry")
def retry(execution_id: str) -> Response:
    """Start the event of an ended job again, with the action's newest version."""
    wait_s = query.wait_s()
    with resources().pool.connection() as conn:
        job = find(conn, execution_id)
        check_touch(job.action_id)
        resources().limits.check(session())
        if job.run_id is not None:
            raise Conflict(
                f"execution {job.execution_id} is a step of run {job.run_id}",
                f"retry that one: POST {job_url(job.run_id)}/retry goes on from what failed",
            )
        if job.progress is not None:
            return _retry_run(conn, job, wait_s)
        accepted = jobs.retry(conn, job.execution_id, session().key_id)
    if accepted is not None:
        status = resources().handover.publish([accepted])
        return answer(accepted, status if accepted.published_at else accepted.status, wait_s)
    if not job.ended:
        raise Conflict(f"execution {job.execution_id} is {job.status}: it has not ended yet")
    raise NotFound(f"action {job.action_id} not found: it was deleted", "push it again")


def _retry_run(conn: psycopg.Connection, job: Job, wait_s: float) -> Response:
    started = workflow_starts.retry(conn, job.execution_id, session().key_id, queued=True)
    if started is None:
        raise Conflict(f"execution {job.execution_id} is {job.status}: it has not ended yet")
    resources().handover.publish(started.messages)
    return answer(started.run, started.run.status, wait_s, "workflow")


@routes.route("/dpe/v3/jobs/<execution_id>/stop", methods=["DELETE", "POST"])
@routes.route("/dpe/v3/job/<execution_id>/stop", methods=["DELETE", "POST"])
@needs("dpe:job:stop")
def stop(execution_id: str) -> Response:
    """End one job as STOPPED; again is no error."""
    with resources().pool.connection() as conn:
        job = find(conn, execution_id)
        check_touch(job.action_id)
        jobs.stop(conn, job.execution_id, session().name)
        job = jobs.get(conn, job.execution_id) or job
    if job.status != "STOPPED":
        raise Conflict(f"execution {job.execution_id} has ended already: {job.status}")
    return json_answer(job_json(job))


@routes.route("/dpe/v3/actions/<id>/stop", methods=["DELETE", "POST"])
@routes.route("/dpe/v3/action/<id>/stop", methods=["DELETE", "POST"])
@needs("dpe:job:stop")
def stop_all(id: str) -> Response:
    """End every open job of an action as STOPPED."""
    check_touch(id)
    with resources().pool.connection() as conn:
        stopped = jobs.stop_all(conn, id, session().name)
        # Jobs of a deleted action can be stopped too.
        if not stopped and actions.get(conn, id) is None:
            raise NotFound(f"action {id} not found")
    return json_answer({"id": id, "stopped": stopped})


def find(conn: psycopg.Connection, id: str) -> Job:
    """The job of a whole execution id or of its first digits; raises NotFound, Conflict."""
    digits = id.replace("-", "").lower()
    if not re.fullmatch(f"[0-9a-f]{{{FEWEST_DIGITS},{ID_DIGITS}}}", digits):
        raise NotFound(
            f"execution {id} not found",
            f"it goes by its whole id, or by {FEWEST_DIGITS} or more of its first digits",
        )
    ids = [UUID(digits)] if len(digits) == ID_DIGITS else jobs.find(conn, digits)
    if len(ids) > 1:
        raise Conflict(
            f"several executions begin with {id}: {', '.join(map(str, ids))}", "give more digits"
        )
    job = jobs.get(conn, ids[0]) if ids else None
    if job is None:
        raise NotFound(f"execution {id} not found")
    return job


def _action_id(conn: psycopg.Connection) -> str | None:
    given = request.args.get("action") or request.args.get("id")
    if not given or re.fullmatch(r"[0-9a-f]{24}", given):
        return given or None
    found = actions.get(conn, given) or workflows.get(conn, given)
    if found is None:
        raise NotFound(f"action {given} not found")
    return found.id


def _after(conn: psycopg.Connection) -> int | None:
    """The place in the list that `?after=` names, by a number from a Link or by an execution."""
    given = request.args.get("after")
    if given is None:
        return None
    if re.fullmatch(r"[0-9]{1,19}", given):
        return min(int(given), MAX_SEQ)
    try:
        return find(conn, given).seq
    except NotFound:
        raise Invalid(
            f"after must be an execution id or what a Link header had, got {given!r}"
        ) from None


def _next_link(seq: int) -> str:
    # The token stays out: links end up in logs.
    kept: list[tuple[str, Any]] = [
        (name, value)
        for name, value in request.args.items(multi=True)
        if name not in {"token", "after"}
    ]
    return f'<{request.path}?{urlencode([*kept, ("after", seq)])}>; rel="next"'
