"""Starts and polls in their plain form, answered without Flask: the calls that come all the time.

They are answered on the event loop, where a call that waits for its commit holds no thread; threads
that wait for their turn and are woken take as long as all else that a start asks for.  What is not
plain (another parameter, a header of its own, a session that is not known yet) goes on to Flask,
which answers it or says what is wrong; and of every error Flask makes the answer.  So an answer is
the same on both ways: what is accepted, checked and shown is so by the same functions.  Nothing
here may block: Postgres and the broker are awaited, or asked in a thread.
"""

import asyncio
import multiprocessing
import os
import re
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope

from app import body, browsers, jobs, resources, starts
from app.answers import Reply, encode
from app.auth import read_session
from app.bridge import Bridge
from app.lookups import Found
from app.query import LONGEST_WAIT_S
from worker.store.access import Session
from worker.store.jobs import Start
from worker.store.lookups import Lookup

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PARENT_INTERVAL_S = 1.0
ORPHAN_GRACE_S = 2  # for requests under way when granian's main process was killed

_START = re.compile("/dpe/v3/actions?/([0-9a-f]{24})/start")
_POLL = re.compile("/dpe/v3/jobs?/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")
_TYPE = re.compile("[a-z0-9.+*/-]*(?:; ?charset=utf-?8)?", re.IGNORECASE)
_LENGTH = re.compile("[0-9]{1,12}")
_WAIT = re.compile("[0-9]{1,2}")
_PARAMETERS = {"token", "app_id", "type", "wait"}
_LONGEST_QUERY = 500  # with a token in it, it has about 200
_NOT_PLAIN = ("idempotency-key", "content-encoding", "transfer-encoding", "origin")
_BEARER = "Bearer "
# To look whether it is JSON takes about a millisecond, in which nobody else is answered.
_MAX_BODY_BYTES = 262_144


class Quick:
    """The application that granian serves: the quick way, and Flask for all else."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._flask = app.wsgi_app
        self._held = resources.of(app)
        self._bridge = Bridge(self._held.settings.api_threads)
        always = browsers.guards(self._held.settings)
        self._headers = [("content-type", "application/json"), *always.items()]
        self._max_bytes = min(_MAX_BODY_BYTES, self._held.settings.max_body_bytes)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by granian before the first call."""
        loop.set_default_executor(ThreadPoolExecutor(self._held.settings.api_threads))
        # Those that wait for a job answer before the end.  Granian's handler of SIGINT does what
        # it did for SIGTERM before this.
        loop.add_signal_handler(signal.SIGTERM, self._end)
        # Not os.getppid(): it may have been killed before this process came here.
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid is not None:
            self._look_for_parent(loop, parent.pid)
        self._held.waits.listen()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one call."""
        method = scope.method
        try:
            if method == "POST":
                reply = await self._start(scope, protocol)
            else:
                reply = await self._poll(scope) if method == "GET" else None
            sent = b"" if reply is None else encode(reply[0])
        except Exception as error:
            await self._bridge.answer(partial(self._refuse, error), scope, protocol)
            return
        if reply is None:
            await self._bridge.answer(self._flask, scope, protocol)
            return
        _, status, headers = reply
        protocol.response_bytes(status, [*headers.items(), *self._headers], sent)

    async def _start(self, scope: Scope, protocol: HTTPProtocol) -> Reply | None:
        """Accept a start; None: Flask is to."""
        path = _START.fullmatch(scope.path)
        caller = path and self._caller(scope, starts.PERMISSION)
        if path is None or caller is None:
            return None
        id, held = path[1], self._held
        token, session, wait_s = caller
        if not session.may_touch(id) or not self._is_plain_body(scope):
            return None
        event = body.event_of(await _received(protocol))
        waiter = held.waits.channel if wait_s else None
        start = Start(id, event, "api", session.key_id, session.id, waiter=waiter)
        if held.limits.asks(session):
            await asyncio.to_thread(held.limits.check, session)
        else:
            held.limits.check(session)
        # From here on it may be stored, whatever is raised: it must not be tried again.
        accepted = await held.intake.accept(start)
        accepted = accepted or await asyncio.to_thread(starts.accept_alone, held, start)
        if accepted is None:
            # It may have ended since it was read.
            await asyncio.to_thread(read_session, held, token)
            raise starts.unknown(id)
        job = None
        if wait_s:
            job = await held.waits.ended(start.execution_id, wait_s, told=True)
            if job is None:
                again = await held.lookups.find(Lookup(start.execution_id, session.id))
                job = again and again.job
        return starts.outcome(*accepted, job)

    async def _poll(self, scope: Scope) -> Reply | None:
        """Look a job up; None: Flask is to, and says so where there is none."""
        path = _POLL.fullmatch(scope.path)
        caller = path and self._caller(scope, jobs.READ)
        if path is None or caller is None:
            return None
        _, session, wait_s = caller
        lookup = Lookup(path[1], session.id)
        found = await self._held.lookups.find(lookup)
        if found is not None and wait_s and not found.job.ended:
            ended = await self._held.waits.ended(found.job.execution_id, wait_s)
            found = Found(ended) if ended else await self._held.lookups.find(lookup)
        if found is None:
            return None
        if found.job.progress is None:
            return jobs.shown(self._held, found.job, wait_s, found.json)
        # Its steps are asked for.
        return await asyncio.to_thread(jobs.shown, self._held, found.job, wait_s)

    def _caller(self, scope: Scope, permission: str) -> tuple[str, Session, float] | None:
        """Who calls (token and session), and the seconds to wait; None: Flask is to find out."""
        headers, query = scope.headers, scope.query_string
        asked = _asked(query) if len(query) <= _LONGEST_QUERY else None
        if asked is None or any(name in headers for name in _NOT_PLAIN):
            return None
        token, wait_s = asked
        header = headers.get("authorization")
        if header is not None:
            if not header.startswith(_BEARER):
                return None
            token = header[len(_BEARER) :]
        session = self._held.sessions.get(token)
        if session is None or session.networks is not None or not session.may(permission):
            return None
        return token, session, wait_s

    def _is_plain_body(self, scope: Scope) -> bool:
        """Whether it says its length, which is not much, and is of a type that needs no look."""
        length = scope.headers.get("content-length", "")
        return (
            _LENGTH.fullmatch(length) is not None
            and int(length) <= self._max_bytes
            and _TYPE.fullmatch(scope.headers.get("content-type", "")) is not None
        )

    def _refuse(
        self, error: Exception, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Flask's answer to an error, as if one of its views had raised it."""
        with self._app.request_context(environ):
            made: Any = self._app.handle_user_exception(error)
            answer = self._app.process_response(self._app.make_response(made))
            return answer(environ, start_response)

    def _look_for_parent(self, loop: asyncio.AbstractEventLoop, parent: int) -> None:
        """End when granian's main process was killed: who takes its place needs the address.

        This process has the sockets of all others as well, and callers would be left waiting there.
        """
        if os.getppid() != parent:
            signal.alarm(ORPHAN_GRACE_S)
            self._end()
        else:
            loop.call_later(PARENT_INTERVAL_S, self._look_for_parent, loop, parent)

    def _end(self) -> None:
        self._held.waits.close()
        os.kill(os.getpid(), signal.SIGINT)


async def _received(protocol: HTTPProtocol) -> bytes:
    """The body; raises Invalid where it breaks off."""
    try:
        return await protocol()
    except ProtocolClosed:
        raise body.broken_off() from None


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
