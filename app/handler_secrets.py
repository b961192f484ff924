"""Secrets of handlers: set, list, remove.  No answer ever holds a value."""

from dataclasses import asdict

from flask import Blueprint, Response

from app import body
from app.answers import json_answer
from app.auth import needs
from app.resources import resources
from worker import masking, sealing, secret_params
from worker.errors import Invalid, NotFound
from worker.store import handler_secrets

routes = Blueprint("secrets", __name__)


@routes.put("/dpe/v3/secrets/<name>")
@needs("dpe:secret:write")
def put(name: str) -> Response:
    """Set a secret: the next job that needs it is given this value."""
    handler_secrets.check_name(name)
    value = body.string(body.json_object(), "value")
    if len(value) < masking.SHORTEST or "\0" in value:
        raise Invalid(
            f'"value" must have {masking.SHORTEST} characters or more, and no NUL',
            "a shorter one could not be hidden in logs",
        )
    sealed = sealing.seal(resources().settings, secret_params.whose(name), value)
    with resources().pool.connection() as conn:
        return json_answer(asdict(handler_secrets.put(conn, name, sealed)))


@routes.get("/dpe/v3/secrets")
@needs("dpe:secret:read")
def list_secrets() -> Response:
    """The names of all secrets, and when they were set."""
    with resources().pool.connection() as conn:
        return json_answer([asdict(found) for found in handler_secrets.list_secrets(conn)])


@routes.delete("/dpe/v3/secrets/<name>")
@needs("dpe:secret:write")
def delete(name: str) -> Response:
    """Remove a secret: jobs that need it fail from now on."""
    handler_secrets.check_name(name)
    with resources().pool.connection() as conn:
        if not handler_secrets.delete(conn, name):
            raise NotFound(f"secret {name} not found", "`dpe secret list` lists those there are")
    return json_answer({"name": name, "deleted": True})
