"""Runs whose steps need each other: graphs, conditions, results, for_each, nested workflows."""

from typing import Any

import pytest

from tests.stack import Engine, until
from tests.worker.workflows import log, prepare, ran, run, stages, start, steps
from worker.errors import Invalid
from worker.store import jobs, workflow_starts, workflows


@pytest.fixture
def engine(engine: Engine) -> Engine:
    prepare(engine)
    engine.worker()
    return engine


FAIL = {"fail": 9}


def test_a_step_starts_when_those_that_it_needs_have_ended(engine: Engine) -> None:
    #   a ── c ──┐
    #   b(slow) ─┴─ d
    flow = stages(
        [
            "a",
            {"name": "d", "needs": ["c", "b"]},
            "b",
            {"name": "c", "needs": ["a"]},
        ]
    )
    id = start(engine, flow, {"b": {"sleep": 1.5}})
    until(lambda: steps(engine, id) == {"a": "SUCCESS", "b": "PROCESSING", "c": "SUCCESS"}, 1.2)
    assert engine.ended(id).status == "SUCCESS"
    assert ran(engine, id) == ["a", "b", "c", "d"]


def test_a_disabled_step_hands_on_what_it_needs(engine: Engine) -> None:
    flow = stages(
        ["a", {"name": "b", "needs": ["a"], "disable": True}, {"name": "c", "needs": ["b"]}]
    )
    id = start(engine, flow, {"a": {"sleep": 0.5}})
    until(lambda: steps(engine, id) == {"a": "PROCESSING"})
    assert engine.ended(id).status == "SUCCESS"
    assert ran(engine, id) == ["a", "c"]


@pytest.mark.parametrize(
    ("condition", "told", "runs"),
    [
        ("success", {}, True),
        ("success", {"a": FAIL}, False),
        ("failure", {}, False),
        ("failure", {"a": FAIL}, True),
        ("always", {"a": FAIL}, True),
        ({"a": "FAILED"}, {"a": FAIL}, True),
        ({"a": "FAILED"}, {}, False),
        ({"a": ["FAILED", "SUCCESS"], "b": "SUCCESS"}, {}, True),
        ({"a": ["FAILED", "SUCCESS"], "b": "SUCCESS"}, {"b": FAIL}, False),
    ],
)
def test_a_condition_on_the_steps_before(
    engine: Engine, condition: Any, told: dict[str, Any], runs: bool
) -> None:
    job = run(engine, stages(["a"], ["b"], [{"name": "c", "if": condition}], ["d"]), told)
    assert ("c" in steps(engine, job.execution_id)) == runs
    assert "d" in ran(engine, job.execution_id)
    assert job.status == ("FAILED" if told else "SUCCESS")


def test_what_is_to_run_after_a_failure_runs_when_the_rest_is_stopped(engine: Engine) -> None:
    flow = stages(
        [{"name": "a", "stop_on_failure": True}],
        ["b"],
        [
            {"name": "c", "if": "success"},
            {"name": "d", "if": "failure"},
            {"name": "e", "if": "always"},
        ],
        [{"name": "f", "if": {"b": "SUCCESS"}}, {"name": "g", "if": {"a": "FAILED"}}],
    )
    job = run(engine, flow, {"a": FAIL})
    assert ran(engine, job.execution_id) == ["d", "e", "g"]
    lines = log(engine, job.execution_id)
    assert '"b" skipped: a failed, and stops the rest' in lines
    job = run(engine, flow)
    assert ran(engine, job.execution_id) == ["a", "b", "c", "e", "f"]
    assert '"g" skipped: a is SUCCESS and not FAILED' in log(engine, job.execution_id)


def test_results_of_the_steps_before_are_handed_on(engine: Engine) -> None:
    flow = stages(["a", "b"], ["c"], [{"name": "d", "needs": ["a"]}])
    job = run(engine, flow, {"a": {"result": {"rows": 2**60}}, "b": FAIL})
    assert job.result is not None
    assert job.result["c"]["of"] == {"a": {"rows": 2**60}}  # b has none
    assert job.result["d"]["of"] == {"a": {"rows": 2**60}}


