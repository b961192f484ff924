"""Settings of jobs: the installation's defaults, and what holds for an action or a workflow."""

from flask import Blueprint, Response

from app import body
from app.answers import json_answer
from app.auth import needs
from app.resources import resources
from worker.errors import NotFound
from worker.store import actions, job_settings, shown_settings, workflows

routes = Blueprint("job_settings", __name__)


@routes.get("/dpe/v3/settings")
@needs("dpe:setting:read")
def of_environment() -> Response:
    """What holds where an action or a workflow says nothing."""
    with resources().pool.connection() as conn:
        found = shown_settings.of_environment(conn)
    return json_answer(shown_settings.as_json(found))


@routes.put("/dpe/v3/settings")
@needs("dpe:setting:write")
def set_defaults() -> Response:
    """Set defaults, by their names; those that are left out are built in again."""
    given = body.json_object()
    with resources().pool.connection() as conn:
        before = dict.fromkeys(job_settings.read_defaults(conn), ...)
        job_settings.set_defaults(conn, {**before, **given})
        found = shown_settings.of_environment(conn)
    return json_answer(shown_settings.as_json(found))


@routes.get("/dpe/v3/actions/<id>/settings")
@routes.get("/dpe/v3/action/<id>/settings")
@needs("dpe:action:read")
def of_action(id: str) -> Response:
    """What holds for an action's jobs, and which level says so."""
    with resources().pool.connection() as conn:
        action = actions.get(conn, id)
        if action is None:
            raise NotFound(f"action {id} not found", "GET /dpe/v3/actions lists those there are")
        found = shown_settings.of_action(conn, action)
    return json_answer(shown_settings.as_json(found))


@routes.get("/dpe/v3/workflows/<id>/settings")
@routes.get("/dpe/v3/workflow/<id>/settings")
@needs("dpe:workflow:read")
def of_workflow(id: str) -> Response:
    """What holds for a workflow's runs and for each of its steps, and which level says so."""
    with resources().pool.connection() as conn:
        workflow = workflows.get(conn, id)
        if workflow is None:
            hint = "GET /dpe/v3/workflows lists those there are"
            raise NotFound(f"workflow {id} not found", hint)
        runs, steps = shown_settings.of_workflow(conn, workflow)
    shown = [
        {"step": one.step, "runs": one.runs, "settings": shown_settings.as_json(one.settings)}
        for one in steps
    ]
    return json_answer({"settings": shown_settings.as_json(runs), "steps": shown})
