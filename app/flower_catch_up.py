"""Flower, with the record beside it.

Flower knows what Celery's events say, and events get lost: with a process that is killed, with a
broker that restarts, while Flower itself is away.  A job that is stopped, or times out, sends none.
So every two seconds the jobs that have ended since, and the tasks that have not ended for Flower,
are looked up in Postgres; what has ended there ends here as well.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from celery.states import READY_STATES
from flower.app import Flower
from tornado.ioloop import PeriodicCallback

from worker.settings import current_settings
from worker.store.database import connect
from worker.store.ends import End, ends

logger = logging.getLogger("app.flower")

INTERVAL_MS = 2000
FIRST_LOOK_S = 3600.0
OVERLAP_S = 5.0  # a commit is seen later than its time says
EVENTS_S = 2.0  # that events may take: to look up what they will tell would double the work
MAX_OPEN = 1000
# Of tasks that it never heard of.  A worker without heartbeats is not listed.
UNKNOWN_WORKER = "record"

# What Celery would have said of each end.
EVENTS = {
    "SUCCESS": "task-succeeded",
    "FAILED": "task-failed",
    "TIMEOUT": "task-failed",
    "STOPPED": "task-revoked",
}


class RecordedFlower(Flower):
    """Flower that asks the record for what it was not told."""

    _conn: psycopg.Connection | None = None

    def start(self) -> None:
        """Serve until it is stopped."""
        self._since = time.time() - FIRST_LOOK_S
        PeriodicCallback(self.catch_up, INTERVAL_MS).start()
        super().start()

    async def catch_up(self) -> None:
        """End the tasks whose jobs have ended."""
        state: Any = self.events.state
        tasks = state.tasks.data  # not the cache itself, where to look is to use
        until = time.time() - EVENTS_S
        since = max(self._since - OVERLAP_S, state.forgotten_at)
        unended = [id for id, task in tasks.items() if task.state not in READY_STATES]
        try:
            found = await self.io_loop.run_in_executor(
                None, self._ends, since, until, unended[:MAX_OPEN]
            )
        except psycopg.Error as error:
            logger.warning("the record does not answer: %s", str(error).strip())
            return
        self._since = until
        for end in found:
            task = tasks.get(end.execution_id)
            if task is None and end.ended_at <= state.forgotten_at:
                continue  # it was shown, and has made room for newer ones
            if task is None or task.state not in READY_STATES:
                for event in _lost_events(end, task):
                    state.event(event)

    def _ends(self, since: float, until: float, unended: list[str]) -> list[End]:
        if self._conn is None or self._conn.closed:
            self._conn = connect(current_settings().database(), "dpe-flower")
        try:
            return ends(self._conn, since, until, unended, self.options.max_tasks)
        except psycopg.Error:
            self._conn.close()
            raise


def _lost_events(end: End, task: Any) -> Iterator[dict[str, Any]]:
    """What nobody told; fields: `State._create_dispatcher` in celery/events/state.py."""
    known = {
        "uuid": end.execution_id,
        "hostname": task.worker.hostname if task and task.worker else UNKNOWN_WORKER,
        "local_received": time.time(),
        "clock": 0,
    }
    if task is None:
        yield known | {
            "type": "task-received",
            "timestamp": end.submitted_at,
            "name": end.name,
            "args": "()",
            "kwargs": {},
        }
    yield known | {
        "type": EVENTS[end.status],
        "timestamp": end.ended_at,
        "exception": f"JobFailed({end.error!r})",
        "terminated": end.status == "STOPPED",
    }
