"""Faults of the product's processes: killed, frozen, ended, at chosen points of a job's path."""

import contextlib
import os
import random
import signal
import time
from uuid import UUID

import psutil
import psycopg

from tests.faults.faults import Done, Victim, done, fault
from tests.faults.stack import WORKERS, Stack

CHILD_LIMIT_S, WORKER_LIMIT_S = 2.0, 15.0
HEARTBEAT_TIMEOUT_S = 8.0  # the product's default
STAGING_S = 5.0  # a fault that can't be staged within this is given up


def worker_children(stack: Stack) -> list[int]:
    """The pids of all children of both workers."""
    return [child.pid for name in WORKERS for child in stack.processes[name].children()]


def victims_of(conn: psycopg.Connection, pids: list[int]) -> list[Victim]:
    """The jobs that these processes run now."""
    found = conn.execute(
        "SELECT execution_id::text, attempt FROM dpe.jobs"
        " WHERE status = 'PROCESSING' AND pid = ANY(%s)",
        [pids],
    )
    return found.fetchall()


def kill(pid: int) -> bool:
    """SIGKILL; False where it was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@fault("child killed in its handler", 6)
def child_killed_in_its_handler(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of a child that runs a job."""
    with stack.database() as conn:
        until = time.monotonic() + STAGING_S
        while time.monotonic() < until:
            pids = worker_children(stack)
            busy = [pid for pid in pids if victims_of(conn, [pid])]
            if busy:
                pid = rng.choice(busy)
                victims, at = victims_of(conn, [pid]), time.time()
                if victims and kill(pid):
                    return done(at, CHILD_LIMIT_S, victims=victims)
    return None


