"""Flask behind granian's RSGI: each call in a thread of a pool, as behind any WSGI server.

RSGI (https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md) leaves the calls
that are answered without Flask on the event loop (`app.quick`).  WSGI is PEP 3333.
"""

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian._granian import RSGIProtocolError as ProtocolError
from granian.rsgi import Scope

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

OPENED_S = 30.0  # within which the server has opened a file that it sends
LINGER_S = 5.0  # that a caller may go on sending what was refused

_SAME_NAME = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}

Value = TypeVar("Value")


class Bridge:
    """Answers RSGI calls by WSGI applications, as many at a time as there are threads."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flask")

    async def answer(
        self, application: "WSGIApplication", scope: Scope, protocol: HTTPProtocol
    ) -> None:
        """Call the application, and send what it answers."""
        loop = asyncio.get_running_loop()

        def wait(coroutine: Coroutine[Any, Any, Value]) -> Value:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        sent = _Body(protocol, wait)
        environ = _environ(scope, sent)
        status, headers, body = await loop.run_in_executor(
            self._threads, _called, application, environ
        )
        if isinstance(body, _File):
            protocol.response_file(status, headers, body.path)
            loop.call_later(OPENED_S, body.close)
        else:
            protocol.response_bytes(status, headers, body)
        # ProtocolError: it was read before Flask was asked.
        with suppress(TimeoutError, ProtocolClosed, ProtocolError):
            async with asyncio.timeout(LINGER_S):
                await sent.linger()


class _Body(io.RawIOBase):
    """What a caller sends, as a thread reads it: piece by piece, so that it may stop early."""

    def __init__(
        self,
        protocol: HTTPProtocol,
        wait: Callable[[Coroutine[Any, Any, bytes]], bytes],
    ) -> None:
        self._protocol = protocol
        self._pieces: AsyncIterator[bytes] | None = None
        self._wait = wait
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._wait(self._piece())
        given = self._rest[: len(buffer)]
        buffer[: len(given)] = given
        self._rest = self._rest[len(given) :]
        return len(given)

    async def linger(self) -> None:
        """Take what still comes, and drop it.

        The server closes a connection with something left to read, and a caller who is still
        sending would find that it broke, not the answer.
        """
        while await self._piece():
            pass

    async def _piece(self) -> bytes:
        """The next one that has something in it; empty at the end."""
        # Not before: of a body that was read already asking for one raises ProtocolError.
        self._pieces = pieces = self._pieces or aiter(self._protocol)
        with suppress(StopAsyncIteration):
            while not (piece := await pieces.__anext__()):
                pass
            return piece
        return b""


class _File:
    """A file that the server sends by itself (PEP 3333's `wsgi.file_wrapper`).

    What is sent in pieces gathers in the server's memory where the caller is slow (granian 2.8).
    """

    def __init__(self, file: IO[bytes], _: int = 0) -> None:
        self.path = f"/dev/fd/{file.fileno()}"
        self.close = file.close

    def __iter__(self) -> "_File":
        return self

    def __next__(self) -> bytes:
        raise StopIteration


def _environ(scope: Scope, body: _Body) -> "WSGIEnvironment":
    host, _, port = scope.server.rpartition(":")
    peer, _, peer_port = scope.client.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string.encode().decode("latin-1"),
        "SERVER_NAME": host.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": peer.strip("[]"),
        "REMOTE_PORT": peer_port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BufferedReader(body),
        "wsgi.input_terminated": True,  # it ends where the body does, also in chunks
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": _File,
    }
    # X_Forwarded_For is not X-Forwarded-For, which a proxy looks after.
    names = [name for name in scope.headers.keys() if "_" not in name]  # noqa: SIM118 -- no dict
    values: dict[str, list[str]] = {name: [] for name in names}
    for name, value in scope.headers.items():  # none for a value that is not ASCII
        if name in values:
            values[name].append(value)
    for name, found in values.items():
        key = _SAME_NAME.get(name) or f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = ",".join(found)
    return environ


def _called(
    application: "WSGIApplication", environ: "WSGIEnvironment"
) -> tuple[int, list[tuple[str, str]], "bytes | _File"]:
    """Status, headers and body of the application's answer."""
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        started[:] = [(int(status[:3]), headers)]
        return None

    answer = application(environ, start_response)
    if isinstance(answer, _File):
        return *started[0], answer
    try:
        body = b"".join(answer)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
    return *started[0], body
