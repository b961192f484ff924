"""Workflows: their addresses are known and say that there are none yet."""

from flask import Blueprint, Response

from app.auth import needs
from worker.errors import NotFound

routes = Blueprint("workflows", __name__)

_HINT = "start an action: POST /dpe/v3/actions/{id}/start"


@routes.get("/dpe/v3/workflows")
@routes.get("/dpe/v3/workflow")
@routes.get("/dpe/v3/workflows/<path:id>")
@routes.get("/dpe/v3/workflow/<path:id>")
@needs("dpe:workflow:read")
def read(id: str | None = None) -> Response:
    """Any reading of workflows: an empty list would say that there could be some."""
    raise NotFound(_words(id), _HINT)


@routes.post("/dpe/v3/workflows/<id>/start")
@routes.post("/dpe/v3/workflow/<id>/start")
@needs("dpe:workflow:start")
def start(id: str) -> Response:
    """No workflow is known, so none is started."""
    raise NotFound(_words(id), _HINT)


@routes.delete("/dpe/v3/workflows/<id>/stop")
@routes.delete("/dpe/v3/workflow/<id>/stop")
@needs("dpe:job:stop")
def stop(id: str) -> Response:
    """No workflow is known, so none is stopped."""
    raise NotFound(_words(id), _HINT)


def _words(id: str | None) -> str:
    return "workflows are not available yet" + (f": workflow {id} not found" if id else "")
