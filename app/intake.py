"""Group commit: the starts that arrive while a commit is under way share the next one.

A start is answered after its own commit, always.  But a commit waits for the disk, and a statement
for a round trip, whether for one start or for fifty: so whoever has the turn takes all that wait,
and gives the turn to the first of those that came meanwhile.
"""

import threading
from dataclasses import dataclass, field

from psycopg_pool import ConnectionPool

from app.handover import Handover
from worker.store import jobs

MAX_STARTS = 256
MAX_BYTES = 8_000_000  # of the events of one statement, beyond the first


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Waiting:
    start: jobs.Start
    done: bool = False
    accepted: jobs.Accepted | None = None
    status: str = ""
    error: BaseException | None = None
    told: threading.Lock = field(default_factory=_held)  # let go when done, or to take the turn


class Intake:
    """Accepts and publishes the starts of all this process' threads."""

    def __init__(self, pool: ConnectionPool, handover: Handover) -> None:
        self._pool = pool
        self._handover = handover
        self._guard = threading.Lock()
        self._taken = False  # somebody has the turn
        self._waiting: list[_Waiting] = []

    def accept(self, start: jobs.Start) -> tuple[jobs.Accepted, str] | None:
        """Store and publish one start; return it with its status, when it is committed.

        None: no such action, or its session has ended.  Raises what Postgres raises.
        """
        mine = _Waiting(start)
        with self._guard:
            self._waiting.append(mine)
            my_turn, self._taken = not self._taken, True
        if not my_turn:
            mine.told.acquire()
        if not mine.done:  # then it is the first of those that wait
            taken = self._take()
            try:
                self._commit(taken)
            finally:
                self._pass_on(taken)
        if mine.error is not None:
            raise mine.error
        return None if mine.accepted is None else (mine.accepted, mine.status)

    def _pass_on(self, done: list[_Waiting]) -> None:
        with self._guard:
            following = self._waiting[:1]
            self._taken = bool(following)
        for waiting in following + done[1:]:
            waiting.told.release()

    def _take(self) -> list[_Waiting]:
        with self._guard:
            count, size = 0, 0
            for waiting in self._waiting[:MAX_STARTS]:
                size += len(waiting.start.event or "")
                if count and size > MAX_BYTES:
                    break
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _commit(self, taken: list[_Waiting]) -> None:
        try:
            with self._pool.connection() as conn:
                found = jobs.accept_all(conn, [waiting.start for waiting in taken])
            status = self._handover.publish([job for job in found if job is not None])
            for waiting, accepted in zip(taken, found, strict=True):
                waiting.accepted, waiting.status = accepted, status
        except BaseException as error:
            for waiting in taken:
                waiting.error = error
        finally:
            for waiting in taken:
                waiting.done = True
