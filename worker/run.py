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
from worker.child import this_process

TAKE_S = 0.5  # so long a child takes messages by itself, and Celery sees nothing else
TAKE_TIMEOUT_S = 0.2  # that it waits for one: Celery's own way to it takes longer


# No events of Celery's own: `worker.events` tells what it would, when it happens.
@celery.task(name="run", bind=True, ignore_result=True, send_events=False)
def run(self: Task) -> None:
    """The one task.  Its id is the execution id of its job."""
    this, began = this_process(), time.monotonic()
    request = self.request
    priority = request.delivery_info["priority"]
    waiting = [broker.taken_job(request.id, request.shadow or "", priority)]
    while waiting:
        run_all(this, waiting)
        if this.is_worn():
            state.should_stop = os.EX_OK
        # To take the next messages here costs a tenth of what it costs to get them from Celery.
        waiting = []
        if time.monotonic() - began < TAKE_S and state.should_stop is None:
            with contextlib.suppress(RedisError):
                waiting = broker.take(TAKE_TIMEOUT_S)
