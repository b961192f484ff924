"""What dies, freezes, or forgets: every accepted job ends once, its rows are there once."""

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.stack import Engine, until
from worker import broker
from worker import folders as folders_module

SLOW = """
import time
from worker.store import claims
def handle(event):
    claims.running.conn.execute("INSERT INTO data_prim.t VALUES (%s)", [event.content["n"]])
    time.sleep(event.content.get("sleep", 0))
    return event.attempt
"""


@pytest.fixture
def engine(engine: Engine) -> Engine:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (n int)")
    return engine


def numbers(engine: Engine) -> list[int]:
    return [n for (n,) in engine.rows("SELECT n FROM data_prim.t ORDER BY n")]


def pid_of(engine: Engine, execution_id: object) -> int:
    row = engine.conn.execute(
        "SELECT pid FROM dpe.jobs WHERE execution_id = %s", [execution_id]
    ).fetchone()
    assert row is not None
    return row[0]


def test_f02_a_killed_child_loses_no_job_and_doubles_no_row(engine: Engine) -> None:
    engine.worker()
    id = engine.start(engine.push(SLOW), {"n": 1, "sleep": 2})
    engine.running(id)
    os.kill(pid_of(engine, id), signal.SIGKILL)
    until(lambda: engine.job(id).attempt == 2, 2)  # taken back at once, not at a timeout
    job = engine.ended(id)
    assert (job.status, job.result, job.losses) == ("SUCCESS", 2, 1)
    assert numbers(engine) == [1]


def test_f02_a_killed_worker_loses_no_job_and_doubles_no_row(engine: Engine) -> None:
    first = engine.worker()
    id = engine.start(engine.push(SLOW), {"n": 1, "sleep": 2})
    engine.running(id)
    children = first.children()
    first.process.kill()
    first.process.wait()
    until(lambda: not any(child.is_running() for child in children), 5)
    engine.worker()
    job = engine.ended(id, 20)
    assert (job.status, job.result) == ("SUCCESS", 2)
    assert numbers(engine) == [1]


def test_f03_a_handler_that_kills_its_process_ends_failed_and_hurts_nobody(engine: Engine) -> None:
    engine.worker()
    killer = engine.push("import os\ndef handle(event): os.kill(os.getpid(), 9)")
    fine = engine.push(SLOW)
    id = engine.start(killer)
    others = [engine.start(fine, {"n": n}) for n in range(20)]
    job = engine.ended(id)
    assert (job.status, job.losses) == ("FAILED", 5)
    assert job.error is not None
    assert "lost 5 times" in job.error["message"]
    assert {engine.ended(other).status for other in others} == {"SUCCESS"}
    assert numbers(engine) == list(range(20))


def test_f06_a_broker_that_forgets_everything_loses_no_job(engine: Engine) -> None:
    action = engine.push(SLOW)
    ids = [engine.start(action, {"n": n}) for n in range(100)]
    engine.redis.flushall()
    engine.worker()
    for id in ids:
        assert engine.ended(id, 30).status == "SUCCESS"
    assert numbers(engine) == list(range(100))


def test_an_api_that_dies_before_publishing_loses_no_job(engine: Engine) -> None:
    engine.worker()
    accepted = engine.accept(engine.push(SLOW), {"n": 1})
    assert engine.ended(accepted.execution_id).status == "SUCCESS"
    assert numbers(engine) == [1]


def test_f01_a_message_delivered_many_times_runs_its_job_once(engine: Engine) -> None:
    action = engine.push(SLOW)
    id = engine.start(action, {"n": 1, "sleep": 0.5})
    message = engine.redis.lindex(broker.LISTS[1], 0)
    engine.redis.lpush(broker.LISTS[1], *[message] * 20)
    engine.worker()
    job = engine.ended(id)
    until(lambda: engine.redis.llen(broker.LISTS[1]) == 0)
    assert (job.status, engine.job(id).attempt) == ("SUCCESS", 1)
    assert numbers(engine) == [1]


@pytest.mark.slow
def test_a_worker_frozen_past_its_claim_commits_nothing(engine: Engine) -> None:
    frozen = engine.worker()
    id = engine.start(engine.push(SLOW), {"n": 1, "sleep": 1})
    engine.running(id)
    processes = [*frozen.children(), psutil.Process(frozen.pid)]
    for process in processes:
        process.suspend()
    engine.worker()
    job = engine.ended(id, 20)
    assert (job.status, job.result) == ("SUCCESS", 2)
    for process in processes:
        process.resume()
    time.sleep(2)  # long enough for the woken handler to end its sleep and try to commit
    assert engine.job(id) == job
    assert numbers(engine) == [1]


