"""Whether the process is up, and whether it can accept starts; both without a session."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psycopg
from flask import Blueprint, Response
from psycopg_pool import PoolTimeout
from redis import RedisError

from app.answers import json_answer
from app.auth import open_to_all
from app.resources import Resources, resources
from worker import broker
from worker.errors import DpeError
from worker.store import migrate, workers

routes = Blueprint("health", __name__)

PATIENCE_S = 1.0
UNAVAILABLE = 503

logger = logging.getLogger("app")


class Probe:
    """A look at a server that may hang: bounded in time, and never two at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way: Future[Any] | None = None

    def start(self, look: Callable[[], Any]) -> "Future[Any]":
        """Begin to look, or join the look that is under way already.

        A thread of its own that nobody waits for at the end: it may hang for as long as a frozen
        server's kernel keeps the connection.
        """
        with self._guard:
            if self._under_way is None or self._under_way.done():
                self._under_way = Future()
                threading.Thread(
                    target=_settle, args=(self._under_way, look), name="probe", daemon=True
                ).start()
            return self._under_way


def _settle(future: "Future[Any]", look: Callable[[], Any]) -> None:
    try:
        future.set_result(look())
    except Exception as error:
        future.set_exception(error)


_database, _broker = Probe(), Probe()


@routes.get("/health")
@open_to_all
def health() -> Response:
    """The process is up and answers."""
    return json_answer({"status": "ok"})


@routes.get("/ready")
@open_to_all
def ready() -> Response:
    """Whether starts are accepted: that needs Postgres, migrated, and not the broker."""
    held = resources()
    database = _database.start(lambda: _look_at_database(held))
    queue = _broker.start(lambda: broker.queue_client().ping())
    found, database_state = _outcome(database, "the database")
    _, broker_state = _outcome(queue, "the broker")
    ok = database_state == "ok"
    return json_answer(
        {
            "status": "ok" if ok else "unavailable",
            "database": database_state,
            "broker": broker_state,
            "workers": None if found is None else len(found) - found.count("silent"),
            "stuck": None if found is None else found.count("stuck"),
        },
        200 if ok else UNAVAILABLE,
    )


def _look_at_database(held: Resources) -> list[str]:
    with held.pool.connection(timeout=PATIENCE_S) as conn:
        migrate.check(conn)
        found = workers.states(conn, held.settings.heartbeat_timeout_s)
    return [worker.state for worker in found]


def _outcome(look: "Future[Any]", what: str) -> tuple[Any, str]:
    """What came of a look, and "ok" or the reason in words that name no host and no user."""
    try:
        return look.result(PATIENCE_S), "ok"
    except DpeError as error:
        return None, f"{error}: {error.hint}" if error.hint else str(error)
    except TimeoutError:
        return None, f"{what} does not answer within {PATIENCE_S:g} s"
    except (psycopg.Error, PoolTimeout, RedisError, OSError) as error:
        logger.warning("not ready: %s: %s", what, error)
        return None, f"{what} does not answer"
