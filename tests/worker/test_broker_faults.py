"""What the broker does to people, row by row: restarts, losses, absences, strangers' messages."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from celery import Celery
from redis import Redis

from app.embedded import Postgres, Valkey
from tests.stack import Engine, Worker, until
from worker import broker
from worker.store import workers

OK = "def handle(event): return event.content"
SLOW = """
import time
from worker.store import claims
def handle(event):
    claims.running.conn.execute("INSERT INTO data_prim.t VALUES (%s)", [event.content])
    time.sleep(1.5)
    return event.attempt
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    """A broker that a test may break."""
    server = Valkey(tmp_path / "own")
    server.start()
    yield server
    server.stop()


def worker_on(engine: Engine, own: Valkey) -> Worker:
    return engine.worker(DPE_BROKER_URL=own.url)


def pids(worker: Worker) -> set[int]:
    return {child.pid for child in worker.children()}


def test_f04_a_message_lost_between_broker_and_worker_comes_again(engine: Engine) -> None:
    id = engine.start(engine.push(OK), 1)
    assert engine.redis.rpop(broker.LISTS[1])  # as by a worker that died with it in its hands
    engine.worker()
    assert engine.ended(id, 6).status == "SUCCESS"


def test_f05_work_goes_on_after_each_restart_of_the_broker(engine: Engine, own: Valkey) -> None:
    action = engine.push(OK)
    worker_on(engine, own)
    for turn in range(6):
        own.kill()
        own.start()
        # Not published here: the watch has to find the broker again, and a child as well.
        assert engine.ended(engine.accept(action, turn).execution_id, 12).result == turn


@pytest.mark.slow
def test_f05_work_goes_on_after_the_broker_was_frozen(engine: Engine, own: Valkey) -> None:
    action = engine.push(OK)
    worker_on(engine, own)
    assert own.pid is not None
    server = psutil.Process(own.pid)
    for turn in range(2):
        server.suspend()
        id = engine.accept(action, turn).execution_id
        time.sleep(3)
        server.resume()
        assert engine.ended(id, 15).result == turn


@pytest.mark.slow
def test_f18_f21_a_broker_that_is_long_away_ends_no_process_and_is_found_again(
    engine: Engine, own: Valkey
) -> None:
    action = engine.push(OK)
    worker = worker_on(engine, own)
    assert engine.ended(engine.accept(action, 0).execution_id).result == 0
    before = pids(worker)
    own.kill()
    id = engine.accept(action, 1).execution_id
    time.sleep(8)  # longer than any limit after which a process could be taken for dead
    assert pids(worker) == before
    assert engine.job(id).status in {"QUEUED", "SUBMITTED"}
    own.start()
    assert engine.ended(id, 12).result == 1


def test_f14_remote_control_leaves_no_key_for_ever(engine: Engine, own: Valkey) -> None:
    worker_on(engine, own)
    theirs = Celery(broker=own.url)
    until(lambda: theirs.control.inspect(timeout=0.3).ping())
    for _ in range(20):
        theirs.control.inspect(timeout=0.1).ping()
    theirs.close()
    redis = Redis.from_url(own.url)
    replies = [key for key in redis.keys("*.reply.celery.pidbox") if redis.type(key) == b"list"]
    immortal = [key for key in replies if redis.ttl(key) == -1]
    redis.close()
    assert len(immortal) <= 1, immortal


def test_f15_a_message_that_a_worker_does_not_know_loses_no_job(engine: Engine) -> None:
    accepted = engine.accept(engine.push(OK), 1)
    broker.celery.send_task("newer", task_id=str(accepted.execution_id))
    engine.worker()
    assert engine.ended(accepted.execution_id).result == 1
    broker.celery.pool.force_close_all()


def test_f16_a_connection_cut_in_mid_job_is_another_attempt_and_no_second_row(
    engine: Engine,
) -> None:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (n int)")
    engine.worker()
    id = engine.start(engine.push(SLOW), 1)
    engine.running(id)
    until(lambda: engine.rows(SESSIONS_IN_A_TRANSACTION))
    engine.conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name LIKE 'dpe-job %' AND xact_start IS NOT NULL"
    )
    job = engine.ended(id)
    assert (job.status, job.result) == ("SUCCESS", 2)
    assert engine.rows("SELECT n FROM data_prim.t") == [(1,)]


SESSIONS_IN_A_TRANSACTION = """
SELECT pid FROM pg_stat_activity
WHERE application_name LIKE 'dpe-job %' AND state = 'idle in transaction'
"""


def test_f20_each_child_has_sessions_of_its_own(engine: Engine) -> None:
    action = engine.push("import os, time\ndef handle(event): time.sleep(0.5); return os.getpid()")
    worker = engine.worker(children=2)
    ids = [engine.start(action) for _ in range(4)]
    assert {engine.ended(id).result for id in ids} == pids(worker)
    names = engine.rows(
        "SELECT application_name, count(*) FROM pg_stat_activity"
        " WHERE application_name LIKE 'dpe-job %' GROUP BY 1"
    )
    ours = [name for name, _ in names if int(name.rsplit(" ", 1)[1]) in pids(worker)]
    assert len(ours) == 2
    assert all(count == 1 for _, count in names)


def test_f22_of_many_watches_one_keeps_it_each_time(
    conn: psycopg.Connection, postgres: Postgres
) -> None:
    conn.execute("UPDATE dpe.installation SET watched_at = '-infinity'")
    took = []
    gate = threading.Barrier(8)

    def offer() -> None:
        with psycopg.connect(postgres.url, autocommit=True) as own:
            gate.wait()
            took.append(workers.take_watch(own, 60.0))

    threads = [threading.Thread(target=offer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert took.count(True) == 1
    conn.execute("UPDATE dpe.installation SET watched_at = '-infinity'")


def test_f13_the_memory_of_a_child_does_not_grow_with_its_jobs(engine: Engine) -> None:
    action = engine.push(OK)
    worker = engine.worker(children=1)

    def run(count: int) -> int:
        last = [engine.start(action, n) for n in range(count)][-1]
        engine.ended(last, 60)
        until(lambda: engine.rows("SELECT 1 FROM dpe.jobs WHERE ended_at IS NULL LIMIT 1") == [])
        return worker.children()[0].memory_info().rss

    warm = run(300)
    assert run(1500) - warm < 4_000_000  # bytes


def test_a_worn_child_is_replaced_after_its_job(engine: Engine) -> None:
    action = engine.push("import os\ndef handle(event): return os.getpid()")
    engine.worker(children=1, DPE_MAX_JOBS_PER_CHILD="5")
    ids = [engine.start(action) for _ in range(12)]
    ends = [engine.ended(id) for id in ids]
    assert {(job.status, job.attempt) for job in ends} == {("SUCCESS", 1)}
    assert len({job.result for job in ends}) == 3
