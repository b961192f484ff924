"""From a committed job to the broker, without ever making a caller wait for a broker."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Sequence

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout
from redis import RedisError
from redis.asyncio.connection import AbstractConnection

from worker import broker
from worker.store import jobs, turns
from worker.store.publishing import Message

# A broker that hangs costs a start this much, once a pause; Postgres has the job by then (F7).
TIMEOUT_S = 0.15
PAUSE_S = 1.0

logger = logging.getLogger("app")


class Handover:
    """Publishes, and after a failure leaves the broker alone for a moment.

    What it does not publish, the watch does: the job says so by its status SUBMITTED.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._guard = threading.Lock()
        self._broken = False
        self._next_try = 0.0
        self._conn: AbstractConnection | None = None  # of the event loop

    def publish(self, accepted: Sequence[jobs.Accepted | Message]) -> str:
        """Hand jobs over, all together, and return the status that they have then.

        Those that are due later are left to the watch, and held ones to their turn (`turns`); they
        are SUBMITTED whatever this returns.
        """
        messages = _messages(accepted)
        messages += self._let_in(
            {job.action_id for job in accepted if isinstance(job, jobs.Accepted) and job.held}
        )
        if self._may_try():
            try:
                broker.publish(messages, TIMEOUT_S)
            except (RedisError, OSError) as error:
                self._fail(error)
            else:
                self._succeed()
                return "QUEUED"
        return self._unpublished(accepted)

    async def publish_on_loop(self, accepted: Sequence[jobs.Accepted]) -> str:
        """As `publish`, on the event loop."""
        if any(job.held for job in accepted):
            return await asyncio.to_thread(self.publish, accepted)
        if self._may_try():
            if self._conn is None:
                self._conn = broker.loop_connection()
            try:
                await broker.publish_on_loop(self._conn, _messages(accepted), TIMEOUT_S)
            except (RedisError, OSError) as error:
                self._fail(error)
            else:
                self._succeed()
                return "QUEUED"
        return await asyncio.to_thread(self._unpublished, accepted)

    def _unpublished(self, accepted: Sequence[jobs.Accepted | Message]) -> str:
        try:
            with self._pool.connection() as conn:
                jobs.unpublished(conn, [job.execution_id for job in accepted])
        except (psycopg.Error, PoolTimeout):
            # The jobs are accepted all the same; as for messages lost, the watch finds them.
            return "QUEUED"
        return "SUBMITTED"

    def _let_in(self, action_ids: Iterable[str]) -> list[Message]:
        messages = []
        try:
            for action_id in action_ids:
                with self._pool.connection() as conn:
                    messages += turns.let_in(conn, action_id)
        except (psycopg.Error, PoolTimeout) as error:
            logger.warning("the watch will see whose turn it is: %s", str(error).strip())
        return messages

    def _may_try(self) -> bool:
        """Whether to try the broker: of those that find it broken one at a time does."""
        with self._guard:
            now = time.monotonic()
            if not self._broken:
                return True
            if now < self._next_try:
                return False
            self._next_try = now + TIMEOUT_S + PAUSE_S
            return True

    def _succeed(self) -> None:
        if self._broken:
            self._broken = False
            logger.warning("the broker answers again")

    def _fail(self, error: Exception) -> None:
        with self._guard:
            if not self._broken:
                logger.warning("the broker does not answer, the watch will publish: %s", error)
            self._broken = True
            self._next_try = time.monotonic() + PAUSE_S


def _messages(accepted: Iterable[jobs.Accepted | Message]) -> list[Message]:
    return [
        Message(job.execution_id, job.name, job.published_at, job.priority)
        for job in accepted
        if job.published_at is not None
    ]
