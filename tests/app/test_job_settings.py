"""Settings of jobs: which level counts, and that what is shown is what acts."""

import json
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Caller
from worker.store import actions
from worker.store.actions import Action

MAIN = b"def customfunc(event): pass"
SETTINGS = "/dpe/v3/settings"


def pushed(conn: psycopg.Connection, **config: Any) -> Action:
    return actions.push(conn, None, {"main.py": MAIN, "forepaas.json": json.dumps(config).encode()})


def shown(found: list[dict[str, Any]]) -> dict[str, tuple[Any, str]]:
    return {one["name"]: (one["value"], one["level"]) for one in found}


def accepted(conn: psycopg.Connection, id: str) -> tuple[Any, ...] | None:
    return conn.execute(
        "SELECT timeout_s, priority, max_running FROM dpe.jobs WHERE execution_id = %s", [id]
    ).fetchone()


def test_without_any_setting_the_built_in_ones_are_shown(
    editor: Caller, conn: psycopg.Connection
) -> None:
    found = shown(editor.get(SETTINGS).json)
    assert found["timeout"] == ("2h", "built in")
    assert found["max_memory"] == (None, "built in")
    action = pushed(conn)
    assert shown(editor.get(f"/dpe/v3/actions/{action.id}/settings").json) == {
        name: value for name, value in found.items() if name != "run_timeout"
    } | {"allow_concurrent": (True, "built in")}
    assert accepted(conn, editor.start(action.id)) == (7200, 1, None)


def test_a_default_holds_at_once_for_actions_that_say_nothing(
    editor: Caller, conn: psycopg.Connection
) -> None:
    silent = pushed(conn)
    own = pushed(conn, priority="low", max_concurrency=None, params={"timeout": "10s"})
    defaults = {"timeout": "30m", "priority": "high", "max_concurrency": 3, "expires": "1h"}
    told = editor.call("PUT", SETTINGS, json=defaults)
    assert told.status_code == 200, told.text
    assert shown(told.json)["timeout"] == ("30m", "environment")
    later = pushed(conn)
    for action in (silent, later):
        found = shown(editor.get(f"/dpe/v3/actions/{action.id}/settings").json)
        assert found["expires"] == ("1h", "environment")
        assert accepted(conn, editor.start(action.id)) == (1800, 0, 3)
    found = shown(editor.get(f"/dpe/v3/actions/{own.id}/settings").json)
    assert (found["timeout"], found["priority"], found["max_concurrency"]) == (
        ("10s", "action"),
        ("low", "action"),
        (None, "action"),
    )
    assert accepted(conn, editor.start(own.id)) == (10, 2, None)
    # What a PUT leaves out is built in again.
    editor.call("PUT", SETTINGS, json={"timeout": None})
    assert shown(editor.get(SETTINGS).json)["timeout"] == (None, "environment")
    assert accepted(conn, editor.start(silent.id)) == (None, 1, None)
    assert accepted(conn, editor.start(own.id)) == (10, 2, None)


def test_every_level_of_a_step_is_named(editor: Caller, conn: psycopg.Connection) -> None:
    action = pushed(conn, display_name="Own", retry={"max_attempts": 7})
    plain = pushed(conn, display_name="Plain")
    definition = {
        "display_name": "Flow",
        "run_timeout": "3h",
        "max_concurrency": 2,
        "retry": {"max_attempts": 2},
        "stages": [
            {
                "stageName": "Load",
                "timeout": "20m",
                "actions": [
                    {"action_conf": action.id, "name": "a", "priority": "low"},
                    {"action_conf": plain.id, "name": "b"},
                ],
            }
        ],
    }
    made = editor.post("/dpe/v3/workflows", json=definition)
    assert made.status_code == 201, made.text
    editor.call("PUT", SETTINGS, json={"priority": "high", "max_memory": "1 GB"})
    told = editor.get(f"/dpe/v3/workflows/{made.json['id']}/settings").json
    assert shown(told["settings"]) == {
        "run_timeout": ("3h", "workflow"),
        "max_concurrency": (2, "workflow"),
        "allow_concurrent": (True, "built in"),
    }
    steps = {one["step"]: (one["runs"], shown(one["settings"])) for one in told["steps"]}
    assert steps["a"] == (
        "Own",
        {
            "timeout": ("20m", "stage"),
            "retry": ({"max_attempts": 7}, "action"),
            "priority": ("low", "step"),
            "max_memory": ("1 GB", "environment"),
            "max_concurrency": (None, "built in"),
        },
    )
    assert steps["b"][1]["retry"] == ({"max_attempts": 2}, "workflow")
    assert steps["b"][1]["priority"] == ("high", "environment")
    # And these are what the steps' jobs get.
    started = editor.post(f"/dpe/v3/workflows/{made.json['id']}/start").json["execution_id"]
    rows = conn.execute(
        "SELECT step, timeout_s, priority FROM dpe.jobs WHERE run_id = %s ORDER BY step", [started]
    ).fetchall()
    assert rows == [("a", 1200, 2), ("b", 1200, 0)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"timeout": "soon"}, "timeout"),
        ({"retry": {"max_attempts": 0}}, "max_attempts"),
        ({"priority": "urgent"}, "one of high, default, low"),
        ({"max_memory": "much"}, 'a size like "512 MB"'),
        ({"run_timeout": -1}, "run_timeout"),
        ({"max_concurrency": 0}, "1 or more"),
        ({"allow_concurrent": False}, "has no default"),
        ({"colour": "red"}, "'colour' has no default"),
    ],
)
def test_a_wrong_default_is_refused_and_changes_nothing(
    editor: Caller, given: dict[str, Any], words: str
) -> None:
    assert editor.call("PUT", SETTINGS, json={"timeout": "1h"}).status_code == 200
    answer = editor.call("PUT", SETTINGS, json=given)
    assert (answer.status_code, words in answer.json["error"]) == (400, True), answer.text
    assert shown(editor.get(SETTINGS).json)["timeout"] == ("1h", "environment")


def test_a_workflow_of_which_one_run_may_go_on_is_409_meanwhile(
    editor: Caller, conn: psycopg.Connection
) -> None:
    action = pushed(conn)
    definition = {
        "display_name": "Alone",
        "allow_concurrent": False,
        "stages": [{"actions": [{"action_conf": action.id}]}],
    }
    id = editor.post("/dpe/v3/workflows", json=definition).json["id"]
    first = editor.post(f"/dpe/v3/workflows/{id}/start").json["execution_id"]
    refused = editor.post(f"/dpe/v3/workflows/{id}/start")
    assert (refused.status_code, first in refused.json["error"]) == (409, True), refused.text
    editor.delete(f"/dpe/v3/jobs/{first}/stop")
    assert editor.post(f"/dpe/v3/workflows/{id}/start").status_code == 202
    wrong = editor.post("/dpe/v3/workflows", json={**definition, "allow_concurrent": 1})
    assert (wrong.status_code, "allow_concurrent" in wrong.json["error"]) == (400, True)
