"""API keys: make, list, revoke."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response

from app import body
from app.answers import json_answer
from app.auth import needs
from app.resources import resources
from worker.errors import Invalid, NotFound
from worker.store import access

routes = Blueprint("keys", __name__)

CREATED = 201


@routes.post("/iam/v4/keys")
@needs("iam:key:write")
def create() -> Response:
    """Make an API key; its secret is in this answer and nowhere else."""
    fields = body.json_object()
    name = body.string(fields, "name")
    role = body.string(fields, "role", access.DEFAULT_ROLE)
    lifetime_s = fields.get("lifetime_s", access.KEY_LIFETIME_S)
    if not isinstance(lifetime_s, int | float) or isinstance(lifetime_s, bool):
        raise Invalid(f'"lifetime_s" must be a number of seconds, got {lifetime_s!r}')
    with resources().pool.connection() as conn:
        key = access.create_key(conn, name, role, float(lifetime_s), _bounds(fields))
    return json_answer(asdict(key), CREATED)


def _bounds(fields: dict[str, Any]) -> access.Bounds:
    rate = fields.get("starts_per_s")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise Invalid(f'"starts_per_s" must be a number, got {rate!r}')
    return access.Bounds(rate, _texts(fields, "only_ids"), _texts(fields, "networks"))


def _texts(fields: dict[str, Any], name: str) -> list[str] | None:
    given = fields.get(name)
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise Invalid(f'"{name}" must be a list of texts, and not empty')
    return given


@routes.get("/iam/v4/keys")
@needs("iam:key:read")
def list_keys() -> Response:
    """All keys without their secrets, oldest first."""
    with resources().pool.connection() as conn:
        return json_answer([asdict(key) for key in access.list_keys(conn)])


@routes.delete("/iam/v4/keys/<apikey>")
@needs("iam:key:write")
def revoke(apikey: str) -> Response:
    """End a key and its sessions; again is no error."""
    with resources().pool.connection() as conn:
        key = access.revoke_key(conn, apikey)
    if key is None:
        raise NotFound(f"API key {apikey} not found")
    return json_answer(asdict(key))
