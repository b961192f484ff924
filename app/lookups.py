"""Polls: those that come while a look-up is under way share the next statement.

On the event loop and on a connection of its own, so that a poll wakes no thread.
"""

import asyncio

import psycopg

from worker.store.database import connect_async
from worker.store.jobs import Job
from worker.store.lookups import Lookup, look_up

MAX_COUNT = 256  # together

Waiting = tuple[Lookup, "asyncio.Future[Job | None]"]


class Lookups:
    """Looks up jobs for all that ask on one loop."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._conn: psycopg.AsyncConnection | None = None
        self._waiting: list[Waiting] = []
        self._serving: asyncio.Task[None] | None = None

    async def find(self, lookup: Lookup) -> Job | None:
        """The job; None: there is none, or the session is not open.  Raises psycopg.Error."""
        found: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lookup, found))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return await found

    async def _serve(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[:MAX_COUNT], self._waiting[MAX_COUNT:]
            try:
                jobs = await self._look_up([lookup for lookup, _ in taken])
            except Exception as error:
                for _, found in taken:
                    if not found.done():  # whoever asked has gone
                        found.set_exception(error)
            else:
                for (_, found), job in zip(taken, jobs, strict=True):
                    if not found.done():
                        found.set_result(job)
        self._serving = None

    async def _look_up(self, asked: list[Lookup]) -> list[Job | None]:
        """On the connection at hand; where it is lost, on a new one."""
        if self._conn is not None:
            try:
                return await look_up(self._conn, asked)
            except psycopg.OperationalError:
                await self._conn.close()
        self._conn = await connect_async(self._database_url, "dpe-api")
        return await look_up(self._conn, asked)