def test_for_each_item_of_the_event_a_result_or_a_list(engine: Engine) -> None:
    flow = stages(
        [{"name": "a", "for_each": ["x", 2]}],
        [{"name": "b", "for_each": "event.content.files"}],
        [{"name": "c", "for_each": "results.b"}],
        [{"name": "d", "for_each": "event.content.none"}],
        ["e"],
    )
    content = {"files": ["1.csv", "2.csv"], "none": [], "b": {"result": {"rows": 7}}}
    job = run(engine, flow, content)
    assert job.status == "SUCCESS", job.error
    result = job.result
    assert [one["item"] for one in result["a"]] == ["x", 2]
    assert result["b"] == [{"rows": 7}] * 2
    assert [one["item"] for one in result["c"]] == result["b"]
    assert (result["d"], result["e"]["of"]["d"]) == ([], [])
    assert steps(engine, job.execution_id)["b"] == "SUCCESS SUCCESS"
    assert '"b" BEGIN action, 2 times' in log(engine, job.execution_id)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "for_each: content.files is not there"),
        ({}, "for_each: content.files is not there"),
        ({"files": "1.csv"}, "for_each: content.files must be a list, got str"),
        ({"files": [0] * 1001}, "for_each: content.files has 1001 items; at most 1000 can be"),
    ],
)
def test_a_for_each_over_what_is_no_list_is_a_failure_of_the_step(
    engine: Engine, content: Any, why: str
) -> None:
    flow = stages(["a"], [{"name": "b", "for_each": "event.content.files"}], ["c"])
    job = run(engine, flow, content)
    assert job.status == "FAILED"
    assert f"1 of 3 steps failed: b FAILED: {why}" in str(job.error)
    assert ran(engine, job.execution_id) == ["a", "c"]


def test_a_for_each_of_many_items(engine: Engine) -> None:
    flow = stages([{"name": "a", "for_each": "event.content.n"}], ["b"])
    job = run(engine, flow, {"n": list(range(300))})
    assert job.status == "SUCCESS"
    assert [one["item"] for one in job.result["a"]] == list(range(300))
    assert ran(engine, job.execution_id) == ["a"] * 300 + ["b"]


def test_a_retry_does_again_only_the_items_that_failed(engine: Engine) -> None:
    source = """
from worker.store import claims
def handle(event):
    if event.item == 1 and event.type != "workflow" or event.item in event.content["bad"]:
        raise ValueError(f"no {event.item}")
    return event.item
"""
    action = engine.push(source, config={"display_name": "one"})
    flow = stages([{"action_conf": "one", "name": "a", "for_each": [1, 2, 3]}], ["b"])
    first = run(engine, flow, {"bad": [2]})
    assert steps(engine, first.execution_id)["a"] == "SUCCESS FAILED SUCCESS"
    engine.push("def handle(event): return -event.item", action.id, config={"display_name": "one"})
    started = workflow_starts.retry(engine.conn, first.execution_id, None)
    assert started is not None
    second = engine.ended(started.run.execution_id)
    assert steps(engine, second.execution_id) == {"a": "SUCCESS", "b": "SUCCESS"}
    assert second.result["a"] == [1, -2, 3]
    assert second.result["b"]["of"]["a"] == [1, -2, 3]


def nested(engine: Engine, inner: dict[str, Any], **words: Any) -> dict[str, Any]:
    """A workflow with another one between a and z."""
    workflows.push(engine.conn, None, {**inner, "display_name": "Inner"})
    step = {"workflow_conf": "Inner", "name": "inner", **words}
    outer = stages(["a"], [], ["z"])
    outer["stages"][1]["actions"] = [step]
    return outer


