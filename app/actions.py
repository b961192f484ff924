"""Actions: list, look at, push, pull, go back to an earlier version, delete."""

import binascii
from base64 import b64decode, b64encode
from dataclasses import asdict

import psycopg
from flask import Blueprint, Response, request

from app import body, query
from app.answers import action_json, json_answer
from app.auth import needs
from app.resources import resources
from worker.errors import Invalid, NotFound
from worker.store import action_versions, actions
from worker.store.actions import Action

routes = Blueprint("actions", __name__)

MAX_PUSH_BYTES = 50_000_000  # of all files of an action, in base64
CREATED = 201
HIGHEST_VERSION = 2**31 - 1


@routes.get("/dpe/v3/actions")
@routes.get("/dpe/v3/action")
@needs("dpe:action:read")
def list_actions() -> Response:
    """All actions, oldest first."""
    with resources().pool.connection() as conn:
        found = actions.list_actions(conn)
    return json_answer([action_json(action) for action in found])


@routes.get("/dpe/v3/actions/<id>")
@routes.get("/dpe/v3/action/<id>")
@needs("dpe:action:read")
def one(id: str) -> Response:
    """One action, by its id or its name."""
    with resources().pool.connection() as conn:
        return json_answer(action_json(_find(conn, id)))


@routes.post("/dpe/v3/actions")
@routes.post("/dpe/v3/action")
@needs("dpe:action:write")
def push_new() -> Response:
    """Store files as a new action, with an id of its own."""
    action = _push(None)
    return json_answer(action_json(action), CREATED, {"Location": f"/dpe/v3/actions/{action.id}"})


@routes.put("/dpe/v3/actions/<id>")
@routes.put("/dpe/v3/action/<id>")
@needs("dpe:action:write")
def push(id: str) -> Response:
    """Store files as the newest version of this action, which need not be known yet."""
    return json_answer(action_json(_push(id)))


@routes.get("/dpe/v3/actions/<id>/files")
@routes.get("/dpe/v3/action/<id>/files")
@needs("dpe:action:read")
def pull(id: str) -> Response:
    """The files of the version that starts run, or of `?version=`, byte for byte."""
    with resources().pool.connection() as conn:
        action = _find(conn, id)
        version = query.count("version", action.version, HIGHEST_VERSION)
        source = actions.source(conn, action.id, version)
    if source is None:
        raise NotFound(f"version {version} of action {id} not found")
    return json_answer(
        {
            "id": action.id,
            "name": source.name,
            "version": version,
            "files": {path: b64encode(content).decode() for path, content in source.files.items()},
        }
    )


@routes.get("/dpe/v3/actions/<id>/versions")
@routes.get("/dpe/v3/action/<id>/versions")
@needs("dpe:action:read")
def versions(id: str) -> Response:
    """All versions, newest first."""
    with resources().pool.connection() as conn:
        found = action_versions.list_versions(conn, _find(conn, id).id)
    return json_answer([asdict(version) for version in found])


@routes.post("/dpe/v3/actions/<id>/rollback")
@routes.post("/dpe/v3/action/<id>/rollback")
@needs("dpe:action:write")
def roll_back(id: str) -> Response:
    """Let starts run the version before the current one again, or `?version=`."""
    version = None
    if "version" in request.args:
        version = query.count("version", 1, HIGHEST_VERSION)
    with resources().pool.connection() as conn:
        action = action_versions.roll_back(conn, _find(conn, id).id, version)
    return json_answer(action_json(action))


@routes.delete("/dpe/v3/actions/<id>")
@routes.delete("/dpe/v3/action/<id>")
@needs("dpe:action:write")
def delete(id: str) -> Response:
    """Take an action out of service; jobs accepted before still run."""
    with resources().pool.connection() as conn:
        action = _find(conn, id)
        actions.delete(conn, action.id)
    return json_answer({"id": action.id, "name": action.name, "deleted": True})


def _find(conn: psycopg.Connection, id: str) -> Action:
    action = actions.get(conn, id)
    if action is None:
        raise NotFound(f"action {id} not found", "GET /dpe/v3/actions lists those there are")
    return action


def _push(id: str | None) -> Action:
    sent = body.json_object(MAX_PUSH_BYTES).get("files")
    if not isinstance(sent, dict):
        raise Invalid('"files" must be an object: {"main.py": "<base64>", …}')
    files = {path: _decoded(path, text) for path, text in sent.items()}
    with resources().pool.connection() as conn:
        return actions.push(conn, id, files)


def _decoded(path: str, text: object) -> bytes:
    try:
        if isinstance(text, str):
            return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Invalid(f'"files": the content of {path!r} must be base64')