def test_f17_a_frozen_child_is_replaced_and_its_job_goes_on(engine: Engine) -> None:
    engine.worker(children=1)
    blocked = engine.push(SLOW)
    id = engine.start(blocked, {"n": 1, "sleep": 0})
    engine.ended(id)
    child = engine.workers[0].children()[0]
    child.suspend()
    other = engine.start(blocked, {"n": 2})
    assert engine.ended(other, 30).status == "SUCCESS"
    assert not child.is_running()


def test_f17_a_job_whose_child_is_frozen_goes_on_in_another(engine: Engine) -> None:
    engine.worker()
    id = engine.start(engine.push(SLOW), {"n": 1, "sleep": 1})
    engine.running(id)
    child = psutil.Process(pid_of(engine, id))
    child.suspend()
    job = engine.ended(id)
    assert (job.status, job.result, job.losses) == ("SUCCESS", 2, 1)
    assert not child.is_running()
    assert numbers(engine) == [1]


def test_f11_a_queued_job_that_is_stopped_never_starts(engine: Engine) -> None:
    from worker.store import jobs

    action = engine.push(SLOW)
    first, second = engine.start(action, {"n": 1}), engine.start(action, {"n": 2})
    assert jobs.stop(engine.conn, first, "test")
    engine.worker()
    assert engine.ended(second).status == "SUCCESS"
    until(lambda: engine.redis.llen(broker.LISTS[1]) == 0)
    assert (engine.job(first).status, numbers(engine)) == ("STOPPED", [2])
    assert not jobs.stop(engine.conn, second, "test")


def test_f11_a_running_job_is_ended_within_two_seconds_and_no_other_is_touched(
    engine: Engine,
) -> None:
    from worker.store import jobs

    engine.worker()
    action = engine.push(SLOW)
    id, other = (engine.start(action, {"n": n, "sleep": s}) for n, s in ((1, 60), (2, 4)))
    engine.running(id), engine.running(other)
    pid = pid_of(engine, id)
    assert jobs.stop(engine.conn, id, "test")
    until(lambda: not psutil.pid_exists(pid), 2)
    assert engine.ended(other).status == "SUCCESS"
    assert (engine.job(other).attempt, engine.job(id).status) == (1, "STOPPED")
    assert numbers(engine) == [2]
    assert "time.sleep" in engine.log(id)[-1]["message"]


def test_f11_a_job_past_its_timeout_ends_timeout_and_frees_the_process(engine: Engine) -> None:
    engine.worker(children=1)
    action = engine.push(SLOW, config={"params": {"timeout": "1s"}})
    id = engine.start(action, {"n": 1, "sleep": 60})
    after = engine.start(action, {"n": 2})
    job = engine.ended(id)
    assert job.status == "TIMEOUT"
    assert "timeout of 1 s" in str(job.error)
    assert engine.ended(after).status == "SUCCESS"
    assert numbers(engine) == [2]


def test_f10_a_worker_that_is_shut_down_ends_what_runs_or_puts_it_back(engine: Engine) -> None:
    action = engine.push(SLOW)
    worker = engine.worker(DPE_SHUTDOWN_GRACE_S="2")
    short, long = (engine.start(action, {"n": n, "sleep": s}) for n, s in ((1, 1), (2, 8)))
    engine.running(short), engine.running(long)
    assert worker.end() == 0
    assert (engine.job(short).status, engine.job(long).status) == ("SUCCESS", "SUBMITTED")
    assert engine.job(long).losses == 0
    engine.worker()
    assert engine.ended(long, 20).result == 2
    assert numbers(engine) == [1, 2]


def test_f08_short_jobs_do_not_wait_behind_a_long_one(engine: Engine) -> None:
    engine.worker(children=2)
    action = engine.push(SLOW)
    long = engine.start(action, {"n": 0, "sleep": 30})
    engine.running(long)
    ids = [engine.start(action, {"n": n}) for n in range(1, 101)]
    for id in ids:
        assert engine.ended(id, 10).status == "SUCCESS"
    assert engine.job(long).status == "PROCESSING"


def test_files_that_a_killed_worker_has_laid_out_go_with_the_next(engine: Engine) -> None:
    def folders(pid: int) -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob(f"{folders_module.PREFIX}{pid}-*"))

    killed = engine.worker(1)
    assert engine.run(engine.push(SLOW), {"n": 1}).status == "SUCCESS"
    (left,) = folders(killed.pid)
    killed.end(signal.SIGKILL)
    assert left.exists()
    following = engine.worker(1)
    until(lambda: not left.exists())
    assert len(folders(following.pid)) == 1
    following.end()
    assert folders(following.pid) == []
