"""How records look in JSON, for every route alike."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response
from flask.json.provider import JSONProvider
from werkzeug.datastructures import Headers

from worker.store.actions import Action
from worker.store.jobs import Accepted, Job
from worker.store.priorities import PRIORITIES
from worker.store.workflow_status import StepStatus
from worker.store.workflows import Workflow

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# An answer before it is a Response: what becomes JSON, the status, and the headers of its own.
Reply = tuple[Any, int, dict[str, str]]

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class Orjson(JSONProvider):
    """Flask's JSON by orjson; times are UTC and end in Z."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return encode(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return json_answer(self._prepare_response_obj(args, kwargs))


def encode(value: Any) -> bytes:
    """JSON as UTF-8 bytes."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        # A result may hold whole numbers beyond 64 bits: jsonb keeps them, orjson does not.
        return json.dumps(value, default=_text).encode()


class Ready(Response):
    """An answer with headers as they are sent: its length is known, its Location has ASCII alone.

    Werkzeug looks for both in each answer anew, which takes as long as to find the route.
    """

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        return self.headers


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer whose body is the value in JSON."""
    return Ready(encode(value), status, headers, content_type="application/json")


def job_url(execution_id: object) -> str:
    """Where a job is looked at, as an absolute path."""
    return f"/dpe/v3/jobs/{execution_id}"


def accepted_json(job: Accepted, status: str, type: str = "action") -> dict[str, Any]:
    """What a start answers, while the job has not ended."""
    return {
        "id": job.action_id,
        "execution_id": job.execution_id,
        "status": status,
        "timestamp": job.submitted_at,
        "type": type,
        "name": job.name,
        "version": job.version,
        "execution": {"id": job.execution_id, "status": status, "progress": 0},
        "url": job_url(job.execution_id),
    }


def job_json(job: Job) -> dict[str, Any]:
    """One job, with all that is known of it but its event and its log."""
    duration = (
        (job.ended_at - job.started_at).total_seconds() if job.ended_at and job.started_at else None
    )
    url = job_url(job.execution_id)
    return {
        "id": job.action_id,
        "execution_id": job.execution_id,
        "type": "action" if job.progress is None else "workflow",
        "name": job.name,
        "version": job.version,
        "status": job.status,
        "execution": {
            "id": job.execution_id,
            "status": job.status,
            # A handler says nothing on its way: done, or not done.
            "progress": (100 if job.status == "SUCCESS" else 0)
            if job.progress is None
            else job.progress,
        },
        "attempt": job.attempt,
        "losses": job.losses,
        "event_type": job.event_type,
        "priority": PRIORITIES[job.priority],
        "timestamp": job.submitted_at,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "duration": duration,
        "error": job.error,
        "result": job.result,
        "stats": job.stats,
        "retry_of": job.retry_of,
        "run_id": job.run_id,
        "step": job.step,
        "url": url,
        "log_url": f"{url}/logs",
    }


def action_json(action: Action) -> dict[str, Any]:
    """One action at its newest version; `_id` is what old clients read."""
    return {
        "_id": action.id,
        "id": action.id,
        "name": action.name,
        "version": action.version,
        "function_name": action.function,
        "timeout_s": action.timeout_s,
        "config": action.config,
        "files": action.files,
        "created_at": action.created_at,
        "updated_at": action.updated_at,
    }


def workflow_json(workflow: Workflow) -> dict[str, Any]:
    """One workflow at its newest version; `_id` is what old clients read."""
    return {
        "_id": workflow.id,
        "id": workflow.id,
        "name": workflow.name,
        "version": workflow.version,
        "stages": workflow.definition["stages"],
        "definition": workflow.definition,
        "created_at": workflow.created_at,
        "updated_at": workflow.updated_at,
    }


def step_json(step: StepStatus) -> dict[str, Any]:
    """One step of a run, with its executions: one, or with for_each several."""
    return {
        "step": step.name,
        "stage": step.stage,
        "type": step.type,
        "id": step.id,
        "name": step.title,
        "needs": step.needs,
        "status": step.status,
        "skipped": step.skipped,
        "error": step.error,
        "executions": [
            {
                "execution_id": one.execution_id,
                "status": one.status,
                "item": one.item,
                "started_at": one.started_at,
                "ended_at": one.ended_at,
                "kept": one.kept,
                "url": job_url(one.execution_id),
            }
            for one in step.executions
        ],
    }


def iso(at: datetime) -> str:
    """An instant as the lines of a log write it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _text(value: Any) -> str:
    return iso(value) if isinstance(value, datetime) else str(value)
