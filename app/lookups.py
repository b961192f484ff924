"""Polls: those that come while a look-up is under way share the next statement.

Most polls find what the one before has found; for those, nothing is made of the row anew.
"""

from functools import lru_cache
from typing import NamedTuple

import orjson

from app.answers import encode, job_json
from app.together import Together
from worker.store import lookups
from worker.store.database import LoopConnection, RawRow
from worker.store.jobs import Job
from worker.store.lookups import Lookup

KEPT = 256
MOST_KEPT_BYTES = 4096  # of one row


class Found(NamedTuple):
    """A job, and the JSON that it is shown as, where that is at hand."""

    job: Job
    json: orjson.Fragment | None = None


class Lookups:
    """Looks up jobs for all that ask on one event loop."""

    def __init__(self, conn: LoopConnection) -> None:
        self._conn = conn
        self._lookups = Together(self._look_up)
        self._kept = lru_cache(KEPT)(self._make)

    async def find(self, lookup: Lookup) -> Found | None:
        """The job; None: there is none, or the session is not open.  Raises psycopg.Error."""
        return await self._lookups.ask(lookup)

    async def _look_up(self, asked: list[Lookup]) -> list[Found | None]:
        rows = await lookups.look_up(self._conn, asked)
        return [None if row is None else self._found(row) for row in rows]

    def _found(self, row: RawRow) -> Found:
        if sum([len(value) for value in row if value]) > MOST_KEPT_BYTES:
            return self._make(row)
        return self._kept(row)

    def _make(self, row: RawRow) -> Found:
        job = lookups.job_of(self._conn, row)
        return Found(job, orjson.Fragment(encode(job_json(job))))
