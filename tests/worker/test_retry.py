"""Failed attempts that are followed by others; and what a message looks like."""

from base64 import b64decode

import orjson
import pytest

from tests.stack import Engine, until
from worker import broker
from worker.errors import Invalid
from worker.store.publishing import Message

FLAKY = """
from worker.store import claims
def handle(event):
    claims.running.conn.execute("INSERT INTO data_prim.t VALUES (%s)", [event.attempt])
    if event.attempt < event.content:
        raise ConnectionError("not yet")
    return event.attempt
"""


@pytest.fixture
def engine(engine: Engine) -> Engine:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (n int)")
    return engine


def test_a_failed_attempt_is_followed_by_others_until_one_succeeds(engine: Engine) -> None:
    engine.worker()
    config = {"retry": {"max_attempts": 3, "backoff": 0.1, "on": ["OSError"]}}
    job = engine.run(engine.push(FLAKY, config=config), 3)
    assert (job.status, job.result, job.attempt) == ("SUCCESS", 3, 3)
    assert engine.rows("SELECT n FROM data_prim.t") == [(3,)]  # of the others nothing is left
    said = [line["message"] for line in engine.log(job.execution_id)]
    assert sum("is tried again" in line for line in said) == 2


NO_SPACE = """
CREATE SEQUENCE data_prim.tries;
CREATE FUNCTION data_prim.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('data_prim.tries') < 3 THEN
    RAISE 'could not extend file' USING ERRCODE = '%s';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON data_prim.t FOR EACH ROW EXECUTE FUNCTION data_prim.refuse();
"""
INSERTS = """
from forepaas.dwh import bulk_insert, connect
def handle(event):
    bulk_insert(connect("dwh/data_prim/"), "t", [{"n": 1}])
"""
QUERIES = """
from forepaas.dwh import connect
def handle(event):
    connect("dwh/data_prim/").query("INSERT INTO t VALUES (1)")
"""


@pytest.mark.parametrize("main", [INSERTS, QUERIES])
def test_an_attempt_that_met_a_full_disk_is_followed_by_others(engine: Engine, main: str) -> None:
    engine.conn.execute((NO_SPACE % "53100").encode())
    engine.worker()
    job = engine.run(engine.push(main))
    assert (job.status, job.attempt) == ("SUCCESS", 3)
    assert engine.rows("SELECT n FROM data_prim.t") == [(1,)]


def test_a_limit_that_somebody_set_is_no_outage(engine: Engine) -> None:
    engine.conn.execute((NO_SPACE % "53400").encode())
    engine.worker()
    job = engine.run(engine.push(INSERTS))
    assert (job.status, job.attempt) == ("FAILED", 1)


def test_attempts_come_to_an_end(engine: Engine) -> None:
    engine.worker()
    config = {"retry": {"max_attempts": 2, "backoff": "0.1s"}}
    job = engine.run(engine.push(FLAKY, config=config), 9)
    assert (job.status, job.attempt) == ("FAILED", 2)


def test_only_the_named_errors_are_retried(engine: Engine) -> None:
    engine.worker()
    config = {"retry": {"max_attempts": 5, "backoff": 0.1, "on": ["ValueError"]}}
    job = engine.run(engine.push(FLAKY, config=config), 9)
    assert (job.status, job.attempt) == ("FAILED", 1)


def test_a_wait_for_the_next_attempt_outlives_worker_and_broker(engine: Engine) -> None:
    worker = engine.worker()
    config = {"retry": {"max_attempts": 2, "backoff": "3s"}}
    id = engine.start(engine.push(FLAKY, config=config), 2)
    until(lambda: engine.job(id).status == "SUBMITTED")
    ((due_at,),) = engine.rows("SELECT due_at FROM dpe.jobs")
    worker.process.kill()
    engine.redis.flushall()
    engine.worker()
    job = engine.ended(id)
    assert (job.result, job.attempt) == (2, 2)
    assert job.started_at is not None
    assert job.started_at >= due_at  # not before its time


def test_a_wrong_retry_setting_is_refused_at_the_push(engine: Engine) -> None:
    with pytest.raises(Invalid, match='"retry": "max_attempts" must be from 1 to 1000'):
        engine.push(FLAKY, config={"retry": {"max_attempts": 0}})


def test_what_we_send_is_what_celery_would_send(engine: Engine) -> None:
    action = engine.push(FLAKY)
    accepted = engine.accept(action, 0)
    broker.publish([Message(accepted.execution_id, "x", accepted.published_at)])
    broker.celery.send_task(
        broker.TASK, task_id=str(accepted.execution_id), shadow="x", ignore_result=True, priority=1
    )
    theirs, ours = (orjson.loads(m) for m in engine.redis.lrange(broker.LISTS[1], 0, -1))
    assert set(theirs["headers"]) | {"published_at"} == set(ours["headers"])
    assert set(theirs["properties"]) == set(ours["properties"])
    for key in ("lang", "task", "id", "shadow", "retries", "timelimit", "root_id", "ignore_result"):
        assert theirs["headers"][key] == ours["headers"][key]
    assert orjson.loads(b64decode(theirs["body"])) == orjson.loads(b64decode(ours["body"]))
    broker.celery.pool.force_close_all()
