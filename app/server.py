"""`dpe api`: the application under granian, a few processes with an event loop and threads each.

Granian speaks HTTP in compiled code, outside of Python's lock: an answer costs half of what it
costs with a server in Python (docs/performance.md).
"""

import gc
import logging
import multiprocessing
import socket
import sys
from typing import Any

import psycopg
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer, WorkerProcess

from app.quick import Quick
from app.web import build
from worker.errors import DpeError, NotMigrated
from worker.settings import Settings, current_settings
from worker.store import migrate
from worker.store.database import connect

GRACE_S = 10  # for requests under way when the process is asked to end
RESPAWN_PAUSE_S = 0.2
BACKLOG = 1024
CONNECTIONS = 10_000  # of one process, idle ones as well; more wait in the kernel's queue
KEEPALIVE_S = 75  # longer than a load balancer keeps its side open (60 s by custom)
STALLED_S = 60  # a caller that takes nothing of its answer for so long is left
MAX_HEAD_BYTES = 64 * 1024

logger = logging.getLogger("app")


class Server(MPServer):
    """granian's, with sockets that its main process makes and holds: one for each process.

    Its own would share an address that another server has taken, and would lose the calls that
    wait for a process that is killed; and all processes on one socket get unequal shares.
    """

    def _init_shared_socket(self) -> None:
        _listen(self.bind_addr, self.bind_port, shared=False).close()
        # Only Linux gives each of several sockets its share of the calls.
        count = self.workers if sys.platform == "linux" else 1
        self._listeners = [
            _listen(self.bind_addr, self.bind_port, shared=count > 1) for _ in range(count)
        ]

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Any) -> WorkerProcess:
        self._sso = self._listeners[idx % len(self._listeners)]
        backlog = (BACKLOG,) if sys.platform == "linux" else ()
        self._shd = SocketHolder(self._sso.fileno(), False, *backlog)  # pyright: ignore[reportCallIssue]
        return super()._spawn_worker(idx, target, callback_loader)

    def _drop_shared_socket(self) -> None:
        for listener in self._listeners:
            listener.close()


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """Raises DpeError where the address is taken or is none of this host's."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":  # connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_S * 1000)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise DpeError(f"can't listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def main(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raises NotMigrated where `dpe migrate` is missing.

    A database that does not answer is no reason not to start: /ready says so until it does.
    """
    _log_to_stderr()
    try:
        with connect(settings.database(), "dpe-api") as conn:
            migrate.check(conn)
    except NotMigrated:
        raise
    except psycopg.OperationalError as error:
        logger.warning("the database does not answer yet: %s", error)
    if sys.platform == "linux":  # what is loaded now stays shared with the processes that answer
        multiprocessing.set_start_method("fork", force=True)
    gc.collect()
    gc.freeze()
    server(settings, "app.server:application").serve()


def server(
    settings: Settings,
    application: str,
    interface: Interfaces = Interfaces.RSGI,
    threads: int | None = None,
) -> Server:
    """The server of an application, named as `module:factory`; `threads` are of WSGI ones."""
    return Server(
        application,
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=interface,
        blocking_threads=threads,
        loop=Loops.auto,  # uvloop, where it is installed
        http=HTTPModes.http1,
        workers=settings.api_processes,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(
            header_read_timeout=KEEPALIVE_S * 1000, max_buffer_size=MAX_HEAD_BYTES
        ),
        respawn_failed_workers=True,
        respawn_interval=RESPAWN_PAUSE_S,
        workers_kill_timeout=GRACE_S,
        # Addresses carry tokens: what was called is known from the jobs, not from here.
        log_access=False,
        log_level=LogLevels.error,
        log_dictconfig={"loggers": {"_granian": {"handlers": [], "propagate": True}}},
        websockets=False,
        process_name="dpe api",
    )


def application() -> Quick:
    """What one process serves; granian calls it in each, after the fork (F20)."""
    _log_to_stderr()
    return Quick(build(current_settings()))


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s",
    )
