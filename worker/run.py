"""The Celery task: from a message to the attempts of its jobs."""

import contextlib
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator

from celery import Task
from celery.worker import state
from redis import RedisError

from worker import broker
from worker.attempt import execute
from worker.broker import celery
from worker.child import Child, this_process
from worker.store.publishing import Message

HOLD_UP_S = 0.1  # the jobs of one message share no more than this
TAKE_S = 0.5  # so long a child takes messages by itself, and Celery sees nothing else
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


class _HoldUp:
    """Hands back what is left of a message whose jobs take too long.

    By a thread that looks from time to time: one that is woken for each message, like
    threading.Timer, takes a twentieth of the time of a short job.
    """

    def __init__(self) -> None:
        self._rest: tuple[float, deque[Message]] | None = None
        threading.Thread(target=self._look_for_ever, name="hold-up", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, rest: deque[Message]) -> Iterator[None]:
        """Look after these as long as this lasts, and leave none of them at its end."""
        self._rest = time.monotonic() + HOLD_UP_S, rest
        try:
            yield
        finally:
            self._rest = None
            hand_back(rest)

    def _look_for_ever(self) -> None:
        while True:
            time.sleep(HOLD_UP_S / 2)
            watched = self._rest
            if watched is not None and time.monotonic() > watched[0]:
                hand_back(watched[1])


_hold_up = functools.cache(_HoldUp)  # made by the first message, after the fork (F20)


def _run_all(this: Child, messages: list[Message]) -> None:
    rest = deque(messages)
    with _hold_up().watching(rest):
        while rest:
            with contextlib.suppress(IndexError):  # the thread was quicker
                execute(this, rest.popleft().execution_id)


def hand_back(rest: deque[Message]) -> None:
    """Publish again what is left of a message, each job by itself."""
    messages = []
    while rest:
        with contextlib.suppress(IndexError):
            messages.append(rest.popleft())
    with contextlib.suppress(RedisError):  # then the watch finds them
        broker.publish(messages, bundle=1)
