"""What Flower is told: Celery's events of jobs and of busy children.

Celery's own dispatcher sends from the loop that a running handler holds up, so that a long job
would show when it is over; and it takes a child as long as the job itself, where that is short.
Here a thread sends what has gathered in a tenth of a second, in one message.  Events may get lost:
Flower asks the record as well.  The envelope is kombu's for a topic exchange over Redis, as in
`broker.publish`; its channel is `/<database>.<exchange>/<routing key>`.
"""

import logging
import os
import threading
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import orjson
from redis import RedisError

from worker.broker import queue_client

HEARTBEAT_INTERVAL_S = 2.0  # Celery's own
GATHER_S = 0.1
KINDS = {"SUCCESS": "task-succeeded", "FAILED": "task-failed", "RETRY": "task-retried"}

logger = logging.getLogger("worker.events")


class JobEvents:
    """A child's events, `hostname` being its Celery name; made after the fork: it has a thread."""

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self._of_all = {"hostname": hostname, "pid": os.getpid()}
        self._guard = threading.Lock()
        self._running = "", 0.0  # its id, when it began
        self._unsent: list[dict[str, Any]] = []
        self._started: dict[str, Any] | None = None  # of the running job, while nobody knows
        threading.Thread(target=self._send_for_ever, name="events", daemon=True).start()

    def begin(self, execution_id: UUID, name: str) -> None:
        """A job was claimed; `name` is its action's."""
        self._running = str(execution_id), time.monotonic()
        received = self._event("task-received") | {"name": name, "args": "()", "kwargs": {}}
        received |= {"root_id": self._running[0], "retries": 0}
        with self._guard:
            self._unsent.append(received)
            self._started = received | {"type": "task-started"}

    def building(self) -> None:
        """The job waits for its packages, and has not started yet."""
        self._tell("task-building")

    def built(self) -> None:
        """They are there: it starts."""
        self._tell("task-started")

    def _tell(self, kind: str) -> None:
        with self._guard:
            self._started = None
            self._unsent.append(self._event(kind))

    def end(self, status: str | None, error: str = "") -> None:
        """The attempt ended with SUCCESS, FAILED or RETRY, and `error` says why.

        None: the job is no longer this child's; whoever ended it, or has it, tells.
        """
        with self._guard:
            started, self._started = self._started, None
            if status is None:
                return
            event = self._event(KINDS[status])
            if started is not None:  # nobody knows yet that it began
                event["started"] = started["timestamp"]
            if status == "SUCCESS":
                event |= {"result": "None", "runtime": time.monotonic() - self._running[1]}
            else:
                event |= {"exception": f"JobFailed({error!r})", "traceback": ""}
            self._unsent.append(event)

    def _event(self, kind: str) -> dict[str, Any]:
        return {"type": kind, "uuid": self._running[0], "timestamp": time.time(), **self._of_all}

    def _send_for_ever(self) -> None:
        while True:
            time.sleep(GATHER_S)  # not woken by a job, which would wait for it to go to sleep
            if not self._unsent:
                continue
            with self._guard:
                events, self._unsent = self._unsent, []
                if self._started is not None:
                    events.append(self._started)
                    self._started = None
            try:
                publish("task.multi", [events])
            except RedisError as error:
                logger.warning("events are lost, Flower gets them from the record: %s", error)


def publish(routing_key: str, bodies: Sequence[Any]) -> None:
    """Send messages to whoever watches.  Raises redis.RedisError."""
    client = queue_client()
    database = client.connection_pool.connection_kwargs.get("db") or 0
    sending = client.pipeline(transaction=False)
    for body in bodies:
        sending.publish(f"/{database}.celeryev/{routing_key}", _envelope(routing_key, body))
    sending.execute()


def beat_for_busy(hostnames: list[str]) -> None:
    """Send one heartbeat for each child that runs a job, by its Celery host name.

    A child of the solo pool sends none while a handler runs, and Flower would show it offline
    after four seconds.  Raises redis.RedisError.
    """
    if hostnames:
        publish("worker.heartbeat", [_heartbeat(hostname) for hostname in hostnames])


def _heartbeat(hostname: str) -> dict[str, Any]:
    return {
        "type": "worker-heartbeat",
        "hostname": hostname,
        "pid": os.getpid(),
        "utcoffset": time.timezone // 3600,
        "clock": 0,
        "timestamp": time.time(),
        "freq": HEARTBEAT_INTERVAL_S,
        "active": 1,
    }


def _envelope(routing_key: str, body: Any) -> bytes:
    return orjson.dumps(
        {
            "body": b64encode(orjson.dumps(body)).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {},
            "properties": {
                "delivery_mode": 1,
                "delivery_info": {"exchange": "celeryev", "routing_key": routing_key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )
