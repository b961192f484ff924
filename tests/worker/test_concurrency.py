"""`max_concurrency`: so many jobs of an action run at a time, whatever happens to their workers."""

import signal
import time
from typing import Any

import psycopg

from tests.stack import Engine, until
from worker.store import actions

MAIN = """
import time
from worker.store import claims

def handle(event):
    conn = claims.running.conn
    conn.execute("INSERT INTO data_prim.spans VALUES (%s, clock_timestamp())", [event.execution_id])
    time.sleep(event.content)
    conn.execute("UPDATE data_prim.spans SET ended = clock_timestamp() WHERE id = %s",
                 [event.execution_id])
"""
TOGETHER = """
SELECT max(together) FROM (
  SELECT a.id, count(*) AS together FROM data_prim.spans a
  JOIN data_prim.spans b ON b.began <= a.began AND a.began < b.ended GROUP BY a.id) spans
"""


def pushed(engine: Engine, **config: Any) -> actions.Action:
    engine.conn.execute("CREATE SCHEMA IF NOT EXISTS data_prim")
    engine.conn.execute(
        "CREATE TABLE IF NOT EXISTS data_prim.spans"
        " (id text PRIMARY KEY, began timestamptz, ended timestamptz)"
    )
    engine.conn.execute("TRUNCATE data_prim.spans")
    return engine.push(MAIN, config=config)


def test_no_more_than_allowed_run_at_a_time_and_in_their_order(engine: Engine) -> None:
    action = pushed(engine, max_concurrency=2)
    engine.worker(children=4)
    ids = [engine.accept(action, 0.15).execution_id for _ in range(10)]
    ends = [engine.ended(id) for id in ids]
    assert {(job.status, job.attempt) for job in ends} == {("SUCCESS", 1)}
    assert engine.rows(TOGETHER) == [(2,)]
    begun = [job.started_at for job in ends]
    assert begun == sorted(begun) or all(
        # two that were let in together may begin in either order
        begun[i] <= begun[i + 2]
        for i in range(len(begun) - 2)
    )


def test_a_place_is_free_at_once_when_its_job_ends(engine: Engine) -> None:
    action = pushed(engine, allow_concurrent=False)
    engine.worker(children=2)
    began = time.monotonic()
    ids = [engine.accept(action, 0.0, in_line=True).execution_id for _ in range(20)]
    for id in ids:
        assert engine.ended(id, 20).status == "SUCCESS"
    # The watch alone would take half a second for each.
    assert time.monotonic() - began < 8
    assert engine.rows(TOGETHER) == [(1,)]


def test_a_killed_worker_takes_no_place_with_it(engine: Engine) -> None:
    action = pushed(engine, max_concurrency=1)
    worker = engine.worker(children=2)
    first = engine.accept(action, 30).execution_id
    second = engine.accept(action, 0.0).execution_id
    engine.running(first)
    assert engine.job(second).status == "SUBMITTED"
    worker.end(signal.SIGKILL)
    engine.worker(children=2)
    until(lambda: engine.job(first).attempt == 2, 30)
    assert engine.job(second).status == "SUBMITTED"
    from worker.store import jobs

    jobs.stop(engine.conn, first, "a test")
    assert engine.ended(second, 20).status == "SUCCESS"


def test_one_that_waits_to_be_tried_again_holds_up_nobody(engine: Engine) -> None:
    failing = "def handle(event):\n    if event.content and event.attempt == 1: raise OSError('no')"
    config = {"max_concurrency": 1, "retry": {"max_attempts": 3, "backoff": "3s"}}
    action = engine.push(failing, config=config)
    engine.worker(children=2)
    first, second = (engine.accept(action, fails).execution_id for fails in (True, False))
    assert engine.ended(second).status == "SUCCESS"
    assert not engine.job(first).ended
    assert engine.ended(first).attempt == 2


def test_a_message_of_a_held_job_is_left_alone(engine: Engine) -> None:
    from worker import broker
    from worker.store.publishing import Message

    action = pushed(engine, max_concurrency=1)
    engine.worker(children=2)
    first = engine.accept(action, 2.0).execution_id
    engine.running(first)
    held = engine.accept(action, 0.0).execution_id
    row = engine.conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    broker.publish([Message(held, "Test", row[0])] * 3)
    assert engine.ended(held).attempt == 1
    assert engine.rows(TOGETHER) == [(1,)]


def test_unlimited_actions_are_not_held(engine: Engine, conn: psycopg.Connection) -> None:
    action = pushed(engine)
    assert engine.accept(action, 0.0).status == "QUEUED"
