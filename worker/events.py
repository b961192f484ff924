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
from functools import partial
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
    """A child's events, `hostname` being its Celery name; made after the fork: it has a thread.

    Of a job that is over before the thread has seen it twice there is one event, that of its end,
    which says when it began: two would cost Flower twice as much.
    """

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self._of_all = {"hostname": hostname, "pid": os.getpid(), "args": "()", "kwargs": {}}
        self._of_all |= {"retries": 0}
        self._guard = threading.Lock()
        self._job: dict[str, Any] = {}  # its end's event; with when it began, until that is told
        self._began = 0.0  # of time.monotonic()
        self._unsent: list[dict[str, Any]] = []
        threading.Thread(target=self._send_for_ever, name="events", daemon=True).start()

    def begin(self, execution_id: UUID, name: str) -> None:
        """A job was claimed; `name` is its action's."""
        id, now, self._began = str(execution_id), time.time(), time.monotonic()
        times = {"received": now, "started": now}
        self._job = {"uuid": id, "root_id": id, "name": name, **times, **self._of_all}

    def building(self) -> None:
        """The job waits for its packages, and has not started yet."""
        with self._guard:
            self._tell(self._job, "task-building", time.time())

    def built(self) -> None:
        """They are there: it starts."""
        with self._guard:
            self._tell(self._job, "task-started", time.time())

    def end(self, status: str | None, error: str = "") -> None:
        """The attempt ended with SUCCESS, FAILED or RETRY, and `error` says why.

        None: the job is no longer this child's; whoever ended it, or has it, tells.
        """
        self.ending()(status, error)

    def ending(self) -> "partial[None]":
        """The running job's `end`, as of now, to be called when another one has begun."""
        return partial(self._end, self._job, time.time(), time.monotonic() - self._began)

    def _end(
        self,
        event: dict[str, Any],
        timestamp: float,
        runtime: float,
        status: str | None,
        error: str = "",
    ) -> None:
        with self._guard:
            if self._job is event:
                self._job = {}
            if status is None:
                return
            event["type"], event["timestamp"] = KINDS[status], timestamp
            if status == "SUCCESS":
                event["result"], event["runtime"] = "None", runtime
            else:
                event["exception"], event["traceback"] = f"JobFailed({error!r})", ""
            self._unsent.append(event)

    def _tell(self, job: dict[str, Any], kind: str, timestamp: float) -> None:
        """Of a running job: this, and before it, unless that was told, that it was received."""
        received = job.pop("received", None)
        if received is not None:
            del job["started"]
            self._unsent.append(job | {"type": "task-received", "timestamp": received})
        self._unsent.append(job | {"type": kind, "timestamp": timestamp})

    def _send_for_ever(self) -> None:
        seen: dict[str, Any] = {}
        while True:
            time.sleep(GATHER_S)  # not woken by a job, which would wait for it to go to sleep
            with self._guard:
                job = self._job
                if job is seen and "started" in job:
                    self._tell(job, "task-started", job["started"])
                seen, events, self._unsent = job, self._unsent, []
            if not events:
                continue
            try:
                publish("task.multi", events)
            except RedisError as error:
                logger.warning("events are lost, Flower gets them from the record: %s", error)


def publish(routing_key: str, events: list[dict[str, Any]]) -> None:
    """Send events to whoever watches, in one message.  Raises redis.RedisError."""
    client = queue_client()
    database = client.connection_pool.connection_kwargs.get("db") or 0
    client.publish(f"/{database}.celeryev/{routing_key}", _envelope(routing_key, events))


def beat(children: dict[str, bool]) -> None:
    """Send one heartbeat for each child, by its Celery host name: whether it runs a job.

    Celery sends none while a handler runs, or the child takes messages by itself, and Flower would
    show it offline after four seconds.  Raises redis.RedisError.
    """
    if children:
        publish("worker.multi", [_heartbeat(*child) for child in children.items()])


def _heartbeat(hostname: str, is_busy: bool) -> dict[str, Any]:
    return {
        "type": "worker-heartbeat",
        "hostname": hostname,
        "pid": os.getpid(),
        "utcoffset": time.timezone // 3600,
        "clock": 0,
        "timestamp": time.time(),
        "freq": HEARTBEAT_INTERVAL_S,
        "active": int(is_busy),
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
