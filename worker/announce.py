"""Tells Flower of the ends that no child could tell of: stopped, timed out, lost for good.

Flower knows what Celery's events say, and a process that is killed sends none.  So the watch sends
them, for every job that Postgres ended; once more or once less does no harm.
"""

import logging
import socket

import psycopg
from kombu.exceptions import KombuError

from worker.broker import celery
from worker.store.jobs import cut_short

logger = logging.getLogger("worker.announce")

FIRST_LOOK_S = 60.0


class Announcer:
    """Remembers up to where it has told."""

    def __init__(self) -> None:
        self._since: float | None = None  # Unix time, Postgres' clock

    def announce(self, conn: psycopg.Connection) -> None:
        """Send an event for each job that was ended from outside since the last call."""
        ended, now = cut_short(conn, self._since, FIRST_LOOK_S)
        if ended and not _sent(ended):
            return  # next time
        self._since = now


def _sent(ended: list[tuple[str, str, str, str]]) -> bool:
    # A connection of its own, closed at once: children are forked from this process (F20).
    try:
        with (
            celery.connection_for_write(connect_timeout=1) as connection,
            celery.events.Dispatcher(
                connection, hostname=f"watch@{socket.gethostname()}", buffer_while_offline=False
            ) as dispatcher,
        ):
            for execution_id, name, status, error in ended:
                kind = "task-revoked" if status == "STOPPED" else "task-failed"
                dispatcher.send(
                    kind, uuid=execution_id, name=name, exception=error, terminated=True
                )
    except (KombuError, OSError) as error:
        logger.warning("Flower was not told of %d ends: %s", len(ended), error)
        return False
    return True
