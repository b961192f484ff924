"""`?wait=`: holds requests until their jobs have ended, all of a process by one statement.

One thread asks Postgres for all jobs that are waited for; a thread or a connection for each would
run out of both.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from worker.store import jobs

FIRST_PAUSE_S = 0.0007
LONGEST_PAUSE_S = 0.05
PAUSE_PER_AGE = 0.1  # a wait of 100 ms is looked after every 10 ms
PAUSE_AFTER_ERROR_S = 0.25

logger = logging.getLogger("app")


@dataclass(slots=True, eq=False)
class _Wait:
    execution_id: UUID
    since: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)
    job: jobs.Job | None = None  # once it has ended


class Waits:
    """The requests of this process that wait for the end of a job."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._waiting: set[_Wait] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def until_ended(self, execution_id: UUID, seconds: float) -> jobs.Job | None:
        """The job, when it has ended; None when the time is over, or the process ends."""
        wait = _Wait(execution_id)
        with self._changed:
            if self._closed:
                return None
            self._waiting.add(wait)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="waits", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            wait.over.wait(seconds)
        finally:
            with self._changed:
                self._waiting.discard(wait)
        return wait.job

    def close(self) -> None:
        """Let all that wait answer now, and take no more."""
        with self._changed:
            self._closed = True
            for wait in self._waiting:
                wait.over.set()
            self._changed.notify()

    def _look(self) -> None:
        while True:
            with self._changed:
                # A new wait ends the pause: it is looked after from its first millisecond.
                if not self._closed:
                    self._changed.wait(self._pause_s())
                if self._closed:
                    return
                waiting = list(self._waiting)
            try:
                self._release(waiting)
            except (psycopg.Error, PoolTimeout) as error:
                logger.warning("waiting requests can't be looked after: %s", error)
                time.sleep(PAUSE_AFTER_ERROR_S)

    def _release(self, waiting: list[_Wait]) -> None:
        if not waiting:
            return
        ids = list({wait.execution_id for wait in waiting})
        with self._pool.connection() as conn:
            ended = {job.execution_id: job for job in jobs.ended(conn, ids)}
        for wait in waiting:
            wait.job = ended.get(wait.execution_id)
            if wait.job is not None:
                wait.over.set()

    def _pause_s(self) -> float | None:
        """Short while a wait is young, longer for old ones; None: nobody waits.

        Ended waits count until their request has taken them out: a matter of microseconds.
        """
        youngest = max((wait.since for wait in self._waiting), default=None)
        if youngest is None:
            return None
        age = time.monotonic() - youngest
        return min(max(PAUSE_PER_AGE * age, FIRST_PAUSE_S), LONGEST_PAUSE_S)
