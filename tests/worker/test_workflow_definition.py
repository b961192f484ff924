"""What may stand in a workflow's file, and what is said of what may not."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.workflows import stages
from worker.errors import Invalid
from worker.store.workflow_definition import read
from worker.store.workflow_plan import Plan, Ran, Step, settings, stand

ONE = {"action_conf": "x"}


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ([], "/: a workflow must be an object"),
        ({}, "/stages: must be a list of stages"),
        ({"stages": []}, "/stages: must be a list of stages"),
        ({"stages": [{}]}, "/stages: no stage has an action"),
        ({"stages": [1]}, '/stages/0: must be an object with a list of "actions"'),
        ({"stages": [{"actions": ["x"]}]}, "/stages/0/actions/0: must be an object"),
        ({"stages": [{"actions": [{}]}]}, '/stages/0/actions/0: must have "action_conf" or'),
        ({"stages": [{"actions": [ONE | {"workflow_conf": "y"}]}]}, 'must have "action_conf" or'),
        ({"stages": [{"actions": [{"action_conf": 1}]}]}, "/stages/0/actions/0/action_conf: must"),
        ({"display_name": 1, "stages": [{"actions": [ONE]}]}, "/display_name: must be a text"),
        ({"run_timeout": "soon", "stages": [{"actions": [ONE]}]}, "/run_timeout: must be a dur"),
        ({"stages": [{"disable": "no", "actions": [ONE]}]}, "/stages/0/disable: must be true or"),
        ({"stages": [{"params": "x", "actions": [ONE]}]}, "/stages/0/params: must be an object"),
        (stages(["a"], ["a"]), "/stages/1/actions/0/name: a step before it is called 'a' as well"),
        (stages([{"name": "a", "timeout": "soon"}]), '/stages/0/actions/0: "params.timeout" must'),
        (
            stages([{"name": "a", "retry": {"max_attempts": 0}}]),
            '/stages/0/actions/0: "retry": "max',
        ),
        (
            stages([{"name": "a", "priority": "x"}]),
            '/stages/0/actions/0: "priority" mu',
        ),
        (stages([{"name": "a", "stop_on_failure": "no"}]), "/stages/0/actions/0/stop_on_failure:"),
        (
            stages(["a", {"name": "b", "needs": ["a", "laod"]}]),
            "/stages/0/actions/1/needs/1: there is no step 'laod'; there are a, b",
        ),
        (stages([{"name": "a", "needs": "b"}]), "/stages/0/actions/0/needs: must be a list of"),
        (stages([{"name": "a", "needs": [["b"]]}]), "/stages/0/actions/0/needs/0: there is no"),
        (
            stages(["z", {"name": "a", "needs": ["b"]}, {"name": "b", "needs": ["a"]}]),
            "/needs: a cycle: ",
        ),
        (stages([{"name": "a", "needs": ["a"]}]), "/needs: a cycle: a needs a"),
        (stages([{"name": "a", "if": "failed"}]), "/stages/0/actions/0/if: must be one of success"),
        (stages([{"name": "a", "if": {"b": "SUCCESS"}}]), "/stages/0/actions/0/if/b: there is no"),
        (
            stages(["a/b"], [{"name": "c", "if": {"a/b": "failed"}}]),
            "/stages/1/actions/0/if/a~1b: must be of SUCCESS, FAILED",
        ),
        (
            stages(["a", {"name": "b", "if": {"a": "FAILED"}}]),
            "/stages/0/actions/1/if: 'a' is not before 'b': add it to its needs",
        ),
        (stages([{"name": "a", "for_each": "files"}]), "/stages/0/actions/0/for_each: must be a"),
        (stages([{"name": "a", "for_each": [0] * 1001}]), "/stages/0/actions/0/for_each: has 1001"),
        (
            stages(["a", {"name": "b", "for_each": "results.a"}]),
            "/stages/0/actions/1/for_each: 'a' is not before 'b'",
        ),
        (stages([str(n) for n in range(501)]), "/stages: there are 501 actions; at most 500"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(definition: Any, said: str) -> None:
    with pytest.raises(Invalid) as error:
        read(definition)
    assert said in str(error.value)


def test_steps_are_called_by_their_action_where_nothing_else_is_said() -> None:
    parts = read({"stages": [{"actions": [ONE, ONE]}, {"actions": [ONE]}]}).parts
    assert [part.name for part in parts] == ["x", "x 2", "x 3"]
    assert parts[2].needs == ["x", "x 2"]


def test_a_step_whose_name_has_dots_can_be_gone_over() -> None:
    part = read(stages(["a", "a.b"], [{"name": "c", "for_each": "results.a.b.rows.0"}])).parts[2]
    assert part.for_each == {"path": ["results", "a.b", "rows", "0"]}


def test_settings_go_around_those_of_the_action() -> None:
    config = {"retry": {"max_attempts": 2}, "params": {"a": 1, "b": 1}, "other": 1}
    found = settings(config, {"a": 0, "c": 0, "retry": {}}, {"b": 2})
    params = {"a": 1, "b": 2, "c": 0, "retry": {"max_attempts": 2}}
    assert found == {"other": 1, "params": params}


KEYS = ["stages", "actions", "action_conf", "name", "needs", "if", "for_each", "params", "disable"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
)


@given(JSON)
def test_no_json_whatever_is_more_than_refused(value: Any) -> None:
    for definition in (value, {"stages": value}, {"stages": [{"actions": [value]}]}):
        with contextlib.suppress(Invalid):
            read(json.loads(json.dumps(definition)))


STATUS = st.sampled_from(["SUCCESS", "FAILED", "TIMEOUT", "STOPPED"])


@st.composite
def graphs(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for at in range(draw(st.integers(1, 8))):
        before = [step.name for step in steps]
        needs = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        condition = draw(st.sampled_from([None, None, "success", "failure", "always"]))
        if needs and draw(st.booleans()):
            condition = {needs[0]: draw(st.lists(STATUS, min_size=1))}
        steps.append(
            Step(
                f"s{at}", 0, "x", 1, "x",
                needs=needs,
                condition=condition,
                disabled=draw(st.integers(0, 5)) == 0,
                stop_on_failure=draw(st.integers(0, 3)) == 0,
            )
        )  # fmt: skip
    return steps


@given(graphs(), st.data())
def test_every_run_comes_to_its_end_and_starts_no_step_twice(
    steps: list[Step], data: st.DataObject
) -> None:
    """Whatever the graph, the ends of its steps, and the order in which they come."""
    plan, ran = Plan(["only"], steps), {}
    started: list[str] = []
    decided: dict[str, Any] = {}
    while True:
        standings = stand(plan, decided, ran, lambda _: [None])
        for name, before in decided.items():
            assert standings[name] == before  # what is decided stays so
        decided = {name: s for name, s in standings.items() if s.decided}
        for name, standing in standings.items():
            if standing.items:
                assert name not in started
                assert set(plan.step(name).needs) <= set(decided)
                started.append(name)
                ran[name] = _ran(name, "QUEUED", 1)
        going = [name for name, row in ran.items() if row.open]
        if not going:
            break
        ends = data.draw(st.lists(st.sampled_from(going), min_size=1, unique=True))
        for name in ends:
            ran[name] = _ran(name, data.draw(STATUS), 0)
    assert set(decided) == {step.name for step in steps}


def _ran(name: str, status: str, open: int) -> Ran:
    return Ran(name, open, [status], None, None, None)  # type: ignore[arg-type]
