"""Runs of workflows: stages in order, actions in parallel, settings, failures, stops, retries."""

import re
from uuid import UUID

import pytest

from tests.stack import Engine, until
from tests.worker.workflows import STEP, log, prepare, ran, run, stages, start, steps
from worker.store import actions, jobs, retention, workflow_starts, workflows


@pytest.fixture
def engine(engine: Engine) -> Engine:
    prepare(engine)
    engine.worker()
    return engine


def times(engine: Engine, id: object, step: str) -> tuple:
    row = engine.conn.execute(
        "SELECT submitted_at, ended_at FROM dpe.jobs WHERE run_id = %s AND step = %s", [id, step]
    ).fetchone()
    assert row is not None
    return row


def test_stages_run_in_order_and_the_actions_of_one_in_parallel(engine: Engine) -> None:
    content = {"a": {"sleep": 0.5}, "b": {"sleep": 0.5}}
    job = run(engine, stages(["a", "b"], ["c"]), content)
    assert (job.status, job.error, job.progress) == ("SUCCESS", None, 100)
    assert ran(engine, job.execution_id) == ["a", "b", "c"]
    (a_began, a_ended), (b_began, b_ended) = (
        times(engine, job.execution_id, name) for name in ("a", "b")
    )
    assert max(a_began, b_began) < min(a_ended, b_ended)
    assert times(engine, job.execution_id, "c")[0] > max(a_ended, b_ended)


def test_the_log_tells_of_workflow_stages_and_steps(engine: Engine) -> None:
    job = run(engine, stages(["a"], ["b", "c"]))
    lines = [re.sub(r"[0-9.]+ sec", "N sec", line) for line in log(engine, job.execution_id)]
    assert lines[:5] == [
        '"Flow" BEGIN workflow',
        '"Stage 1" BEGIN stage 1/2 with 1 task(s)',
        '"a" BEGIN action',
        '"a" END action: SUCCESS. Duration: N sec',
        '"Stage 1" END stage 1/2',
    ]
    assert lines[5] == '"Stage 2" BEGIN stage 2/2 with 2 task(s)'
    assert lines[-2:] == ['"Stage 2" END stage 2/2', '"Flow" END workflow. Duration: N sec']
    assert len(lines) == 12


def test_a_disabled_step_or_stage_is_passed_over(engine: Engine) -> None:
    flow = stages(["a"], ["b"], ["c", {"name": "d", "disable": True}])
    flow["stages"][1]["disable"] = True
    job = run(engine, flow, {"a": {"sleep": 0.3}})
    assert (job.status, job.progress) == ("SUCCESS", 100)
    assert steps(engine, job.execution_id) == {"a": "SUCCESS", "c": "SUCCESS"}
    assert times(engine, job.execution_id, "c")[0] > times(engine, job.execution_id, "a")[1]
    assert '"b" skipped: disabled' in log(engine, job.execution_id)
    assert '"Stage 3" BEGIN stage 3/3 with 1 task(s)' in log(engine, job.execution_id)


def test_a_workflow_in_which_all_is_disabled_ends_at_once(engine: Engine) -> None:
    job = run(engine, stages([{"name": "a", "disable": True}], []))
    assert (job.status, job.progress, job.result) == ("SUCCESS", 100, {})


def test_after_a_failure_the_rest_goes_on_and_the_run_is_failed(engine: Engine) -> None:
    job = run(engine, stages(["a", "b"], ["c"]), {"a": {"fail": 9}})
    assert steps(engine, job.execution_id) == {"a": "FAILED", "b": "SUCCESS", "c": "SUCCESS"}
    assert ran(engine, job.execution_id) == ["b", "c"]
    assert job.status == "FAILED"
    assert job.error == {
        "type": "StepFailed",
        "message": "1 of 3 steps failed: a FAILED: told to",
        "traceback": None,
    }
    assert job.result == {"b": {"step": "b", "item": None, "of": {}}, "c": job.result["c"]}


