"""Puts the document together, and serves it."""

import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any, cast

from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from app.answers import encode
from app.auth import ANY_SESSION, NOBODY, open_to_all
from app.openapi.access import ACCESS
from app.openapi.operations import EXECUTION_ID, OPERATIONS, Operation
from app.openapi.schemas import SCHEMAS
from app.openapi.words import ref

routes = Blueprint("openapi", __name__)

ALL = OPERATIONS | ACCESS

ERRORS = {
    400: "the request is not valid: the text names the place",
    401: "no token, or one that is good for nothing (any more)",
    403: "the session's role lacks the permission",
    404: "nothing of that id or name",
    405: "a route of other methods",
    409: "what is asked contradicts what stands",
    413: "the body is too large",
    414: "the address is too long",
    415: "the body's encoding is not taken",
    422: "what came is JSON, and can't be taken",
    431: "the headers are too long",
    429: "too much at once; Retry-After says when to try again",
    503: "Postgres does not answer, or is not migrated; Retry-After says when to try again",
}
EXAMPLES = {
    "id": "5eaf0db7f6f51d5255974217",
    "execution_id": EXECUTION_ID,
    "dataset": "data_prim",
    "name": "event_archive",
}
ABOUT = """One HTTP call with rows starts a Python action; its rows stand in Postgres, exactly once.

Every route but the logins, `/health`, `/ready` and this document needs a token, as `Authorization:
Bearer TOKEN` or as `?token=TOKEN`; `POST /iam/login` gives one. `action`, `job` and `workflow` are
the same routes as `actions`, `jobs` and `workflows`. Parameters that a route does not know are
ignored."""


@routes.get("/openapi.json")
@open_to_all
def openapi() -> Response:
    """This document."""
    return Response(_encoded(), mimetype="application/json")


@cache
def _encoded() -> bytes:
    return encode(document(current_app))


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of all routes.  Raises KeyError naming one that is not described."""
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        view = app.view_functions[rule.endpoint]
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            described = _operation(rule, method, view, ALL[rule.endpoint])
            paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "open-dpe",
            "version": version("open-dpe"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "token": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _operation(
    rule: Rule, method: str, view: Callable[..., Any], known: Operation
) -> dict[str, Any]:
    needed = cast("str", getattr(view, "needs", NOBODY))
    first_line = (view.__doc__ or "").strip().splitlines()[0]
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}_{rule.rule}").strip("_"),
        "summary": first_line.rstrip("."),
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": [*_of_path(rule), *known.parameters],
        "responses": _responses(rule, known, needed),
        "security": [] if needed == NOBODY else [{"bearer": []}, {"token": []}],
    }
    if needed not in {NOBODY, ANY_SESSION}:
        described["description"] = f"Permission `{needed}`."
    if known.body is not None:
        described["requestBody"] = _request_body(known)
    return described


def _of_path(rule: Rule) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "example": EXAMPLES.get(name, name),
        }
        for name in sorted(rule.arguments)
    ]


def _request_body(known: Operation) -> dict[str, Any]:
    kind = {"schema": known.body, "example": known.example}
    if known.multipart:
        content = {"multipart/form-data": {"schema": known.body, "example": known.example}}
        return {"required": True, "content": content}
    types = ["application/json"]
    if known.form:
        types.append("application/x-www-form-urlencoded")
    return {"required": not known.body_optional, "content": dict.fromkeys(types, kind)}


def _responses(rule: Rule, known: Operation, needed: str) -> dict[str, Any]:
    types = (["application/json"] if known.json else []) + list(known.other_types)
    found: dict[str, Any] = {}
    for status, schema in known.answers.items():
        content = {
            kind: {"schema": schema if kind == "application/json" else {"type": "string"}}
            for kind in types
        }
        headers = {
            name: {"schema": {"type": "string"}, "description": meaning}
            for name, meaning in known.headers.items()
        }
        found[str(status)] = {"description": _meaning(status), "content": content} | (
            {"headers": headers} if headers else {}
        )
    for status in _errors(rule, known, needed):
        found.setdefault(
            str(status),
            {
                "description": ERRORS[status],
                "content": {
                    kind: {"schema": ref("Problem")}
                    for kind in ("application/json", "application/problem+json")
                },
            },
        )
    return found


def _errors(rule: Rule, known: Operation, needed: str) -> list[int]:
    errors = {400, 414, 431, *known.errors}
    if needed != NOBODY:
        errors |= {401, 503}
    if needed not in {NOBODY, ANY_SESSION}:
        errors.add(403)
    if rule.arguments:
        errors.add(404)
    if known.body is not None:
        errors |= {413, 415, 503}
    return sorted(errors)


def _meaning(status: int) -> str:
    return {200: "what was asked for", 201: "it was made", 202: "it goes on"}.get(
        status, ERRORS.get(status, "")
    )
