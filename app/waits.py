"""`?wait=`: holds requests until their jobs have ended, all of a process by one connection.

Whoever ends a job that somebody waits for from its start on says so by NOTIFY, in the transaction
of the end; so nobody else's commit pays for it (a NOTIFY takes a lock of the whole database).  Of
other jobs, and where a notice is lost, one thread asks for all at once.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg

from worker.store import jobs

FIRST_PAUSE_S = 0.0007
FIRST_PAUSE_TOLD_S = 0.02
LONGEST_PAUSE_S = 0.05
PAUSE_PER_AGE = 0.1  # a wait of 100 ms is looked after every 10 ms
PAUSE_AFTER_ERROR_S = 0.25

logger = logging.getLogger("app")


@dataclass(slots=True, eq=False)
class _Wait:
    execution_id: UUID
    told: bool  # Postgres tells when it has ended
    since: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)
    job: jobs.Job | None = None  # once it has ended

    def pause_s(self, now: float) -> float:
        """Short while a wait is young, longer for old ones."""
        shortest = FIRST_PAUSE_TOLD_S if self.told else FIRST_PAUSE_S
        return min(max(PAUSE_PER_AGE * (now - self.since), shortest), LONGEST_PAUSE_S)


class Waits:
    """The requests of this process that wait for the end of a job."""

    def __init__(self, connect: Callable[[], psycopg.Connection]) -> None:
        self._connect = connect
        self._conn: psycopg.Connection | None = None
        self.channel = f"dpe_{uuid4().hex[:16]}"  # for `jobs.Start.waiter`
        self._waiting: set[_Wait] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def until_ended(
        self, execution_id: UUID, seconds: float, *, told: bool = False
    ) -> jobs.Job | None:
        """The job, when it has ended; None when the time is over, or the process ends.

        `told`: it was started with this process' `channel`.
        """
        wait = _Wait(execution_id, told)
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
        while self._anybody_waits():
            try:
                self._release(self._listening())
            except psycopg.Error as error:
                logger.warning("waiting requests can't be looked after: %s", str(error).strip())
                self._disconnect()
                time.sleep(PAUSE_AFTER_ERROR_S)
        self._disconnect()

    def _anybody_waits(self) -> bool:
        """Block until somebody does; False: this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return not self._closed

    def _listening(self) -> psycopg.Connection:
        if self._conn is None:
            self._conn = self._connect()
            self._conn.execute("SET plan_cache_mode = force_generic_plan")
            self._conn.execute(f"LISTEN {self.channel}".encode())
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn = None

    def _release(self, conn: psycopg.Connection) -> None:
        """Wait for notices, or for as long as a pause; answer those whose jobs have ended."""
        notices = list(conn.notifies(timeout=self._pause_s(), stop_after=1))
        told = {UUID(notice.payload) for notice in notices}
        with self._changed:
            waiting = [w for w in self._waiting if not told or w.execution_id in told]
        if not waiting:
            return
        ids = list({wait.execution_id for wait in waiting})
        ended = {job.execution_id: job for job in jobs.ended(conn, ids)}
        for wait in waiting:
            wait.job = ended.get(wait.execution_id)
            if wait.job is not None:
                wait.over.set()

    def _pause_s(self) -> float:
        # Ended waits count until their request has taken them out: a matter of microseconds.
        with self._changed:
            now = time.monotonic()
            return min((wait.pause_s(now) for wait in self._waiting), default=0.0)