@pytest.mark.parametrize("where", ["step", "stage", "workflow", "action"])
def test_stop_on_failure_stops_the_rest(engine: Engine, where: str) -> None:
    flow = stages(["a", "b"], ["c"], ["d"])
    if where == "action":
        engine.push(STEP, config={"display_name": "own", "params": {"stop_on_failure": True}})
        flow["stages"][0]["actions"][0]["action_conf"] = "own"
    else:
        levels = {
            "step": flow["stages"][0]["actions"][0],
            "stage": flow["stages"][0],
            "workflow": flow,
        }
        levels[where]["params"] = {"stop_on_failure": True}
    job = run(engine, flow, {"a": {"fail": 9}, "b": {"sleep": 0.3}})
    assert job.status == "FAILED"
    assert steps(engine, job.execution_id) == {"a": "FAILED", "b": "SUCCESS"}
    assert '"d" skipped: a failed, and stops the rest' in log(engine, job.execution_id)


def test_settings_of_the_action_go_before_those_of_stage_and_workflow(engine: Engine) -> None:
    reader = """
import os
from forepaas.core.settings import PARAMS
AT_IMPORT = dict(PARAMS)

def handle(event):
    assert AT_IMPORT == PARAMS
    return {**AT_IMPORT, "variable": os.environ.get("place")}
"""
    config = {"display_name": "reader", "params": {"own": "action", "both": "action"}}
    engine.push(reader, config=config)
    flow = stages(
        [{"action_conf": "reader", "name": "a", "params": {"both": "entry", "place": "entry"}}],
        [{"action_conf": "reader", "name": "b"}],
        [{"action_conf": "reader", "name": "c"}],
        params={"own": "workflow", "both": "workflow", "place": "workflow", "wide": 1},
    )
    flow["stages"][1]["params"] = {"place": "stage"}
    job = run(engine, flow)
    everywhere = {"own": "action", "wide": 1}
    assert job.result == {
        "a": {**everywhere, "both": "entry", "place": "entry", "variable": "entry"},
        "b": {**everywhere, "both": "action", "place": "stage", "variable": "stage"},
        "c": {**everywhere, "both": "action", "place": "workflow", "variable": "workflow"},
    }
    own = engine.run(next(a for a in actions.list_actions(engine.conn) if a.name == "reader"))
    assert own.result == {"own": "action", "both": "action", "variable": None}


def test_timeout_retry_and_priority_are_settings_too(engine: Engine) -> None:
    flow = stages(
        [{"name": "late", "timeout": "1s"}, {"name": "again", "retry": {"max_attempts": 3,
                                                                       "backoff": "0.1s"}}],
        priority="low",
    )  # fmt: skip
    job = run(engine, flow, {"late": {"sleep": 60}, "again": {"fail": 2}})
    assert steps(engine, job.execution_id) == {"late": "TIMEOUT", "again": "SUCCESS"}
    assert "late TIMEOUT: it ran longer than its timeout of 1 s" in str(job.error)
    assert ran(engine, job.execution_id) == ["again"]
    rows = engine.rows("SELECT DISTINCT priority FROM dpe.jobs WHERE run_id IS NOT NULL")
    assert rows == [(2,)]


def test_a_run_past_its_own_timeout_ends_with_its_steps(engine: Engine) -> None:
    job = run(engine, stages(["a"], ["b"], run_timeout="1s"), {"a": {"sleep": 60}})
    assert job.status == "TIMEOUT"
    until(lambda: steps(engine, job.execution_id) == {"a": "STOPPED"}, 3)
    assert ran(engine, job.execution_id) == []


def test_a_step_that_is_lost_too_often_is_a_failure_and_the_rest_goes_on(engine: Engine) -> None:
    killer = "import os\ndef handle(event): os.kill(os.getpid(), 9)"
    engine.push(killer, config={"display_name": "killer"})
    flow = stages([{"action_conf": "killer", "name": "a"}], ["b"])
    job = run(engine, flow)
    assert steps(engine, job.execution_id) == {"a": "FAILED", "b": "SUCCESS"}
    assert "lost 5 times" in str(job.error)


def test_a_stop_ends_the_step_that_runs_and_nothing_follows(engine: Engine) -> None:
    id = start(engine, stages(["a"], ["b"]), {"a": {"sleep": 60}})
    until(lambda: steps(engine, id) == {"a": "PROCESSING"})
    assert jobs.stop(engine.conn, id, "test")
    assert engine.job(id).status == "STOPPED"
    assert steps(engine, id) == {"a": "STOPPED"}
    assert ran(engine, id) == []


