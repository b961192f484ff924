"""The children of a worker as its supervisor sees them: processes that must make progress."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import psutil
from redis import RedisError

from worker import broker
from worker.slots import Slots

logger = logging.getLogger("worker.supervise")

IDLE_LIMIT_S = 3.0  # a child that takes nothing for so long while jobs wait is replaced
FROZEN_LIMIT_S = 3.0  # longer than a debugger's glance
NEWBORN_S = 10.0  # so long a child may take to get ready


@dataclass(slots=True)
class ChildProcess:
    """A forked child, as its supervisor sees it."""

    pid: int
    born: float
    jobs_taken: int = 0
    busy_at: float = field(default_factory=time.monotonic)
    kill_at: float | None = None
    frozen_at: float | None = None


def replace_idle(children: Mapping[int, ChildProcess], slots: Slots) -> None:
    """Liveness is progress: a child that takes no job while jobs wait is replaced (F5, F17)."""
    try:
        waiting, _ = broker.next_published_at()
    except RedisError:
        waiting = 0  # without a broker nobody can take anything: no reason to replace (F18)
    now = time.monotonic()
    for index, child in children.items():
        doing = slots.read(index)
        if not waiting or doing.claim or doing.jobs_taken != child.jobs_taken:
            child.jobs_taken, child.busy_at = doing.jobs_taken, now
        elif now - child.busy_at > IDLE_LIMIT_S and now - child.born > NEWBORN_S:
            logger.warning("child %d takes no job though jobs wait: replaced", child.pid)
            kill(child.pid, signal.SIGKILL)


def replace_frozen(children: Mapping[int, ChildProcess]) -> None:
    """A child that somebody has stopped (SIGSTOP, a debugger) would keep its job for ever."""
    now = time.monotonic()
    for child in children.values():
        if not _is_stopped(child.pid):
            child.frozen_at = None
        elif child.frozen_at is None:
            child.frozen_at = now
        elif now - child.frozen_at > FROZEN_LIMIT_S:
            logger.warning("child %d is frozen: replaced", child.pid)
            kill(child.pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
    except psutil.NoSuchProcess:
        return False


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
