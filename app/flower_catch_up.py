"""Flower, with the record beside it.

Flower knows what Celery's events say, and events get lost: with a process that is killed, with a
broker that restarts, while Flower itself is away or starts.  A job that is stopped, or times out,
sends none.  So every two seconds the jobs that run, those that have ended since, and the tasks that
have not ended for Flower, are looked up in Postgres; what runs or has ended there does so here.
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
from worker.store.observed import Observed, observed

logger = logging.getLogger("app.flower")

INTERVAL_MS = 2000
FIRST_LOOK_S = 3600.0
OVERLAP_S = 5.0  # a commit is seen later than its time says
EVENTS_S = 2.0  # that events may take: to look up what they will tell would double the work
MAX_OPEN = 1000
RUNNING = {"BUILDING", "PROCESSING"}
# Of tasks that it never heard of.  A worker without heartbeats is not listed.
UNKNOWN_WORKER = "record"

# What would have been said of each.
EVENTS = {
    "BUILDING": "task-building",
    "PROCESSING": "task-started",
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
        """Begin and end the tasks whose jobs have begun and ended."""
        state: Any = self.events.state
        tasks = state.tasks.data  # not the cache itself, where to look is to use
        until = time.time() - EVENTS_S
        since = max(self._since - OVERLAP_S, state.forgotten_at)
        unended = [id for id, task in tasks.items() if task.state not in READY_STATES]
        try:
            found = await self.io_loop.run_in_executor(
                None, self._observed, since, until, unended[:MAX_OPEN]
            )
        except psycopg.Error as error:
            logger.warning("the record does not answer: %s", str(error).strip())
            return
        self._since = until
        for job in found:
            task = tasks.get(job.execution_id)
            if _is_news(job, task, state.forgotten_at):
                for event in _lost_events(job, task):
                    state.event(event)

    def _observed(self, since: float, until: float, unended: list[str]) -> list[Observed]:
        if self._conn is None or self._conn.closed:
            self._conn = connect(current_settings().database(), "dpe-flower")
        try:
            return observed(self._conn, since, until, unended, self.options.max_tasks)
        except psycopg.Error:
            self._conn.close()
            raise


def _is_news(job: Observed, task: Any, forgotten_at: float) -> bool:
    """Whether Flower shows something older of a job, or nothing."""
    if task is None:
        # One that has ended was shown, if it made room for newer ones.
        return job.status in RUNNING or job.since > forgotten_at
    if task.state in READY_STATES:
        return False
    return job.status not in RUNNING or (
        job.since > task.timestamp and EVENTS[job.status] != f"task-{task.state.lower()}"
    )


def _lost_events(job: Observed, task: Any) -> Iterator[dict[str, Any]]:
    """What nobody told; fields: `State._create_dispatcher` in celery/events/state.py."""
    known = {
        "uuid": job.execution_id,
        "hostname": task.worker.hostname if task and task.worker else UNKNOWN_WORKER,
        "clock": 0,
    }
    if task is None:
        yield known | {
            "type": "task-received",
            "timestamp": job.submitted_at,
            "local_received": job.submitted_at,
            "name": job.name,
            "args": "()",
            "kwargs": {},
        }
    yield known | {
        "type": EVENTS[job.status],
        "timestamp": job.since,
        "local_received": job.since,  # later, and Celery would say that clocks differ
        "exception": f"JobFailed({job.error!r})",
        "terminated": job.status == "STOPPED",
    }
