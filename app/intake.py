"""Group commit: the starts that arrive while a commit is under way share the next one.

A start is answered after its own commit, always.
"""

from app.handover import Handover
from app.together import Together
from worker.store import acceptance, jobs
from worker.store.database import LoopConnection


class Intake:
    """Accepts and publishes the starts that come on one event loop."""

    def __init__(self, conn: LoopConnection, handover: Handover) -> None:
        self._conn = conn
        self._handover = handover
        self._starts = Together(self._accept_all, lambda start: len(start.event or ""))

    async def accept(self, start: jobs.Start) -> tuple[jobs.Accepted, str] | None:
        """Store and publish one start; return it with its status, when it is committed.

        None: no such action, one that allows one open job, or the session has ended.  Raises what
        Postgres raises.
        """
        return await self._starts.ask(start)

    async def _accept_all(self, starts: list[jobs.Start]) -> list[tuple[jobs.Accepted, str] | None]:
        found = await acceptance.accept_all_on_loop(self._conn, starts)
        status = await self._handover.publish_on_loop([job for job in found if job is not None])
        return [
            None if job is None else (job, status if job.published_at else job.status)
            for job in found
        ]
