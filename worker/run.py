"""The Celery task: from a message to the attempts of its jobs."""

import contextlib
import os
import time

from celery import Task
from celery.worker import state
from redis import RedisError

from worker import broker
from worker.broker import celery
from worker.bundle import run_all
from worker.child import Child, this_process
from worker.store.publishing import Message

# So long a child takes messages by itself, at a tenth of what it costs to get them from Celery;
# which sees nothing meanwhile, and answers nobody.
TAKE_S = 6.0
WAIT_S = 0.2  # that the leader waits for a message before it lets Celery wait
LOOK_S = 0.2  # after which a follower looks whether anybody takes them
SHORT_S = 0.01  # a job that takes longer holds up others by more than the waking of a follower
SLOW_BUNDLES = 2  # in a row, and no accident


# No events of Celery's own: `worker.events` tells what it would, when it happens.
@celery.task(name="run", bind=True, ignore_result=True, send_events=False)
def run(self: Task) -> None:
    """The one task.  Its id is the execution id of its job."""
    this, until = this_process(), time.monotonic() + TAKE_S
    request = self.request
    priority = request.delivery_info["priority"]
    waiting = [broker.taken_job(request.id, request.shadow or "", priority)]
    this.lead.take()
    while waiting:
        if this.slow_bundles >= SLOW_BUNDLES:
            this.lead.hand_on()
        began = time.monotonic()
        run_all(this, waiting)
        is_slow = time.monotonic() - began > SHORT_S * len(waiting)
        this.slow_bundles = this.slow_bundles + 1 if is_slow else 0
        if this.is_worn():
            state.should_stop = os.EX_OK
            this.lead.hand_on()
        waiting = _next(this, until)


def _next(this: Child, until: float) -> list[Message]:
    """The next messages; none: it is Celery's turn."""
    with contextlib.suppress(RedisError):
        while time.monotonic() < until and state.should_stop is None:
            leads = this.lead.take()
            messages, are_left = broker.take()
            if messages:
                if are_left:
                    this.lead.call()
                return messages
            if are_left:
                return []  # one that Celery alone can judge
            if leads:
                return broker.wait(WAIT_S)
            this.lead.follow(LOOK_S)
    return []
