"""What dies or comes together at the worst moment: every step is done once, every run ends once."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import psutil
import psycopg
import pytest

from tests.app.conftest import Hand
from tests.stack import Engine, until
from tests.worker.workflows import log, prepare, ran, stages, start, steps
from worker.errors import ClaimLost
from worker.store import jobs, lost_claims


@pytest.fixture
def engine(engine: Engine) -> Engine:
    prepare(engine)
    return engine


@pytest.fixture
def hand(engine: Engine) -> Hand:
    return Hand(engine.conn, os.environ["DPE_DATABASE_URL"])


@contextmanager
def locked(run: UUID) -> Iterator[None]:
    """Nobody gets the run's row meanwhile: who ends a step waits, with the step's end made."""
    with psycopg.connect(os.environ["DPE_DATABASE_URL"]) as conn:
        conn.execute("SELECT FROM dpe.jobs WHERE execution_id = %s FOR UPDATE", [run])
        yield
        conn.rollback()


def waiting(engine: Engine) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return engine.rows(query)[0][0]


def execution(engine: Engine, run: UUID, step: str) -> str:
    row = engine.conn.execute(
        "SELECT execution_id FROM dpe.jobs WHERE run_id = %s AND step = %s", [run, step]
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_f12_two_steps_that_end_at_the_same_instant_start_what_follows_once(
    engine: Engine, hand: Hand
) -> None:
    run = start(engine, stages(["a", "b"], ["c"]))
    both = [hand.claim(execution(engine, run, name)) for name in ("a", "b")]
    with ThreadPoolExecutor(2) as threads:
        with locked(run):
            ends = [threads.submit(hand.succeed, job) for job in both]
            until(lambda: waiting(engine) == 2)
        for end in ends:
            end.result()
    assert steps(engine, run) == {"a": "SUCCESS", "b": "SUCCESS", "c": "QUEUED"}
    hand.run(execution(engine, run, "c"))
    assert engine.job(run).status == "SUCCESS"
    assert sum("END workflow" in line for line in log(engine, run)) == 1


def test_many_runs_whose_steps_end_together(engine: Engine) -> None:
    engine.worker(children=4)
    flow = stages(["a", "b", "c", "d"], ["e"], ["f", "g"])
    runs = [start(engine, flow) for _ in range(40)]
    for run in runs:
        assert engine.ended(run, 60).status == "SUCCESS"
        assert ran(engine, run) == list("abcdefg")
        assert steps(engine, run) == dict.fromkeys("abcdefg", "SUCCESS")


def test_f12_a_worker_killed_between_a_steps_rows_and_its_commit(engine: Engine) -> None:
    run = start(engine, stages(["a"], ["b"]))
    with locked(run):
        engine.worker()
        until(lambda: waiting(engine) == 1)  # its rows are written, its end and what follows not
        pid = engine.rows("SELECT pid FROM dpe.jobs WHERE step = 'a'")[0][0]
        os.kill(pid, signal.SIGKILL)
        until(lambda: engine.rows("SELECT losses FROM dpe.jobs WHERE step = 'a'") == [(1,)])
    assert engine.ended(run).status == "SUCCESS"
    assert ran(engine, run) == ["a", "b"]
    query = "SELECT step, attempt FROM dpe.jobs WHERE run_id IS NOT NULL ORDER BY 1"
    assert engine.rows(query) == [("a", 2), ("b", 1)]
    assert sum("END workflow" in line for line in log(engine, run)) == 1


def test_f12_a_worker_killed_between_a_steps_commit_and_publishing(
    engine: Engine, hand: Hand
) -> None:
    run = start(engine, stages(["a"], ["b"]))
    engine.redis.flushall()
    hand.run(execution(engine, run, "a"))  # what follows is stored, and nobody published it
    assert steps(engine, run) == {"a": "SUCCESS", "b": "QUEUED"}
    engine.worker()
    assert engine.ended(run).status == "SUCCESS"
    assert ran(engine, run) == ["b"]


def test_a_stop_while_a_step_ends_lets_nothing_follow(engine: Engine, hand: Hand) -> None:
    run = start(engine, stages(["a"], ["b"]))
    job = hand.claim(execution(engine, run, "a"))
    with ThreadPoolExecutor(2) as threads:
        with locked(run):
            end = threads.submit(hand.succeed, job)
            until(lambda: waiting(engine) == 1)
            stop = threads.submit(_stop, run)
            until(lambda: waiting(engine) == 2)
        end.result()
        stop.result()
    # Whichever came first: the run has ended, and so has all that it started.
    assert engine.job(run).status == "STOPPED"
    assert set(steps(engine, run).values()) <= {"SUCCESS", "STOPPED"}
    assert steps(engine, run)["a"] == "SUCCESS"


def _stop(run: UUID) -> None:
    with psycopg.connect(os.environ["DPE_DATABASE_URL"], autocommit=True) as conn:
        assert jobs.stop(conn, run, "test")


def test_who_lost_the_claim_of_a_step_starts_nothing(engine: Engine, hand: Hand) -> None:
    run = start(engine, stages(["a"], ["b"]))
    id = execution(engine, run, "a")
    lost = hand.claim(id)
    lost_claims.give_back(engine.conn, [(UUID(id), 1)], "test", 5)
    with pytest.raises(ClaimLost):
        hand.succeed(lost)
    lost.conn.close()
    assert steps(engine, run) == {"a": "SUBMITTED"}


def test_a_step_is_lost_for_good_and_what_follows_starts_in_the_same_commit(
    engine: Engine, hand: Hand
) -> None:
    run = start(engine, stages(["a"], ["b"]))
    id = execution(engine, run, "a")
    hand.claim(id).conn.close()
    with ThreadPoolExecutor(1) as threads:
        with locked(run):
            taken = threads.submit(_give_back, UUID(id))
            until(lambda: waiting(engine) == 1)
            assert steps(engine, run) == {"a": "PROCESSING"}  # the end waits for what follows it
        assert taken.result() == 1
    assert steps(engine, run) == {"a": "FAILED", "b": "SUBMITTED"}


def _give_back(id: UUID) -> int:
    with psycopg.connect(os.environ["DPE_DATABASE_URL"], autocommit=True) as conn:
        return lost_claims.give_back(conn, [(id, 1)], "test", 1)


def test_a_run_that_cannot_be_followed_ends_and_holds_up_nobody(engine: Engine, hand: Hand) -> None:
    run, other = (start(engine, stages(["a"], ["b"])) for _ in range(2))
    # As a version to come might write it.
    plan = '{"stages": [], "steps": [{"new": 1}]}'
    engine.conn.execute("UPDATE dpe.jobs SET plan = %s WHERE execution_id = %s", [plan, run])
    ids = [execution(engine, one, "a") for one in (run, other)]
    for id in ids:
        hand.claim(id).conn.close()
    assert lost_claims.give_back(engine.conn, [(UUID(id), 1) for id in ids], "test", 1) == 2
    assert engine.job(run).status == "FAILED"
    assert "can't follow its plan" in str(engine.job(run).error)
    assert steps(engine, other) == {"a": "FAILED", "b": "SUBMITTED"}


@pytest.mark.slow
def test_a_worker_frozen_between_a_steps_rows_and_its_commit(engine: Engine) -> None:
    run = start(engine, stages(["a", "b"], ["c"]))
    with locked(run):
        frozen = engine.worker()
        until(lambda: waiting(engine) == 2)
        for process in [*frozen.children(), psutil.Process(frozen.pid)]:
            process.suspend()
    # One of its sessions has the run's lock by now, and will never do anything with it.
    engine.worker()
    assert engine.ended(run, 20).status == "SUCCESS"
    assert ran(engine, run) == ["a", "b", "c"]
