"""`dpe api`: the application under gunicorn, a few processes with many threads each."""

import gc
import logging
import os
import select
import sys
from pathlib import Path
from typing import Any

import psycopg
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers import gthread
from gunicorn.workers.gthread import ThreadWorker

from app import resources
from app.answers import encode
from app.web import build
from worker.errors import NotMigrated
from worker.settings import Settings
from worker.store import migrate
from worker.store.database import connect

LINGER_MS = 20  # that a thread waits for the next request of its connection
GRACE_S = 10  # for requests under way when the process is asked to end
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 -- gunicorn makes its file there with mkstemp
WORDS = {400: "Bad Request", 414: "URI Too Long", 431: "Request Header Fields Too Large",
         500: "Internal Server Error"}  # fmt: skip

logger = logging.getLogger("app")

# So long (s) connections of callers that might just send are kept when the process is asked to
# end; gunicorn's 2 s are as long as `dpe up` gives all of it.
gthread.STOP_KEEPALIVE_LINGER = 0.5  # type: ignore[attr-defined]  # unknown to its stubs


class Worker(ThreadWorker):
    """gunicorn's, but a thread stays with its connection, errors are JSON, no address is logged (it
    may hold a token), and an end is not held up by requests that wait for their jobs.
    """

    def handle(self, conn: Any) -> Any:
        """Answer a request, and those that follow on the same connection.

        To give a connection back to the loop, and to be given it again, takes as long as a small
        answer: so a thread that nobody else waits for keeps it for a moment.
        """
        kept = super().handle(conn)
        while kept is True and self._more_comes(conn):
            kept = super().handle(conn)
        return kept

    def _more_comes(self, conn: Any) -> bool:
        others_wait = self.tpool is None or self.tpool._work_queue.qsize() > 0
        if others_wait or not self.alive:
            return False
        if conn.parser.unreader.buf.getvalue():
            return True
        poll = select.poll()  # not select(), which knows no descriptor above 1023
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(LINGER_MS))

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to end: take no more, and let those that wait answer now."""
        wsgi = getattr(self, "wsgi", None)
        if self.alive and wsgi is not None:
            # In the loop and not in the signal's handler, where no lock may be asked for.
            self.method_queue.defer(resources.of(wsgi).waits.close)
        super().handle_exit(sig, frame)

    def is_parent_alive(self) -> bool:
        """Whether gunicorn's main process is; asked each second.

        Where it was killed, whoever is started in its place needs the address at once, and not when
        the last request here has been answered.
        """
        if super().is_parent_alive():
            return True
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()
        self.alive = False
        wsgi = getattr(self, "wsgi", None)
        if wsgi is not None:
            resources.of(wsgi).waits.close()
        return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no HTTP, or what broke off before the application saw it."""
        status = _status(exc)
        words = WORDS[status]
        if status == 500:  # noqa: PLR2004
            self.log.error("a request failed: %s", type(exc).__name__, exc_info=exc)
        else:
            self.log.warning("a request was refused: %s", words)
        problem = {"error": words, "type": "about:blank", "title": words, "detail": words}
        body = encode(problem | {"status": status})
        head = (
            f"HTTP/1.1 {status} {words}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall(head.encode() + body)
        except OSError:
            self.log.debug("nobody takes the answer any more")


def _status(error: BaseException) -> int:
    match error:
        case LimitRequestLine():
            return 414
        case LimitRequestHeaders():
            return 431
        case ParseException():
            return 400
    return 500


class Api(BaseApplication):
    """gunicorn with everything set here; no file and no environment variable has a say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        values = {
            "bind": f"[{settings.host}]:{settings.port}" if ":" in settings.host
                    else f"{settings.host}:{settings.port}",
            "proc_name": "dpe api",
            "workers": settings.api_processes,
            "threads": settings.api_threads,
            "worker_class": Worker,
            "keepalive": 75,  # longer than a load balancer keeps its side open (60 s by custom)
            "graceful_timeout": GRACE_S,
            # Addresses carry tokens: what was called is known from the jobs, not from here.
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
            # Its heartbeat is a file's time: on a disk that is busy it would look dead.
            "worker_tmp_dir": str(MEMORY_FOLDER) if os.access(MEMORY_FOLDER, os.W_OK) else None,
            "worker_exit": _end_worker,
        }  # fmt: skip
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application; gunicorn calls it in each process, after the fork (F20)."""
        return build(self._settings)


def _end_worker(_: Arbiter, worker: Worker) -> None:
    wsgi = getattr(worker, "wsgi", None)
    if wsgi is not None:
        resources.of(wsgi).close()


def main(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; raises NotMigrated where `dpe migrate` is missing.

    A database that does not answer is no reason not to start: /ready says so until it does.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s",
    )
    try:
        with connect(settings.database(), "dpe-api") as conn:
            migrate.check(conn)
    except NotMigrated:
        raise
    except psycopg.OperationalError as error:
        logger.warning("the database does not answer yet: %s", error)
    gc.collect()
    gc.freeze()  # what is loaded now stays shared with the processes that answer
    Api(settings).run()
