"""Group commit: the starts that arrive while a commit is under way share the next one.

A start is answered after its own commit, always.
"""

from psycopg_pool import ConnectionPool

from app.handover import Handover
from app.together import Together
from worker.store import jobs


class Intake:
    """Accepts and publishes the starts of this process."""

    def __init__(self, pool: ConnectionPool, handover: Handover) -> None:
        self._pool = pool
        self._handover = handover
        self._starts = Together(self._accept_all, lambda start: len(start.event or ""))

    def accept(self, start: jobs.Start) -> tuple[jobs.Accepted, str] | None:
        """Store and publish one start; return it with its status, when it is committed.

        None: no such action, one that allows one open job, or the session has ended.  Raises what
        Postgres raises.
        """
        return self._starts.ask(start)

    async def accepted(self, start: jobs.Start) -> tuple[jobs.Accepted, str] | None:
        """As `accept`, on the event loop."""
        return await self._starts.answer(start)

    def close(self) -> None:
        """Take no more."""
        self._starts.close()

    def _accept_all(self, starts: list[jobs.Start]) -> list[tuple[jobs.Accepted, str] | None]:
        with self._pool.connection() as conn:
            found = jobs.accept_all(conn, starts)
        status = self._handover.publish([job for job in found if job is not None])
        return [
            None if job is None else (job, status if job.published_at else job.status)
            for job in found
        ]
