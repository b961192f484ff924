"""The Celery task: from a message to the attempts of its jobs."""

import contextlib
import os
import threading
import time
from collections import deque

from celery import Task
from celery.worker import state
from redis import RedisError

from worker import broker
from worker.attempt import execute
from worker.broker import celery
from worker.child import Child, this_process
from worker.store.publishing import Message

HOLD_UP_S = 0.1  # the jobs of one message share no more than this
TAKE_S = 0.05  # so long a child takes messages by itself, and Celery sees nothing else
TAKE_TIMEOUT_S = 0.005  # that it waits for one


# No events of Celery's own: `worker.events` tells what it would, when it happens.
@celery.task(name="run", bind=True, ignore_result=True, send_events=False)
def run(self: Task, *others: list[str]) -> None:
    """The one task.  Its id is the execution id of its (first) job.

    `others`, (execution id, action's name) each, are further jobs of the same message.  Each has
    its own transaction, status and log.  They are run after the first; where that takes long they
    go back to the broker, so that a slow job holds up nobody.
    """
    this, began = this_process(), time.monotonic()
    request = self.request
    jobs = [(request.id, request.shadow or ""), *others]
    waiting = broker.jobs_of(jobs, request.delivery_info["priority"])
    while waiting:
        _run_all(this, waiting)
        if this.is_worn():
            state.should_stop = os.EX_OK
        # To take the next message here costs a tenth of what it costs to get it from Celery.
        waiting = []
        if time.monotonic() - began < TAKE_S and state.should_stop is None:
            with contextlib.suppress(RedisError):
                waiting = broker.take(TAKE_TIMEOUT_S)


def _run_all(this: Child, messages: list[Message]) -> None:
    if len(messages) == 1:
        execute(this, messages[0].execution_id)
        return
    rest = deque(messages)
    timer = threading.Timer(HOLD_UP_S, hand_back, [rest])
    timer.start()
    try:
        while rest:
            with contextlib.suppress(IndexError):  # the timer was quicker
                execute(this, rest.popleft().execution_id)
    finally:
        timer.cancel()
        hand_back(rest)


def hand_back(rest: deque[Message]) -> None:
    """Publish again what is left of a message, each job by itself."""
    messages = []
    while rest:
        with contextlib.suppress(IndexError):
            messages.append(rest.popleft())
    with contextlib.suppress(RedisError):  # then the watch finds them
        broker.publish(messages, bundle=1)
