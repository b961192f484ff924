"""Actions with packages of their own: two pandas side by side; stopped, killed, refused as any."""

import os
import signal
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from tests.packages import slow_package
from tests.stack import Engine, Worker, until
from worker import broker
from worker.errors import Invalid
from worker.store import (
    actions,
    job_list,
    jobs,
    workflow_starts,
    workflow_status,
    workflows,
)

WHICH = """
import os, time
import pandas
from forepaas.dwh import bulk_insert, connect

print("loaded", pandas.__version__)

def handle(event):
    content = event.content or {}
    frame = pandas.DataFrame([{"n": content.get("n", 0)}])
    bulk_insert(connect("dwh/data_prim/"), "t", frame)
    print("asleep")
    time.sleep(content.get("sleep", 0))
    if content.get("fail"):
        raise ValueError("told to")
    return [pandas.__version__, os.getpid(), event.attempt]
"""
pytestmark = pytest.mark.usefixtures("package_index")

OLD = {"dependencies": {"python": {"pandas": "<3"}}}


@pytest.fixture(autouse=True)
def _table(engine: Engine) -> None:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (n bigint)")


def numbers(engine: Engine) -> list[int]:
    return [n for (n,) in engine.rows("SELECT n FROM data_prim.t ORDER BY n")]


def insides(worker: Worker) -> list[psutil.Process]:
    below = [p for child in worker.children() for p in child.children()]
    return [p for p in below if "worker.inside" in p.cmdline()]


def build(engine: Engine, action: actions.Action) -> tuple[jobs.Job, set[str]]:
    """Run a job until it has ended; also the statuses that were seen."""
    id, seen = engine.start(action, {"n": 1}), set[str]()
    until(lambda: seen.add(engine.job(id).status) or engine.job(id).ended, 120)
    return engine.job(id), seen


@pytest.mark.slow
def test_two_pandas_live_side_by_side(engine: Engine) -> None:
    old = engine.push(WHICH, config={"dependencies": {"python": ["pandas<3", "pytz"]}})
    new = engine.push(WHICH)
    worker = engine.worker(1)
    job, seen = build(engine, old)
    assert job.status == "SUCCESS", job.error
    assert "BUILDING" in seen
    assert job.result[0].startswith("2.")
    assert numbers(engine) == [1]
    told = [line["message"] for line in engine.log(job.execution_id)]
    assert told[:2] == ['"Test" BUILDING with pandas<3, pytz', '"Test" BEGIN (custom) action.']
    assert f"loaded {job.result[0]}" in told
    assert told[-1].startswith('"Test" END (custom) action.')

    beside = engine.run(new, {"n": 2})
    assert beside.result[0].startswith("3.")
    again = engine.run(old, {"n": 3})
    assert again.result[:2] == job.result[:2]  # the same process, nothing is built again
    assert "BUILDING" not in str(engine.log(again.execution_id))
    assert numbers(engine) == [1, 2, 3]

    failed = engine.run(old, {"n": 4, "fail": True})
    assert (failed.status, failed.error and failed.error["message"]) == ("FAILED", "told to")
    assert numbers(engine) == [1, 2, 3]
    (inside,) = insides(worker)
    assert inside.pid == job.result[1]
    worker.end()
    until(lambda: not inside.is_running())


@pytest.mark.slow
def test_what_dies_in_an_environment_is_run_again_once(engine: Engine) -> None:
    worker = engine.worker(1)
    old = engine.push(WHICH, config=OLD)
    engine.ended(engine.start(old), 120)
    engine.conn.execute("TRUNCATE data_prim.t")

    killed_inside = engine.start(old, {"n": 1, "sleep": 1})
    engine.running(killed_inside)
    until(lambda: insides(worker))[0].kill()
    job = engine.ended(killed_inside)
    assert (job.status, job.losses, job.result[2]) == ("SUCCESS", 1, 2)

    killed_child = engine.start(old, {"n": 2, "sleep": 1})
    engine.running(killed_child)
    inside = until(lambda: insides(worker))[0]
    os.kill(worker.children()[0].pid, signal.SIGKILL)
    job = engine.ended(killed_child)
    assert (job.status, job.losses, job.result[2]) == ("SUCCESS", 1, 2)
    until(lambda: not inside.is_running())
    assert numbers(engine) == [1, 2]


@pytest.mark.slow
def test_stop_and_timeout_end_what_runs_in_an_environment(engine: Engine) -> None:
    worker = engine.worker(1)
    old = engine.push(WHICH, config=OLD)
    engine.ended(engine.start(old), 120)  # from here on the process is there
    late = engine.start(old, {"n": 1, "sleep": 60})
    until(lambda: "asleep" in str(engine.log(late)))
    engine.conn.execute(
        "UPDATE dpe.jobs SET deadline = now() WHERE execution_id = %s", [late]
    )  # its timeout, as if two hours had gone by
    assert engine.ended(late).status == "TIMEOUT"
    until(lambda: "time.sleep" in str(engine.log(late)))  # where it was
    stopped = engine.start(old, {"n": 2, "sleep": 60})
    until(lambda: "asleep" in str(engine.log(stopped)))
    (inside,) = insides(worker)
    jobs.stop(engine.conn, stopped, "a test")
    until(lambda: not inside.is_running())
    assert engine.job(stopped).status == "STOPPED"
    assert engine.run(old, {"n": 3}).status == "SUCCESS"
    assert numbers(engine) == [0, 3]


