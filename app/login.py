"""Sessions: log in with an API key, look at the session, log out."""

import time
from typing import Any
from urllib.parse import parse_qsl

from flask import Blueprint, Response, request

from app import body
from app.answers import json_answer
from app.auth import ANY_SESSION, address, needs, open_to_all, session, token, token_secret
from app.resources import resources
from worker.errors import Invalid, Unauthenticated
from worker.store import access
from worker.store.access import Session

routes = Blueprint("login", __name__)


@routes.post("/iam/login")
@routes.post("/iam/v4/login")
@open_to_all
def login() -> Response:
    """Open a session with an API key and its secret, sent as JSON or as a form."""
    fields = _fields()
    mode = body.string(fields, "auth_mode")
    if mode != "apikey":
        raise Invalid(f'"auth_mode" must be "apikey", got {mode!r}')
    apikey, secretkey = body.string(fields, "apikey"), body.string(fields, "secretkey")
    held, caller = resources(), address()
    held.failures.check(caller)
    with held.pool.connection() as conn:
        opened = access.open_session(conn, apikey, secretkey, held.settings.token_lifetime_s)
    if opened is None:
        held.failures.note(caller)
        raise Unauthenticated(
            "wrong API key or secret",
            "it may be revoked or expired as well: `dpe key list`, `dpe key create`",
        )
    return json_answer(_session_json(opened, held.tokens.seal(opened.secret)))


@routes.get("/iam/v4/checkSession")
@routes.get("/iam/checkSession")
@needs(ANY_SESSION)
def check_session() -> Response:
    """The session of the token that came."""
    return json_answer(_session_json(session(), token()))


@routes.route("/iam/logout", methods=["DELETE", "POST"])
@routes.route("/iam/v4/logout", methods=["DELETE", "POST"])
@needs(ANY_SESSION)
def logout() -> Response:
    """End the session: its token is good for nothing from now on."""
    began = time.perf_counter()
    with resources().pool.connection() as conn:
        access.close_session(conn, token_secret())
    return json_answer(
        {"success": True, "status": 200, "duration": round(time.perf_counter() - began, 6)}
    )


def _session_json(opened: Session, token: str) -> dict[str, Any]:
    """What old clients read, and below it what the engine knows of a session."""
    return {
        "uid": str(opened.key_id),
        "user": opened.name,
        "firstname": opened.name,
        "lastname": "",
        "civility": "",
        "login": opened.name,
        "password_renew": False,
        "password_expiration": opened.key_expires_at,
        "token": token,
        "apikey": opened.apikey,
        "role": opened.role,
        "permissions": opened.permissions,
        "expires_at": opened.expires_at,
    }


def _fields() -> dict[str, Any]:
    request.max_content_length = body.MAX_OBJECT_BYTES
    if request.mimetype == "multipart/form-data":
        return request.form.to_dict()
    # Judged by what it looks like: curl calls JSON a form unless it is told otherwise.
    text = body.received().lstrip()
    if not text or text.startswith((b"{", b"[", b"\xef\xbb\xbf")):
        return body.json_object()
    return dict(parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True))