def test_steps_of_a_run_that_was_stopped_halfway_are_ended_by_the_watch(engine: Engine) -> None:
    id = start(engine, stages(["a"], ["b"]), {"a": {"sleep": 60}})
    until(lambda: steps(engine, id) == {"a": "PROCESSING"})
    # As of a process that died between the end of the run and those of its steps.
    engine.conn.execute(
        "UPDATE dpe.jobs SET status = 'STOPPED', ended_at = now() WHERE execution_id = %s", [id]
    )
    until(lambda: steps(engine, id) == {"a": "STOPPED"}, 3)


def test_the_end_of_a_step_that_nobody_followed_up_is_by_the_watch(engine: Engine) -> None:
    id = start(engine, stages(["a"], ["b"]), {"a": {"sleep": 60}})
    until(lambda: steps(engine, id) == {"a": "PROCESSING"})
    # As a worker does it that knows nothing of workflows yet.
    engine.conn.execute(
        "UPDATE dpe.jobs SET status = 'SUCCESS', ended_at = now() WHERE run_id = %s", [id]
    )
    assert engine.ended(id).status == "SUCCESS"
    assert steps(engine, id) == {"a": "SUCCESS", "b": "SUCCESS"}


def again(engine: Engine, id: UUID) -> jobs.Job:
    started = workflow_starts.retry(engine.conn, id, None)
    assert started is not None
    return engine.ended(started.run.execution_id)


def test_a_retry_does_again_what_failed_and_what_came_after_it(engine: Engine) -> None:
    action = engine.push(
        "def handle(event): raise OSError('not yet')", config={"display_name": "x"}
    )
    flow = stages(
        ["a", {"name": "b", "action_conf": "x"}],
        [{"name": "c", "needs": ["a"]}, {"name": "d", "needs": ["a", "b"]}],
    )
    first = run(engine, flow, {"a": {"result": 1}})
    assert steps(engine, first.execution_id)["d"] == "SUCCESS"
    # The retry runs the action's newest version.
    engine.push("def handle(event): return 2", action.id, config={"display_name": "x"})
    second = again(engine, first.execution_id)
    assert (second.status, second.retry_of) == ("SUCCESS", first.execution_id)
    assert steps(engine, second.execution_id) == {"b": "SUCCESS", "d": "SUCCESS"}
    assert second.result["d"]["of"] == {"a": 1, "b": 2}
    assert second.result["c"] == first.result["c"]
    # Nothing failed in it: so again is the whole of it.
    third = again(engine, second.execution_id)
    assert set(steps(engine, third.execution_id)) == {"a", "b", "c", "d"}
    assert third.retry_of == first.execution_id


def test_a_retry_has_the_priority_of_the_start(engine: Engine) -> None:
    workflow = workflows.push(engine.conn, None, stages([{"name": "a", "priority": "low"}], ["b"]))
    asked = jobs.Start(workflow.id, '{"b": {"fail": 9}}', priority=0)
    first = workflow_starts.start(engine.conn, asked)
    assert first is not None
    engine.ended(first.run.execution_id)
    assert engine.ended(again(engine, first.run.execution_id).execution_id).priority == 0
    rows = engine.rows("SELECT step, priority FROM dpe.jobs WHERE run_id IS NOT NULL ORDER BY seq")
    assert rows == [("a", 0), ("b", 0), ("b", 0)]


def test_a_retry_of_a_stopped_run_goes_on_where_it_was(engine: Engine) -> None:
    id = start(engine, stages(["a"], ["b"], ["c"]), {"b": {"sleep": 60}})
    until(lambda: steps(engine, id) == {"a": "SUCCESS", "b": "PROCESSING"})
    assert workflow_starts.retry(engine.conn, id, None) is None
    jobs.stop(engine.conn, id, "test")
    started = workflow_starts.retry(engine.conn, id, None)
    assert started is not None
    until(lambda: steps(engine, started.run.execution_id) == {"b": "PROCESSING"})


def test_old_jobs_are_not_deleted_under_a_run_that_goes_on(engine: Engine) -> None:
    id = start(engine, stages(["a"], ["b"]), {"b": {"sleep": 1}})
    until(lambda: steps(engine, id) == {"a": "SUCCESS", "b": "PROCESSING"})
    engine.conn.execute("UPDATE dpe.jobs SET ended_at = '2020-01-01' WHERE step = 'a'")
    retention.delete_old_jobs(engine.conn, 60, 100)
    assert engine.ended(id).status == "SUCCESS"
    assert ran(engine, id) == ["a", "b"]
    retention.delete_old_jobs(engine.conn, 60, 100)
    assert set(steps(engine, id)) == {"b"}