@pytest.mark.slow
def test_packages_that_can_t_be_had_end_the_job_in_words(engine: Engine) -> None:
    engine.worker(1)
    # Older than the engine itself needs, so it can't stand in front of the engine's own.
    action = engine.push(WHICH, config={"dependencies": {"python": {"psycopg==3.1": None}}})
    job = engine.ended(engine.start(action), 120)
    assert job.status == "FAILED"
    assert job.error is not None
    assert job.error["type"] == "EnvironmentFailed"
    assert "psycopg" in job.error["message"]


@pytest.mark.slow
def test_a_step_of_a_workflow_runs_in_an_environment_and_is_followed(engine: Engine) -> None:
    engine.worker(1)
    old = engine.push(WHICH, config=OLD)
    last = engine.push("def handle(event): return event.results['first'][0]")
    steps = [{"action_conf": old.id, "name": "first"}], [{"action_conf": last.id, "name": "last"}]
    definition = {"stages": [{"actions": actions} for actions in steps]}
    flow = workflows.push(engine.conn, None, definition)
    started = workflow_starts.start(engine.conn, jobs.Start(flow.id, '{"n": 7}'), queued=True)
    assert started is not None
    broker.publish(started.messages)
    run = engine.ended(started.run.execution_id, 120)
    assert run.status == "SUCCESS", run.error
    assert run.result["last"].startswith("2.")
    assert numbers(engine) == [7]


@pytest.mark.slow
def test_a_job_whose_packages_are_still_built_is_stopped_or_run_again(
    engine: Engine, tmp_path: Path
) -> None:
    worker = engine.worker(1)
    config = {"dependencies": {"python": {slow_package(tmp_path): None}}}
    # Less than the building takes here, and more than a busy machine needs to start a Python.
    config |= {"params": {"timeout": "5s"}}
    action = engine.push("import slow\ndef handle(event): return slow.READY", config=config)

    stopped = engine.start(action)
    until(lambda: engine.job(stopped).status == "BUILDING")
    assert jobs.stop(engine.conn, stopped, "a test")
    assert engine.job(stopped).status == "STOPPED"

    again = engine.start(action)
    until(lambda: engine.job(again).status == "BUILDING")
    until(lambda: engine.rows("SELECT 1 FROM dpe.jobs WHERE started_at < now() - interval '6 s'"))
    os.kill(worker.children()[0].pid, signal.SIGKILL)
    until(lambda: engine.job(again).attempt == 2)
    until(lambda: engine.job(again).status == "BUILDING")  # and not TIMEOUT: its time comes after
    (tmp_path / "go").touch()
    job = engine.ended(again, 30)
    assert (job.status, job.result, job.losses) == ("SUCCESS", True, 1)


@pytest.mark.slow
def test_what_is_built_shows_as_building_wherever_a_status_is_shown(
    engine: Engine, tmp_path: Path
) -> None:
    config = {"dependencies": {"python": {slow_package(tmp_path): None}}}
    action = engine.push("def handle(event): pass", config=config)
    flow = workflows.push(
        engine.conn, None, {"stages": [{"actions": [{"action_conf": action.id}]}]}
    )
    started = workflow_starts.start(engine.conn, jobs.Start(flow.id, None), queued=True)
    assert started is not None
    broker.publish(started.messages)
    run_id = started.run.execution_id
    engine.worker(1)

    def listed(status: str) -> list[UUID]:
        where = job_list.Filter(action_id=action.id, statuses=(status,))
        found = job_list.list_jobs(engine.conn, where, newest_first=True, limit=10)
        assert {job.status for job in found} <= {status}
        return [job.execution_id for job in found]

    (building,) = until(lambda: listed("BUILDING"))
    (step,) = workflow_status.steps_of(engine.conn, run_id)
    assert (step.status, step.executions[0].status) == ("BUILDING", "BUILDING")
    assert listed("PROCESSING") == []
    (tmp_path / "go").touch()
    assert engine.ended(run_id, 60).status == "SUCCESS"
    assert listed("SUCCESS") == [building]
    assert listed("BUILDING") == []


@pytest.mark.parametrize(
    "python", [{"-r /etc/passwd": None}, {"a\nb": None}, {"": None}, {"a": 1}, [1], "pandas"]
)
def test_what_is_no_requirement_is_refused_at_the_push(engine: Engine, python: object) -> None:
    with pytest.raises(Invalid, match=r"dependencies\.python"):
        engine.push(WHICH, config={"dependencies": {"python": python}})