@fault("child killed before its claim", 6)
def child_killed_before_its_claim(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of a child that has the message of a job and waits to claim it.

    A job is claimed a millisecond after its message is there: no row could be caught before, so it
    is the table that is held.
    """
    return _killed_at_the_row(stack, "LOCK TABLE dpe.jobs IN SHARE MODE", "record")


@fault("child killed between COPY and commit", 6)
def child_killed_between_copy_and_commit(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of a child that has written all rows and waits for its job's row, to end it.

    Where its connection dies with it, all is rolled back.  Where not, its last words stand in
    Postgres already, and come through.
    """
    return _killed_at_the_row(
        stack,
        "SELECT execution_id FROM dpe.jobs WHERE status = 'PROCESSING'"
        " ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED",
        "job",
        cut=rng.random() < 0.5,
    )


def _killed_at_the_row(stack: Stack, pick: str, session: str, *, cut: bool = False) -> Done | None:
    """Hold a job's row, or all, until a child's `session` stands before it; kill that child."""
    waiting = """
        SELECT application_name, pid FROM pg_stat_activity
        WHERE application_name LIKE %s AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
        """
    until = time.monotonic() + STAGING_S
    with stack.database() as conn:
        while time.monotonic() < until:
            # A frozen worker would never let go of a lock: what wakes it waits for us.
            with contextlib.suppress(psycopg.errors.LockNotAvailable), conn.transaction():
                conn.execute("SET LOCAL lock_timeout = '1s'")
                picked = conn.execute(pick.encode())
                held = picked.fetchone() if picked.description else (None,)
                # A supervisor that waits for the row must not wait long: 1.5 s, then let go.
                let_go = min(until, time.monotonic() + 1.5)
                while held and time.monotonic() < let_go:
                    found = conn.execute(waiting, [f"dpe-{session} %"]).fetchone()
                    if found:
                        at, pid = time.time(), int(found[0].split()[-1])
                        attempt = _attempt(conn, held[0]) if held[0] else 0
                        if kill(pid):
                            if cut:
                                conn.execute("SELECT pg_terminate_backend(%s)", [found[1]])
                            victims = [(str(held[0]), attempt)] if session == "job" else []
                            return done(at, CHILD_LIMIT_S, victims=victims)
                    time.sleep(0.005)
    return None


def _attempt(conn: psycopg.Connection, id: UUID) -> int:
    found = conn.execute("SELECT attempt FROM dpe.jobs WHERE execution_id = %s", [id]).fetchone()
    assert found
    return found[0]


@fault("child killed right after a commit", 5)
def child_killed_right_after_a_commit(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of a child in the instant in which its job's end can be seen."""
    until = time.monotonic() + STAGING_S
    with stack.database() as conn:
        while time.monotonic() < until:
            running = conn.execute(
                "SELECT execution_id, pid FROM dpe.jobs WHERE status = 'PROCESSING'"
            ).fetchall()
            pids = set(worker_children(stack))
            for id, pid in running:
                while pid in pids and time.monotonic() < until:
                    state = conn.execute(
                        "SELECT status FROM dpe.jobs WHERE execution_id = %s", [id]
                    ).fetchone()
                    if state == ("SUCCESS",) and kill(pid):
                        return done(time.time(), CHILD_LIMIT_S)
                    if state != ("PROCESSING",):
                        break
    return None


@fault("child frozen", 3)
def child_frozen(stack: Stack, rng: random.Random) -> Done | None:
    """SIGSTOP of one child, for good."""
    pids = worker_children(stack)
    if not pids:
        return None
    pid = rng.choice(pids)
    with stack.database() as conn:
        victims, at = victims_of(conn, [pid]), time.time()
        psutil.Process(pid).suspend()
    return done(at, WORKER_LIMIT_S, victims=victims)


@fault("worker killed", 4)
def worker_killed(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of a worker's main process; its children end with it."""
    worker = stack.processes[rng.choice(WORKERS)]
    with stack.database() as conn:
        victims = victims_of(conn, [child.pid for child in worker.children()])
    if worker.pid is None or not kill(worker.pid):
        return None
    return done(time.time(), WORKER_LIMIT_S, victims=victims)


@fault("worker ended (SIGTERM)", 3)
def worker_ended(stack: Stack, rng: random.Random) -> Done | None:
    """SIGTERM of a worker, as in a deploy."""
    worker = stack.processes[rng.choice(WORKERS)]
    if worker.pid is None:
        return None
    worker.signal(signal.SIGTERM)
    return done(time.time())


@fault("worker frozen past its claims", 4)
def worker_frozen_past_its_claims(stack: Stack, rng: random.Random) -> Done | None:
    """SIGSTOP of a worker and all its children for longer than its claims last, then SIGCONT."""
    return freeze(stack, rng, rng.choice(WORKERS))


def freeze(stack: Stack, rng: random.Random, name: str) -> Done | None:
    """Freeze a worker now, and let it wake up later, while other faults go on."""
    worker = stack.processes[name]
    if worker.pid is None or "frozen" in stack.under_way:
        return None
    frozen = [psutil.Process(worker.pid), *worker.children()]
    at = time.time()
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    with stack.database() as conn:
        victims = victims_of(conn, [process.pid for process in frozen])
    seconds = HEARTBEAT_TIMEOUT_S + rng.uniform(2, 5)

    def wake() -> None:
        stack.under_way.discard("frozen")
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    stack.under_way.add("frozen")
    stack.later(seconds, wake)
    return done(at, WORKER_LIMIT_S, victims=victims)


@fault("API process killed", 3)
def api_process_killed(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of one of the processes that answer."""
    children = stack.processes["api"].children()
    if not children or not kill(rng.choice(children).pid):
        return None
    return done(time.time())


@fault("API killed", 2)
def api_killed(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of the API's main process."""
    pid = stack.processes["api"].pid
    if pid is None or not kill(pid):
        return None
    return done(time.time())


@fault("API process frozen", 2)
def api_process_frozen(stack: Stack, rng: random.Random) -> Done | None:
    """SIGSTOP of one of the processes that answer, for a while."""
    children = stack.processes["api"].children()
    if not children:
        return None
    child, at = rng.choice(children), time.time()
    child.suspend()
    stack.rest(rng.uniform(0.5, 2))
    with contextlib.suppress(psutil.NoSuchProcess):
        child.resume()
    return done(at, healed=True)
