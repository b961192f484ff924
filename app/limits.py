"""How much is taken at once: jobs that wait, and starts of a key in a second.  Beyond that, 429.

Asked before anything is stored.  A limit that can't be looked at (Postgres away: the start itself
says so; the broker away) turns nobody down.
"""

import logging
import threading
import time

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout
from redis import RedisError

from worker import broker
from worker.errors import TooMany
from worker.settings import Settings
from worker.store import waiting
from worker.store.access import Session

COUNT_S = 0.5  # between two counts of the jobs that wait, where few more would be too many
LONGEST_COUNT_S = 5.0
FASTEST_PER_S = 20_000  # starts that all processes together accept
COME_AGAIN_S = 5.0
WINDOW_S = 1
BROKER_TIMEOUT_S = 0.15

logger = logging.getLogger("app")


class Limits:
    """What this API process knows of the limits."""

    def __init__(self, settings: Settings, pool: ConnectionPool) -> None:
        self._max_waiting = settings.max_waiting
        self._max_starts_per_s = settings.max_starts_per_s
        self._pool = pool
        self._counting = threading.Lock()
        self._next_count = 0.0  # of time.monotonic()
        self._waiting = 0

    def check(self, session: Session) -> None:
        """Count one start of the session's key; raises TooMany."""
        self._check_waiting()
        rate = self._rate_of(session)
        if rate is not None:
            self._check_rate(session, rate)

    def asks(self, session: Session) -> bool:
        """Whether the next `check` asks Postgres or the broker, which may take its time."""
        return self._is_due() or self._rate_of(session) is not None

    def _rate_of(self, session: Session) -> float | None:
        return session.starts_per_s or self._max_starts_per_s

    def _is_due(self) -> bool:
        return bool(self._max_waiting) and time.monotonic() >= self._next_count

    def _check_waiting(self) -> None:
        """By the last count, and what came here since.

        What other processes take meanwhile is not in it, so it is counted anew before they can have
        taken all that is left, or else after half a second: the limit keeps Postgres from filling
        up, it is not exact.
        """
        if not self._max_waiting:
            return
        if self._is_due() and self._counting.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._counting.release()
        if self._waiting >= self._max_waiting:
            raise TooMany(
                f"{self._max_waiting} jobs are accepted and have not begun: no more are taken",
                "send it again later, with the same Idempotency-Key; more workers take them sooner",
                COME_AGAIN_S,
            )
        self._waiting += 1

    def _count(self) -> None:
        self._next_count = time.monotonic() + COUNT_S
        try:
            with self._pool.connection() as conn:
                self._waiting = waiting.count(conn, self._max_waiting)
            room_s = (self._max_waiting - self._waiting) / FASTEST_PER_S
            self._next_count += min(max(0.0, room_s - COUNT_S), LONGEST_COUNT_S - COUNT_S)
        except (psycopg.Error, PoolTimeout) as error:
            logger.warning("jobs that wait can't be counted: %s", str(error).strip())

    def _check_rate(self, session: Session, rate: float) -> None:
        """By one counter a second of all API processes, in the broker.

        A rate below one a second has a longer window instead.
        """
        window_s = max(WINDOW_S, round(1 / rate))
        at = int(time.time()) // window_s
        name = f"dpe:starts:{session.key_id}:{at}"
        try:
            asked = broker.queue_client(BROKER_TIMEOUT_S).pipeline(transaction=False)
            asked.incr(name)
            asked.expire(name, window_s + 1)
            count: int = asked.execute()[0]
        except (RedisError, OSError) as error:
            logger.warning("starts can't be counted, so none is turned down: %s", error)
            return
        if count > max(1, rate * window_s):
            raise TooMany(
                f"the key {session.name!r} has made its {rate:g} starts a second",
                "send it again after Retry-After seconds; or several rows in one start",
                (at + 1) * window_s - time.time(),
            )
