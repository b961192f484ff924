"""The watch: finds lost jobs again, ends late ones, deletes old ones.

Every worker's supervisor offers to keep it, one does at a time.  Everything here may be done
twice, or by two at once, without harm.
"""

import logging
import time

import psycopg
from redis import RedisError

from worker import broker, data_store
from worker.settings import Settings
from worker.store import (
    idempotency,
    lost_claims,
    publishing,
    retention,
    run_turns,
    timeouts,
    trigger_ticks,
    turns,
    workers,
    workflow_runs,
)

logger = logging.getLogger("worker.watch")

INTERVAL_S = 0.5
# Between the delivery of a message and the commit of its claim passes less than this.
DELIVERY_GRACE_S = 2.0
BATCH = 500
RETENTION_INTERVAL_S = 30.0
FORGET_WORKERS_S = 3600.0


class Watch:
    """One supervisor's share in the watch."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next_retention = 0.0

    def keep(self, conn: psycopg.Connection) -> None:
        """One round, if no other worker has just made one; commits."""
        if not workers.take_watch(conn, INTERVAL_S):
            return
        settings = self._settings
        lost_claims.give_back_silent(conn, settings.heartbeat_timeout_s, settings.max_losses)
        timeouts.end_late(conn)
        workflow_runs.mend(conn)
        run_turns.let_in(conn)
        data_store.land_left(conn)
        trigger_ticks.start_due(conn)
        try:
            publish_due(conn)
            publish_turns(conn)
            publish_overtaken(conn)
        except RedisError as error:
            # The jobs stay as they were; the next round tries again.
            logger.warning("the broker does not answer: %s", error)
        if time.monotonic() > self._next_retention:
            self._next_retention = time.monotonic() + RETENTION_INTERVAL_S
            while retention.delete_old_jobs(conn, settings.keep_jobs_s, BATCH) == BATCH:
                pass
            retention.delete_ended_sessions(conn)
            idempotency.forget_old(conn)
            workers.forget_dead(conn, FORGET_WORKERS_S)
            trigger_ticks.rearm(conn)
            trigger_ticks.forget_old(conn, settings.keep_jobs_s)
            data_store.sweep(conn)


def publish_due(conn: psycopg.Connection) -> int:
    """Publish what was accepted and is due, but is not with the broker; return how many."""
    count = 0
    while True:
        with conn.transaction():
            messages = publishing.take_due(conn, BATCH)
            broker.publish(messages)
        count += len(messages)
        if len(messages) < BATCH:
            return count


def publish_turns(conn: psycopg.Connection) -> int:
    """Publish jobs that were held and whose turn it is; return how many."""
    count = 0
    for action_id in turns.waiting_actions(conn):
        messages = turns.let_in(conn, action_id)
        broker.publish(messages)  # where it fails, they are overtaken, and published again
        count += len(messages)
    return count


def publish_overtaken(conn: psycopg.Connection) -> int:
    """Publish again what the broker has lost; return how many."""
    _, next_at = broker.next_published_at()
    with conn.transaction():
        messages = publishing.take_overtaken(conn, next_at, DELIVERY_GRACE_S, BATCH)
        broker.publish(messages)
    return len(messages)
