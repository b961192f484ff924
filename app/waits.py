"""`?wait=`: holds requests until their jobs have ended, all of a process by one connection.

Whoever ends a job that somebody waits for from its start on sends it by NOTIFY, in the transaction
of the end; so nobody else's commit pays for it, and it takes a lock of the whole database.  For
other jobs, and where a notice is lost, one thread asks for all at once.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
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
    job: Future[jobs.Job | None] = field(default_factory=Future)  # when it has ended

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

    def listen(self) -> None:
        """Listen from now on; else the first who waits would wait for the connection as well."""
        with self._changed:
            self._begin()

    def until_ended(
        self, execution_id: UUID, seconds: float, *, told: bool = False
    ) -> jobs.Job | None:
        """The job, when it has ended; None when the time is over, or the process ends.

        `told`: it was started with this process' `channel`.
        """
        with self._waits(execution_id, told) as ended:
            try:
                return ended.result(seconds)
            except TimeoutError:
                return None

    async def ended(
        self, execution_id: UUID, seconds: float, *, told: bool = False
    ) -> jobs.Job | None:
        """As `until_ended`, without a thread that waits."""
        with self._waits(execution_id, told) as ended:
            try:
                return await asyncio.wait_for(asyncio.wrap_future(ended), seconds)
            except TimeoutError:
                return None

    @contextmanager
    def _waits(self, execution_id: UUID, told: bool) -> Iterator[Future[jobs.Job | None]]:
        wait = _Wait(execution_id, told)
        wait.job.set_running_or_notify_cancel()  # it is only left, never cancelled
        with self._changed:
            if self._closed:
                wait.job.set_result(None)
            else:
                self._waiting.add(wait)
                self._begin()
                self._changed.notify()
        try:
            yield wait.job
        finally:
            with self._changed:
                self._waiting.discard(wait)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="waits", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let all that wait answer now, and take no more."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = self._waiting, set()
            self._changed.notify()
        for wait in waiting:
            wait.job.set_result(None)

    def _look(self) -> None:
        with suppress(psycopg.Error):  # whoever waits has it tried again
            self._listening()
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
        notices = conn.notifies(timeout=self._pause_s(), stop_after=1)
        told = [_told(notice.payload) for notice in notices]
        ended = {one.execution_id: one for one in told if isinstance(one, jobs.Job)}
        with self._changed:
            ids = {wait.execution_id for wait in self._waiting}
        ids &= {one for one in told if isinstance(one, UUID)} if told else ids
        if ids:
            ended |= {job.execution_id: job for job in jobs.ended(conn, list(ids))}
        with self._changed:
            over = [wait for wait in self._waiting if wait.execution_id in ended]
            self._waiting.difference_update(over)
        for wait in over:
            wait.job.set_result(ended[wait.execution_id])

    def _pause_s(self) -> float:
        with self._changed:
            now = time.monotonic()
            return min((wait.pause_s(now) for wait in self._waiting), default=0.0)


def _told(notice: str) -> jobs.Job | UUID:
    """What `dpe.end_attempt` tells of an end: the job as it is then, or only its id."""
    if not notice.startswith("{"):
        return UUID(notice)
    row: dict[str, Any] = json.loads(notice)  # not orjson: whole numbers may be long
    for name in ("execution_id", "retry_of", "run_id"):
        row[name] = row[name] and UUID(row[name])
    for name in ("submitted_at", "published_at", "started_at", "ended_at"):
        row[name] = row[name] and datetime.fromisoformat(row[name])
    return jobs.Job(**row)
