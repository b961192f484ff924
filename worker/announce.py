"""Tells Flower what no child can tell: that it is busy, and ends from outside.

Flower knows what Celery's events say.  A process that is killed sends none, so the watch sends
one for every job that Postgres ended: stopped, timed out, lost for good; once more or once less
does no harm.  And a child of the solo pool sends no heartbeat while a handler runs, so its
supervisor does: Flower would show it offline after four seconds.
"""

import logging
import os
import socket
import time
from base64 import b64encode
from uuid import uuid4

import orjson
import psycopg
from kombu.exceptions import KombuError

from worker.broker import celery, queue_client
from worker.store.jobs import cut_short

logger = logging.getLogger("worker.announce")

FIRST_LOOK_S = 60.0
HEARTBEAT_INTERVAL_S = 2.0  # Celery's own


class Announcer:
    """Remembers up to where it has told."""

    def __init__(self) -> None:
        self._since: float | None = None  # Unix time, Postgres' clock

    def announce(self, conn: psycopg.Connection) -> None:
        """Send an event for each job that was ended from outside since the last call."""
        ended, now = cut_short(conn, self._since, FIRST_LOOK_S)
        if ended and not _sent(ended):
            return  # next time
        self._since = now


def beat_for_busy(hostnames: list[str]) -> None:
    """Send one heartbeat for each child that runs a job, by its Celery host name.

    Raises redis.RedisError.  The envelope is kombu's for a topic exchange over Redis, as in
    `broker.publish`; its channel is `/<database>.<exchange>/<routing key>`.
    """
    if not hostnames:
        return
    client = queue_client()
    database = client.connection_pool.connection_kwargs.get("db") or 0
    sending = client.pipeline(transaction=False)
    for hostname in hostnames:
        sending.publish(f"/{database}.celeryev/worker.heartbeat", _heartbeat(hostname))
    sending.execute()


def _heartbeat(hostname: str) -> bytes:
    event = {
        "type": "worker-heartbeat",
        "hostname": hostname,
        "pid": os.getpid(),
        "utcoffset": time.timezone // 3600,
        "clock": 0,
        "timestamp": time.time(),
        "freq": HEARTBEAT_INTERVAL_S,
        "active": 1,
    }
    return orjson.dumps(
        {
            "body": b64encode(orjson.dumps(event)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"hostname": hostname},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


def _sent(ended: list[tuple[str, str, str, str]]) -> bool:
    # A connection of its own, closed at once: children are forked from this process (F20).
    try:
        with (
            celery.connection_for_write(connect_timeout=1) as connection,
            celery.events.Dispatcher(
                connection, hostname=f"watch@{socket.gethostname()}", buffer_while_offline=False
            ) as dispatcher,
        ):
            for execution_id, name, status, error in ended:
                kind = "task-revoked" if status == "STOPPED" else "task-failed"
                dispatcher.send(
                    kind, uuid=execution_id, name=name, exception=error, terminated=True
                )
    except (KombuError, OSError) as error:
        logger.warning("Flower was not told of %d ends: %s", len(ended), error)
        return False
    return True
