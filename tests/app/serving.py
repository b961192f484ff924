"""An application as granian serves it, in this process; and a test client's way to it over HTTP."""

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import uvloop
from flask import Flask
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from werkzeug.test import TestResponse

from app.quick import Quick
from tests.stack import until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHANGING = {"execution_id", "timestamp", "submitted_at", "started_at", "ended_at", "duration"}


class Ways:
    """A served application, and which way its calls go."""

    def __init__(self, app: Flask) -> None:
        self.quick = Quick(app)
        self.by_flask = 0  # calls
        self._flask = self.quick._flask
        self.quick._flask = self._counted
        self.port = free_port()
        self._thread = threading.Thread(target=self._run, name="serving")
        self._thread.start()
        until(self._accepts, every_s=0.002)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.quick._bridge._threads.shutdown()

    def both(self, call: Callable[[], TestResponse]) -> list[TestResponse]:
        """The same call by the quick way, and by Flask's."""
        self.by_flask = 0
        quick = call()
        assert self.by_flask == 0, quick.text
        vars(self.quick).update(_start=_nothing, _poll=_nothing)
        try:
            flask = call()
        finally:
            del self.quick._start, self.quick._poll
        assert self.by_flask > 0
        return [quick, flask]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, sent: bytes, *, half_closed: bool = False) -> bytes:
        """All that comes back until the server closes."""
        with self.connect() as s:
            s.sendall(sent)
            if half_closed:
                s.shutdown(socket.SHUT_WR)
            return received(s)

    def forward(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Send a call of werkzeug's test client over HTTP, and give it what comes back."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            _send(connection, environ)
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name != "date"]
            start_response(f"{answer.status} {answer.reason}", headers)
            return [answer.read()]
        finally:
            connection.close()

    def _counted(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        self.by_flask += 1
        return self._flask(environ, start_response)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = Server(
            # The method alone: of the whole, granian would call what handles signals.
            self.quick.__rsgi__,
            port=self.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backpressure=1000,
            log_enabled=False,
        )
        await self._server.serve()
        # Of this loop, which the application outlives here.
        held = self.quick._held
        for together in (held.intake._starts, held.lookups._lookups):
            if together._serving is not None:
                await together._serving
        await held.intake._conn.close()
        await held.lookups._conn.close()
        broker, held.handover._conn = held.handover._conn, None
        if broker is not None:
            await broker.disconnect()

    def _accepts(self) -> bool:
        with suppress(OSError):
            self.connect().close()
            return True
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def received(s: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while piece := s.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


async def _nothing(*_: Any) -> None:
    """The quick way leaves every call to Flask."""


def _send(connection: http.client.HTTPConnection, environ: "WSGIEnvironment") -> None:
    """The call as it stands in the environ, and nothing else."""
    connection.putrequest(
        environ["REQUEST_METHOD"], environ["RAW_URI"], skip_host=True, skip_accept_encoding=True
    )
    in_chunks = environ.get("HTTP_TRANSFER_ENCODING") == "chunked"
    if "CONTENT_LENGTH" in environ and not in_chunks:
        connection.putheader("Content-Length", environ["CONTENT_LENGTH"])
    if "CONTENT_TYPE" in environ:
        connection.putheader("Content-Type", environ["CONTENT_TYPE"])
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            connection.putheader(key.removeprefix("HTTP_").replace("_", "-"), value)
    body: bytes = environ["wsgi.input"].read()
    with suppress(ConnectionError):  # the answer came, and no more was taken
        connection.endheaders([body] if in_chunks else body or None, encode_chunked=in_chunks)


def fixed(value: Any) -> Any:
    """JSON without what differs from job to job."""
    if isinstance(value, dict):
        return {name: "…" if name in CHANGING else fixed(one) for name, one in value.items()}
    if isinstance(value, str):
        return "/".join("…" if is_uuid(part) else part for part in value.split("/"))
    return value


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def as_seen(answer: TestResponse) -> tuple[str, dict[str, str], list[str], Any]:
    """All that a caller sees; a length that hangs on the times' digits is checked by itself."""
    headers = {name: fixed(value) for name, value in answer.headers}
    assert len(headers) == len(list(answer.headers))
    assert int(headers.pop("content-length")) == len(answer.data)
    found: Any = answer.json
    return answer.status, headers, list(found), fixed(found)


def count(conn: psycopg.Connection) -> int:
    """Of jobs that are stored."""
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


@contextmanager
def locked(url: str, mode: str) -> Iterator[None]:
    """Nobody writes a job any more (SHARE), or reads one (ACCESS EXCLUSIVE)."""
    with psycopg.connect(url) as lock:
        lock.execute(f"LOCK TABLE dpe.jobs IN {mode} MODE".encode())
        yield
        lock.rollback()