def test_a_workflow_within_a_workflow(engine: Engine) -> None:
    job = run(engine, nested(engine, stages(["b"], ["c"])), {"c": {"sleep": 0.3}})
    assert (job.status, job.error) == ("SUCCESS", None)
    assert steps(engine, job.execution_id) == dict.fromkeys(["a", "inner", "z"], "SUCCESS")
    assert list(job.result["z"]["of"]["inner"]) == ["b", "c"]
    rows = engine.rows("SELECT step FROM data_prim.ran ORDER BY 1")
    assert [step for (step,) in rows] == ["a", "b", "c", "z"]
    assert '"inner" BEGIN workflow' in log(engine, job.execution_id)


def test_a_workflow_within_a_workflow_for_each_item(engine: Engine) -> None:
    inner = stages(["b"], [{"name": "c", "for_each": [7, 8]}])
    job = run(engine, nested(engine, inner, for_each=["x", "y"]))
    assert job.status == "SUCCESS"
    assert [one["b"]["item"] for one in job.result["inner"]] == ["x", "y"]
    rows = engine.rows("SELECT step, item FROM data_prim.ran WHERE item IS NOT NULL ORDER BY 1, 2")
    assert rows == [("b", "x"), ("b", "y"), ("c", "7"), ("c", "7"), ("c", "8"), ("c", "8")]


def test_a_failure_within_is_one_of_the_step_and_a_retry_goes_on_from_it(engine: Engine) -> None:
    action = engine.push("def handle(event): raise OSError('no')", config={"display_name": "x"})
    inner = stages(["b"], [{"name": "c", "action_conf": "x"}])
    first = run(engine, nested(engine, inner, stop_on_failure=True))
    assert first.status == "FAILED"
    assert "inner FAILED: 1 of 2 steps failed: c FAILED: no" in str(first.error)
    assert ran(engine, first.execution_id) == ["a"]
    engine.push("def handle(event): return 3", action.id, config={"display_name": "x"})
    started = workflow_starts.retry(engine.conn, first.execution_id, None)
    assert started is not None
    second = engine.ended(started.run.execution_id)
    assert (second.status, second.result["inner"]["c"]) == ("SUCCESS", 3)
    rows = engine.rows("SELECT step FROM data_prim.ran ORDER BY 1")
    assert [step for (step,) in rows] == ["a", "b", "z"]  # a and b were not done again


def test_a_stop_reaches_the_steps_within(engine: Engine) -> None:
    id = start(engine, nested(engine, stages(["b"], ["c"])), {"b": {"sleep": 60}})
    until(lambda: steps(engine, id) == {"a": "SUCCESS", "inner": "PROCESSING"})
    until(lambda: engine.rows("SELECT 1 FROM dpe.jobs WHERE step='b' AND status='PROCESSING'"))
    jobs.stop(engine.conn, id, "test")
    assert engine.rows("SELECT count(*) FROM dpe.jobs WHERE ended_at IS NULL") == [(0,)]
    assert steps(engine, id) == {"a": "SUCCESS", "inner": "STOPPED"}


def test_no_workflow_is_within_itself(engine: Engine) -> None:
    outer = nested(engine, stages(["b"]))
    pushed = workflows.push(engine.conn, None, {**outer, "display_name": "Outer"})
    inner = workflows.get(engine.conn, "Inner")
    assert inner is not None
    back = {"stages": [{"actions": [{"workflow_conf": "Outer"}]}]}
    with pytest.raises(Invalid, match="/stages/0/actions/0/workflow_conf: the workflow would be"):
        workflows.push(engine.conn, inner.id, back)
    itself = {"stages": [{"actions": [{"workflow_conf": pushed.id}]}]}
    with pytest.raises(Invalid, match="within itself"):
        workflows.push(engine.conn, pushed.id, itself)
    for depth in range(6):
        entry = {"workflow_conf": f"deep {depth - 1}"} if depth else {"action_conf": "step"}
        deeper = {"display_name": f"deep {depth}", "stages": [{"actions": [entry]}]}
        workflows.push(engine.conn, None, deeper)
    deepest = {"stages": [{"actions": [{"workflow_conf": "deep 5"}]}]}
    with pytest.raises(Invalid, match="more than 5 workflows within each other"):
        workflows.push(engine.conn, None, deepest)
