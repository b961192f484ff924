"""The worker's main process: forks the children, beats for them, and knows when one is lost.

It runs no handler and no Celery loop, so nothing that a job does can hold it up.  One thread, one
connection to Postgres with short timeouts; whatever fails is tried again at the next turn.
"""

import contextlib
import gc
import logging
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
from redis import RedisError

from worker import folders, logs
from worker.child import Child
from worker.child_process import (
    IDLE_LIMIT_S,
    ChildProcess,
    kill,
    replace_frozen,
    replace_idle,
)
from worker.consume import consume, hostname, load_before_fork
from worker.die_with_parent import die_with_parent
from worker.events import HEARTBEAT_INTERVAL_S, JobEvents, beat
from worker.lead import Lead
from worker.settings import Settings
from worker.slots import Slots
from worker.store import lost_claims, workers
from worker.store.database import connect
from worker.store.migrate import check
from worker.watch import Watch, publish_due

logger = logging.getLogger("worker.supervise")

TURN_S = 0.2
LOOK_INTERVAL_S = 0.4
KILL_AFTER_S = 0.7  # between asking a child to show where it is and killing it
FAILED_FORK_PAUSE_S = 1.0
# Where cores are few, accepting comes before working: a start that is not answered is lost to its
# caller, a job that waits is not.  And jobs that wait are done several at a time.
NICENESS = 5


def main(settings: Settings) -> None:
    """Run a worker with `settings.workers` children until SIGTERM or SIGINT."""
    logs.install()
    with contextlib.closing(connect(settings.database(), "dpe-supervisor")) as conn:
        check(conn)
    Supervisor(settings).serve()


