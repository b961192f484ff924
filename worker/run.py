"""The Celery task: from a message to the attempts of its jobs, and their ends to Flower."""

import contextlib
import threading
import time
from collections import deque
from datetime import UTC, datetime
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore, Retry
from redis import RedisError

from worker import broker
from worker.attempt import End, execute
from worker.broker import celery
from worker.child import Child, this_process
from worker.store.publishing import Message

HOLD_UP_S = 0.1  # the jobs of one message share no more than this
# A message stamped so says nothing of what was published before it (see `take_overtaken`).
EPOCH = datetime.fromtimestamp(0, UTC)


class JobFailed(Exception):
    """How a failed job's end reaches Celery, so that Flower shows it; the record has it all."""


@celery.task(name="run", bind=True, ignore_result=True, throws=(JobFailed,))
def run(self: Task, *others: list[str]) -> None:
    """The one task.  Its id is the execution id of its (first) job.

    `others`, (execution id, action's name) each, are further jobs of the same message.  Each has
    its own transaction, status and log.  They are run after the first; where that takes long they
    go back to the broker, so that a slow job holds up nobody.
    """
    this = this_process()
    if not others:
        _tell_celery(execute(this, UUID(self.request.id)))
        return
    this.rest.extend((id, name) for id, name in others)
    priority = self.request.delivery_info["priority"]
    timer = threading.Timer(HOLD_UP_S, hand_back, [this.rest, priority])
    timer.start()
    try:
        first = execute(this, UUID(self.request.id))
        while this.rest:
            with contextlib.suppress(IndexError):  # the timer was quicker
                id, name = this.rest.popleft()
                _run_watched(this, id, name)
    finally:
        timer.cancel()
        hand_back(this.rest, priority)
    _tell_celery(first)


def hand_back(rest: deque[tuple[str, str]], priority: int) -> None:
    """Publish again what is left of a message, each job by itself."""
    messages = []
    while rest:
        with contextlib.suppress(IndexError):
            id, name = rest.popleft()
            messages.append(Message(UUID(id), name, EPOCH, priority))
    with contextlib.suppress(RedisError):  # then the watch finds them
        broker.publish(messages, bundle=1)


def _tell_celery(end: End | None) -> None:
    if end is None:
        raise Ignore  # whoever has it, or ended it, tells of it
    if end.status == "RETRY":
        raise Retry(end.error)  # only said: the job is back in line in Postgres
    if end.status != "SUCCESS":
        raise JobFailed(end.error)


def _run_watched(this: Child, id: str, name: str) -> None:
    """Run a job that came with another's message, and send the events that Celery would send."""
    send = this.send_event or (lambda *_, **__: None)
    send("task-received", uuid=id, name=name, args="()", kwargs="{}", root_id=id, retries=0)
    send("task-started", uuid=id)
    began = time.monotonic()
    end = execute(this, UUID(id))
    if end is None:
        return
    if end.status == "SUCCESS":
        send("task-succeeded", uuid=id, result="None", runtime=time.monotonic() - began)
    else:
        kind = "task-retried" if end.status == "RETRY" else "task-failed"
        send(kind, uuid=id, exception=f"JobFailed({end.error!r})", traceback="")
