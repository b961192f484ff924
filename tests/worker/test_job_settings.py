"""Defaults, memory, and how many runs of a workflow go on, as real workers keep them."""

from uuid import UUID

import pytest

from tests.stack import Engine, until
from tests.worker.workflows import prepare, run, stages, start, steps
from worker import broker
from worker.store import job_settings, jobs, workflow_starts, workflows

FLAKY = """
def handle(event):
    if event.attempt < 3:
        raise ConnectionError("not yet")
    return event.attempt
"""
HUNGRY = """
import numpy
def handle(event):
    return int(numpy.ones(event.content, "u1").sum())
"""


@pytest.fixture
def engine(engine: Engine) -> Engine:
    prepare(engine)
    return engine


def test_a_default_retry_holds_for_attempts_soon_after(engine: Engine) -> None:
    engine.worker()
    action = engine.push(FLAKY)
    assert engine.run(action).status == "FAILED"
    retry = {"max_attempts": 3, "backoff": 0.1}
    job_settings.set_defaults(engine.conn, {"retry": retry})
    job = until(lambda: (job := engine.run(action)).status == "SUCCESS" and job, 15)
    assert (job.attempt, job.result) == (3, 3)
    own = engine.push(FLAKY, config={"retry": {"max_attempts": 1}})
    assert engine.run(own).status == "FAILED"


def test_a_step_is_retried_as_its_workflow_says(engine: Engine) -> None:
    engine.worker()
    flow = stages(["a"], retry={"max_attempts": 2, "backoff": 0.1})
    assert run(engine, flow, {"a": {"fail": 1}}).status == "SUCCESS"
    assert run(engine, stages(["a"]), {"a": {"fail": 1}}).status == "FAILED"


def test_a_job_that_takes_more_memory_than_it_may_fails_alone(engine: Engine) -> None:
    worker = engine.worker(children=1)
    action = engine.push(HUNGRY, config={"max_memory": "64 MB"})
    assert engine.run(action, 1_000_000).result == 1_000_000
    children = [child.pid for child in worker.children()]
    job = engine.run(action, 200_000_000)
    assert (job.status, job.losses) == ("FAILED", 0)
    assert job.error is not None
    assert job.error["type"] == "TooMuchMemory"
    assert "64 MB" in job.error["message"]
    assert engine.run(action, 1_000_000).status == "SUCCESS"
    free = engine.push(HUNGRY)
    assert engine.run(free, 200_000_000).result == 200_000_000  # the limit is gone with its job
    assert [child.pid for child in worker.children()] == children


def test_a_workflow_gives_its_steps_their_memory(engine: Engine) -> None:
    engine.worker()
    engine.push(HUNGRY, config={"display_name": "hungry"})
    flow = stages([{"action_conf": "hungry", "name": "a"}])
    assert run(engine, flow, 200_000_000).status == "SUCCESS"
    job = run(engine, {**flow, "max_memory": "64 MB"}, 200_000_000)
    assert job.status == "FAILED"
    assert job.error is not None
    assert "64 MB" in job.error["message"]


def test_parameters_of_the_author_are_not_taken_for_settings(engine: Engine) -> None:
    engine.worker()
    own = {"priority": 5, "retry": 3, "expires": "never", "max_memory": "much",
           "max_concurrency": "all"}  # fmt: skip
    main = "from forepaas.core.settings import PARAMS\ndef handle(event): return dict(PARAMS)"
    action = engine.push(main, config={"display_name": "own", "params": own})
    assert engine.run(action).result == own
    flow = stages([{"action_conf": "own", "name": "a", "params": {"priority": [1]}}], params=own)
    assert run(engine, flow).result == {"a": own | {"priority": [1]}}


def open_runs(engine: Engine, workflow_id: str) -> dict[str, int]:
    rows = engine.conn.execute(
        "SELECT status, count(*) FROM dpe.jobs WHERE action_id = %s GROUP BY 1", [workflow_id]
    ).fetchall()
    return dict(rows)


def started(engine: Engine, workflow_id: str, event_type: str = "api") -> UUID:
    asked = jobs.Start(workflow_id, '{"a": {"sleep": 0.4}}', event_type, in_line=True)
    made = workflow_starts.start(engine.conn, asked, queued=True)
    assert made is not None
    broker.publish(made.messages)
    return made.run.execution_id


def test_so_many_runs_go_on_at_a_time_and_the_others_follow_in_order(engine: Engine) -> None:
    engine.worker(children=4)
    definition = stages(["a"], max_concurrency=2, run_timeout="1m")
    id = workflows.push(engine.conn, None, definition).id
    runs = [started(engine, id) for _ in range(6)]
    assert open_runs(engine, id) == {"PROCESSING": 2, "SUBMITTED": 4}
    assert steps(engine, runs[2]) == {}
    seen = []

    def all_ended() -> bool:
        found = open_runs(engine, id)
        seen.append(found.get("PROCESSING", 0))
        return found == {"SUCCESS": 6}

    until(all_ended, 30)
    assert max(seen) == 2
    rows = engine.conn.execute(
        "SELECT execution_id FROM dpe.jobs WHERE action_id = %s ORDER BY started_at, seq", [id]
    ).fetchall()
    assert [row[0] for row in rows] == runs
    assert engine.rows("SELECT count(*) FROM data_prim.ran") == [(6,)]


def test_a_held_run_can_be_stopped_and_gives_its_place_to_nobody(engine: Engine) -> None:
    engine.worker(children=2)
    id = workflows.push(engine.conn, None, stages(["a"], max_concurrency=1)).id
    first, second, third = (started(engine, id) for _ in range(3))
    assert jobs.stop(engine.conn, second, "a test")
    assert engine.ended(third).status == "SUCCESS"
    assert engine.ended(first).status == "SUCCESS"
    assert engine.job(second).status == "STOPPED"
    assert steps(engine, second) == {}


def test_a_held_run_outlives_the_worker(engine: Engine) -> None:
    worker = engine.worker(children=1)
    id = workflows.push(engine.conn, None, stages(["a"], max_concurrency=1)).id
    runs = [started(engine, id) for _ in range(2)]
    worker.end(9)
    engine.worker(children=1)
    assert [engine.ended(run, 40).status for run in runs] == ["SUCCESS", "SUCCESS"]
    assert engine.rows("SELECT count(*) FROM data_prim.ran") == [(2,)]


def test_a_retry_of_a_run_waits_for_its_place(engine: Engine) -> None:
    engine.worker(children=2)
    flow = stages(["a"], max_concurrency=1)
    run_id = start(engine, flow, {"a": {"fail": 9}})
    assert engine.ended(run_id).status == "FAILED"
    id = engine.job(run_id).action_id
    going_on = started(engine, id)
    made = workflow_starts.retry(engine.conn, run_id, None, queued=True)
    assert made is not None
    assert (made.run.status, made.run.held) == ("SUBMITTED", True)
    assert engine.ended(going_on).status == "SUCCESS"
    assert engine.ended(made.run.execution_id).status == "FAILED"