class Supervisor:
    """One worker: its row in Postgres, its children, its share in the watch."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker_id: UUID = uuid4()
        self.children: dict[int, ChildProcess] = {}  # by index of the slot
        self.slots = Slots(settings.workers)
        self.lead = Lead()
        self.folder = folders.make()
        self.stopping = False
        self.conn: psycopg.Connection | None = None
        self.watch = Watch(settings)
        self.next_beat = self.next_look = 0.0  # of time.monotonic()
        self.next_check = self.next_telling = 0.0
        self.jobs_taken = 0
        self.suspects: set[tuple[UUID, int]] = set()
        self.fork_at = 0.0

    def serve(self) -> None:
        """The loop: reap, fork, beat, look after the claims, keep the watch."""
        wake = self._wake_on_signals()
        load_before_fork()
        gc.collect()
        gc.freeze()  # what is loaded now stays shared with the children
        try:
            while not self.stopping:
                self._turn()
                select.select([wake], [], [], TURN_S)
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
        finally:
            self._end()

    def _wake_on_signals(self) -> int:
        def stop(*_: object) -> None:
            self.stopping = True

        wake, woken = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return wake

    def _turn(self) -> None:
        died, now = self._reap(), time.monotonic()
        try:
            if died or now >= self.next_look:
                self.next_look = now + LOOK_INTERVAL_S
                conn = self._connection()
                self._beat(conn, now)
                self._look_after_claims(conn)
                self.watch.keep(conn)
                self._fork_missing()
        except psycopg.Error as error:
            logger.warning("no turn with the database: %s", str(error).strip())
            self._disconnect()
        self._kill_overdue()
        if now >= self.next_check:
            self.next_check = now + IDLE_LIMIT_S / 5
            replace_idle(self.children, self.slots)
            replace_frozen(self.children)
        if now >= self.next_telling:
            self.next_telling = now + HEARTBEAT_INTERVAL_S
            self._tell_that_they_live()

    # The children

    def _fork_missing(self) -> None:
        if time.monotonic() < self.fork_at:
            return
        for index in range(self.settings.workers):
            if index not in self.children:
                ask_the_kernel = die_with_parent()
                pid = os.fork()
                if pid == 0:
                    self._become_child(index, ask_the_kernel)
                taken = self.slots.read(index).jobs_taken
                self.children[index] = ChildProcess(pid, time.monotonic(), taken)

    def _become_child(self, index: int, ask_the_kernel: Callable[[], None]) -> None:
        status = 1
        try:
            ask_the_kernel()
            os.nice(NICENESS)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C in a terminal reaches the whole group; the supervisor alone decides on it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if self.conn is not None:
                os.close(self.conn.fileno())  # the session is the supervisor's alone
            events = JobEvents(hostname(index, os.getppid()))
            consume(Child(self.worker_id, index, self.slots, self.folder, events, self.lead))
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            logger.exception("a child could not go on")
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> bool:
        """Collect dead children; return whether there was one."""
        died = False
        for index, child in list(self.children.items()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                died = True
                del self.children[index]
                self.slots.release(index)
                self._note_death(child, os.waitstatus_to_exitcode(status))
        return died

    def _note_death(self, child: ChildProcess, code: int) -> None:
        if code == 0:
            return
        how = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        logger.warning("child %d ended: %s", child.pid, how)
        if code > 0 and time.monotonic() - child.born < FAILED_FORK_PAUSE_S:
            self.fork_at = time.monotonic() + FAILED_FORK_PAUSE_S

    def _kill_overdue(self) -> None:
        for child in self.children.values():
            if child.kill_at is not None and time.monotonic() > child.kill_at:
                kill(child.pid, signal.SIGKILL)

    def _tell_that_they_live(self) -> None:
        busy = {index: self.slots.read(index).claim is not None for index in self.children}
        with contextlib.suppress(RedisError):
            beat({hostname(index, os.getpid()): is_busy for index, is_busy in busy.items()})

    # The record

    def _connection(self) -> psycopg.Connection:
        if self.conn is None:
            self.conn = connect(self.settings.database(), "dpe-supervisor")
            self.conn.execute("SET statement_timeout = '5s'")
            # A supervisor that is frozen in a transaction must not hold its row locks for ever.
            self.conn.execute("SET idle_in_transaction_session_timeout = '5s'")
        return self.conn

    def _disconnect(self) -> None:
        if self.conn is not None:
            self.conn.close()
        self.conn = None

    def _beat(self, conn: psycopg.Connection, now: float) -> None:
        if now < self.next_beat:
            return
        self.next_beat = now + self.settings.heartbeat_interval_s
        taken = sum(self.slots.read(index).jobs_taken for index in range(self.settings.workers))
        progress, self.jobs_taken = taken != self.jobs_taken, taken
        if not workers.beat(conn, self.worker_id, progress=progress):
            workers.register(
                conn, self.worker_id, socket.gethostname(), os.getpid(), self.settings.workers
            )

    def _look_after_claims(self, conn: psycopg.Connection) -> None:
        """Hold what Postgres says against what the children say, and mend both ways.

        A claim that no child works on goes back in line; a child whose job is no longer its own
        (stopped, timed out, taken over) is killed.  Both are believed only when seen twice, since
        between a claim's commit and the slot's writing there is a moment; but a claim of a process
        that is gone, at once.
        """
        alive = {child.pid for child in self.children.values()}
        recorded = {
            (id, attempt): pid for id, attempt, pid in lost_claims.owned(conn, self.worker_id)
        }
        said = {
            doing: child
            for index, child in self.children.items()
            if (doing := self.slots.read(index).claim) is not None
        }
        odd = recorded.keys() ^ said.keys()
        orphans = [
            claim
            for claim, pid in recorded.items()
            if pid not in alive or (claim not in said and claim in self.suspects)
        ]
        if orphans:
            why = "its process ended or lost the database"
            lost_claims.give_back(conn, orphans, why, self.settings.max_losses)
            with contextlib.suppress(RedisError):  # then the watch does it
                publish_due(conn)
        for claim, child in said.items():
            if claim not in recorded and claim in self.suspects:
                self._ask_to_die(child)
        self.suspects = odd

    def _ask_to_die(self, child: ChildProcess) -> None:
        if child.kill_at is None:
            child.kill_at = time.monotonic() + KILL_AFTER_S
            kill(child.pid, signal.SIGUSR1)  # it writes down where it is

    def _end(self) -> None:
        """Let running jobs end within the grace; then end the children, put back their jobs."""
        for child in self.children.values():
            kill(child.pid, signal.SIGTERM)
        began = time.monotonic()
        while self.children and time.monotonic() < began + self._grace():
            with contextlib.suppress(psycopg.Error):
                self._beat(self._connection(), time.monotonic())
            self._reap()
            time.sleep(0.02)
        for child in self.children.values():
            kill(child.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        with contextlib.suppress(psycopg.Error):
            conn = self._connection()
            rest = [(id, attempt) for id, attempt, _ in lost_claims.owned(conn, self.worker_id)]
            lost_claims.give_back(conn, rest, "its worker was shut down", None)
            workers.leave(conn, self.worker_id)
        self._disconnect()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _grace(self) -> float:
        """Seconds for the children to end: the setting where one runs a job, else a moment."""
        busy = any(self.slots.read(index).claim for index in self.children)
        return self.settings.shutdown_grace_s if busy else min(1.5, self.settings.shutdown_grace_s)
