"""Faults of the servers and of the way to them."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator

import psutil
import psycopg

from tests.faults.faults import Done, NotHere, done, fault
from tests.faults.process_faults import WORKER_LIMIT_S, kill, victims_of
from tests.faults.stack import Stack

RETURN_S = 20.0  # a server that is not back by then is a broken harness
LIMIT_S = 5.0  # after the return of Postgres or the broker


def some_time(rng: random.Random) -> float:
    """Seconds that an outage lasts."""
    return rng.uniform(0.3, 3.0)


# The broker


@fault("broker killed", 4)
def broker_killed(stack: Stack, rng: random.Random) -> Done:
    """SIGKILL, and a start on the same append-only file."""
    at = time.time()
    stack.valkey.kill()
    stack.rest(some_time(rng))
    stack.valkey.start()
    return done(at, LIMIT_S, healed=True)


@fault("broker restarted empty", 4)
def broker_restarted_empty(stack: Stack, rng: random.Random) -> Done:
    """SIGKILL, and a start without its data."""
    at = time.time()
    stack.valkey.kill()
    shutil.rmtree(stack.valkey.data / "appendonlydir", ignore_errors=True)
    stack.rest(some_time(rng))
    stack.valkey.start()
    return done(at, LIMIT_S, healed=True)


@fault("broker flushed", 4)
def broker_flushed(stack: Stack, rng: random.Random) -> Done:
    """FLUSHALL, in the middle of it all."""
    at = time.time()
    with stack.broker() as client:
        client.flushall()
    return done(at, LIMIT_S)


@fault("broker out of memory", 3)
def broker_out_of_memory(stack: Stack, rng: random.Random) -> Done:
    """Every write is refused for a while."""
    at = time.time()
    with stack.broker() as client:
        client.config_set("maxmemory", "1")
        stack.rest(some_time(rng))
        client.config_set("maxmemory", "0")
    return done(at, LIMIT_S, healed=True)


@fault("broker frozen", 3)
def broker_frozen(stack: Stack, rng: random.Random) -> Done:
    """SIGSTOP for a while: connections stand, nothing answers."""
    at = time.time()
    stack.valkey.signal(signal.SIGSTOP)
    stack.rest(some_time(rng))
    stack.valkey.signal(signal.SIGCONT)
    return done(at, LIMIT_S, healed=True)


@fault("broker unreachable", 3)
def broker_unreachable(stack: Stack, rng: random.Random) -> Done:
    """The first host's way to the broker is cut: closed and refused, or silent."""
    how = rng.choice(["refuse", "stall"])
    return _link_fails(stack, rng, "broker-1", how)


def _link_fails(stack: Stack, rng: random.Random, link: str, how: str) -> Done:
    at = time.time()
    stack.links[link].tell(how)
    stack.rest(some_time(rng))
    stack.links[link].tell("flow")
    return done(at, LIMIT_S, healed=True)


# Postgres


@fault("Postgres restarted (immediate)", 3)
def postgres_restarted_immediate(stack: Stack, rng: random.Random) -> Done:
    """SIGQUIT (`pg_ctl stop -m immediate`), and a start that reads its log of changes."""
    at = time.time()
    stack.postgres.signal(signal.SIGQUIT)
    stack.postgres.ended_within(10)
    stack.rest(rng.uniform(0.1, 2))
    stack.postgres.start()
    return done(at, LIMIT_S, healed=True)


@fault("Postgres backend killed", 3)
def postgres_backend_killed(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of one server process: Postgres ends all sessions and recovers, by itself."""
    with stack.database() as conn:
        pids = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dpe-job %'"
        ).fetchall()
        at = time.time()
        if not pids or not kill(rng.choice(pids)[0]):
            return None
        with contextlib.suppress(psycopg.OperationalError):
            while time.time() < at + RETURN_S:  # until this session is ended as well
                conn.execute("SELECT pg_sleep(0.01)")
    _until_postgres_answers(stack)
    return done(at, LIMIT_S, healed=True)


@fault("Postgres sessions cut", 4)
def postgres_sessions_cut(stack: Stack, rng: random.Random) -> Done:
    """`pg_terminate_backend` of every session."""
    at = time.time()
    with stack.database() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    return done(at, LIMIT_S)


@fault("Postgres slow", 3)
def postgres_slow(stack: Stack, rng: random.Random) -> Done:
    """Every piece of data to and from Postgres comes 20 to 100 ms late."""
    delay = f"delay {rng.uniform(0.02, 0.1):.3f}"
    return _link_fails(stack, rng, "postgres-1", delay)


@fault("Postgres unreachable", 3)
def postgres_unreachable(stack: Stack, rng: random.Random) -> Done:
    """The first host's way to Postgres is cut: closed and refused, or silent."""
    how = rng.choice(["refuse", "stall"])
    return _link_fails(stack, rng, "postgres-1", how)


@fault("Postgres out of connections", 2)
def postgres_out_of_connections(stack: Stack, rng: random.Random) -> Done:
    """Somebody else takes every connection that is left, and those that come free."""
    at, taken = time.time(), []
    with stack.database() as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name"
            " LIKE 'dpe-%' AND random() < 0.5"
        )
        until = time.monotonic() + some_time(rng)
        while time.monotonic() < until:
            try:
                taken.append(psycopg.connect(stack.postgres.url, application_name="greedy"))
            except psycopg.OperationalError:
                stack.rest(0.05)
    for one in taken:
        one.close()
    return done(at, LIMIT_S, healed=True)


@fault("disk full", 2)
def disk_full(stack: Stack, rng: random.Random) -> Done:
    """The servers' disk is full for a while; where Postgres gives up over it, it is restarted."""
    if stack.why_no_disk:
        raise NotHere(stack.why_no_disk)
    at, filler = time.time(), stack.folder / "home" / "filler"
    with filler.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
    stack.rest(some_time(rng))
    filler.unlink()
    if stack.postgres.pid is None:
        stack.postgres.start()
    if stack.valkey.pid is None:
        stack.valkey.start()
    _until_postgres_answers(stack)
    return done(at, LIMIT_S, healed=True)


def _until_postgres_answers(stack: Stack) -> None:
    deadline = time.monotonic() + RETURN_S
    while not stack.postgres.ready():
        assert time.monotonic() < deadline, "Postgres does not come back"
        stack.rest(0.05)


# The second host


@fault("host cut off", 3)
def host_cut_off(stack: Stack, rng: random.Random) -> Done | None:
    """The second host's cable is pulled, for a moment or for longer than its claims last."""
    if stack.why_no_host:
        raise NotHere(stack.why_no_host)
    if "cut off" in stack.under_way:
        return None
    with _victims(stack, "worker-2") as victims:
        at = time.time()
        stack.host.cut()
    stack.under_way.add("cut off")

    def heal() -> None:
        stack.under_way.discard("cut off")
        stack.host.heal()

    stack.later(rng.choice([1.0, 4.0, 11.0]), heal)
    return done(at, WORKER_LIMIT_S, victims=victims)


@contextlib.contextmanager
def _victims(stack: Stack, worker: str) -> Iterator[list[tuple[str, int]]]:
    pids = [child.pid for child in stack.processes[worker].children()]
    with stack.database() as conn:
        yield victims_of(conn, pids)


@fault("Flower killed", 2)
def flower_killed(stack: Stack, rng: random.Random) -> Done | None:
    """SIGKILL of Flower."""
    pid = stack.processes["flower"].pid
    if pid is None:
        return None
    psutil.Process(pid).kill()
    return done(time.time())
