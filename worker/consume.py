"""One child of the worker: a Celery worker of the `solo` pool, one job at a time.

Several of these under one supervisor carry several times what one Celery main process with as
many prefork children does: there the main process, which feeds the children, is the limit.
"""

import logging
import signal
import socket
from importlib import import_module

from celery import signals
from celery.apps.worker import Worker
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.connection import Connection
from pandas import DataFrame

from worker.attempt import show_where_and_exit
from worker.broker import celery
from worker.child import Child, become
from worker.errors import DpeError

logger = logging.getLogger("worker.consume")

# What Celery would load in each child: loaded before the fork, its memory is shared.
_SHARED = (
    "worker.run",
    "billiard.dummy",
    "billiard.pool",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.backends.base",
    "celery.concurrency.solo",
    "celery.events.receiver",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "kombu.pidbox",
    "kombu.transport.redis",
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 0.8  # between two tries to reach the broker


class QuickConsumer(Consumer):
    """Celery's consumer, trying its broker each second; Celery's own pauses grow to 30 s."""

    def ensure_connected(self, conn: Connection) -> Connection:
        """Try until the broker answers, or the process is told to stop."""
        conn.ensure_connection(
            lambda error, _pause_s: logger.info("waiting for the broker: %s", error),
            interval_start=FIRST_PAUSE_S,
            interval_step=FIRST_PAUSE_S,
            interval_max=LONGEST_PAUSE_S,
            callback=state.maybe_shutdown,
        )
        return conn


def load_before_fork() -> None:
    """Load what all children need, so that they share it; opens no connection."""
    for name in _SHARED:
        import_module(name)
    # What pandas and Arrow make ready for their first frame: 4 MB, in each child otherwise.
    DataFrame([{"number": 1, "text": ""}])["text"] = ""
    celery.finalize()


def consume(this: Child) -> None:
    """Take jobs until told to stop (SIGTERM: after the running one) or until it is time to go."""
    become(this)
    worker = Worker(
        app=celery,
        hostname=this.events.hostname,
        pool="solo",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        quiet=True,
        loglevel="WARNING",
    )
    worker.start()
    if worker.exitcode:
        raise DpeError(f"the Celery worker ended with exit code {worker.exitcode}")


def hostname(index: int, supervisor_pid: int) -> str:
    """The name under which Celery, and so Flower, knows a child."""
    return f"child{index + 1}.{supervisor_pid}@{socket.gethostname()}"


@signals.setup_logging.connect
def keep_our_logging(**_: object) -> None:
    """Celery leaves logging alone where this signal is answered; `logs.install` has set it up."""


@signals.worker_ready.connect
def get_ready(**_: object) -> None:
    """What can be set only now, since Celery has set its own before."""
    signal.signal(signal.SIGUSR1, show_where_and_exit)  # the supervisor: not your job any more
