"""Polls: those that come while a look-up is under way share the next statement."""

from app.together import Together
from worker.store import lookups
from worker.store.database import LoopConnection
from worker.store.jobs import Job
from worker.store.lookups import Lookup


class Lookups:
    """Looks up jobs for all that ask on one event loop."""

    def __init__(self, conn: LoopConnection) -> None:
        self._conn = conn
        self._lookups = Together(self._look_up)

    async def find(self, lookup: Lookup) -> Job | None:
        """The job; None: there is none, or the session is not open.  Raises psycopg.Error."""
        return await self._lookups.ask(lookup)

    async def _look_up(self, asked: list[Lookup]) -> list[Job | None]:
        return await lookups.look_up(self._conn, asked)
