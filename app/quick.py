"""Starts and polls in their plain form, answered without Flask: the calls that come all the time.

Flask and werkzeug take longer over one of them than all that it asks for.  What is not plain
(another parameter, a header of its own, a session that is not known yet) goes on to Flask, which
answers it or says what is wrong; and of every error Flask makes the answer.  So an answer is the
same on both ways: what is accepted, checked and shown is so by the same functions.
"""

import io
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flask import Flask

from app import body, browsers, jobs, resources, starts
from app.answers import Reply, encode
from app.auth import read_session
from app.query import LONGEST_WAIT_S
from worker.store.access import Session
from worker.store.jobs import Start
from worker.store.lookups import Lookup

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_START = re.compile("/dpe/v3/actions?/([0-9a-f]{24})/start")
_POLL = re.compile("/dpe/v3/jobs?/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")
_TYPE = re.compile("[a-z0-9.+*/-]*(?:; ?charset=utf-?8)?", re.IGNORECASE)
_LENGTH = re.compile("[0-9]{1,12}")
_WAIT = re.compile("[0-9]{1,2}")
_PARAMETERS = {"token", "app_id", "type", "wait"}
_LONGEST_QUERY = 500  # with a token in it, it has about 200
_NOT_PLAIN = (
    "HTTP_IDEMPOTENCY_KEY",
    "HTTP_CONTENT_ENCODING",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_ORIGIN",
)
_STATUS = {200: "200 OK", starts.ACCEPTED: "202 ACCEPTED"}
_BEARER = "Bearer "


class Quick:
    """The middleware: `app.wsgi_app = Quick(app)`, when everything else is registered."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._flask = app.wsgi_app
        self._held = resources.of(app)
        always = browsers.guards(self._held.settings)
        self._headers = [("Content-Type", "application/json"), *always.items()]

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        try:
            if method == "POST":
                reply = self._start(environ)
            else:
                reply = self._poll(environ) if method == "GET" else None
            sent = b"" if reply is None else encode(reply[0])
        except Exception as error:
            return self._refuse(environ, start_response, error)
        if reply is None:
            return self._flask(environ, start_response)
        _, status, headers = reply
        start_response(
            _STATUS[status],
            [*headers.items(), ("Content-Length", str(len(sent))), *self._headers],
        )
        return [sent]

    def _start(self, environ: "WSGIEnvironment") -> Reply | None:
        """Accept a start; None: Flask is to."""
        path = _START.fullmatch(environ["PATH_INFO"])
        caller = path and self._caller(environ, starts.PERMISSION)
        if path is None or caller is None:
            return None
        id = path[1]
        token, session, wait_s = caller
        if not session.may_touch(id):
            return None
        sent = self._body(environ)
        if sent is None:
            return None
        waiter = self._held.waits.channel if wait_s else None
        start = Start(id, body.event_of(sent), "api", session.key_id, session.id, waiter=waiter)
        # From here on it may be stored, whatever is raised: it must not be tried again.
        found = starts.accept_without_key(self._held, session, start)
        if found is None:
            read_session(self._held, token)  # it may have ended since it was read
            raise starts.unknown(id)
        return starts.outcome(self._held, *found, wait_s)

    def _poll(self, environ: "WSGIEnvironment") -> Reply | None:
        """Look a job up; None: Flask is to, and says so where there is none."""
        path = _POLL.fullmatch(environ["PATH_INFO"])
        caller = path and self._caller(environ, jobs.READ)
        if path is None or caller is None:
            return None
        _, session, wait_s = caller
        if wait_s:
            return None
        job = self._held.lookups.ask(Lookup(UUID(path[1]), session.id))
        return job and jobs.shown(self._held, job)

    def _caller(
        self, environ: "WSGIEnvironment", permission: str
    ) -> tuple[str, Session, float] | None:
        """Who calls (token and session), and the seconds to wait; None: Flask is to find out."""
        if not environ.keys().isdisjoint(_NOT_PLAIN):
            return None
        query = environ.get("QUERY_STRING", "")
        asked = _asked(query) if len(query) <= _LONGEST_QUERY else None
        if asked is None:
            return None
        token, wait_s = asked
        header = environ.get("HTTP_AUTHORIZATION")
        if header is not None:
            if not header.startswith(_BEARER):
                return None
            token = header[len(_BEARER) :]
        session = self._held.sessions.get(token)
        if session is None or session.networks is not None or not session.may(permission):
            return None
        return token, session, wait_s

    def _body(self, environ: "WSGIEnvironment") -> bytes | None:
        """The bytes of a body that says its length and has it; None: Flask is to read it."""
        length = environ.get("CONTENT_LENGTH", "")
        if not _LENGTH.fullmatch(length) or not _TYPE.fullmatch(environ.get("CONTENT_TYPE", "")):
            return None
        size = int(length)
        if size > self._held.settings.max_body_bytes:
            return None
        sent = environ["wsgi.input"].read(size)
        if len(sent) != size:
            environ["wsgi.input"] = io.BytesIO(sent)
            return None
        return sent

    def _refuse(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", error: Exception
    ) -> Iterable[bytes]:
        """Flask's answer to an error, as if one of its views had raised it."""
        with self._app.request_context(environ):
            made: Any = self._app.handle_user_exception(error)
            answer = self._app.process_response(self._app.make_response(made))
            return answer(environ, start_response)


@lru_cache(maxsize=1024)  # a caller's query is the same from call to call
def _asked(query: str) -> tuple[str, float] | None:
    """The token and the seconds to wait of a plain query; None: it is not plain."""
    given: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _PARAMETERS or name in given:
            return None
        given[name] = value
    token, wait = given.get("token", ""), given.get("wait", "0")
    if "%" in token or "+" in token or not _WAIT.fullmatch(wait) or int(wait) > LONGEST_WAIT_S:
        return None
    return token, float(wait)
