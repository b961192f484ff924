"""Workflows over HTTP: push, look at, start, follow, stop, try again."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Caller, Hand
from worker.store.actions import Action


def entry(action: Action, name: str, **words: Any) -> dict[str, Any]:
    return {"action_conf": action.id, "name": name, **words}


@pytest.fixture
def definition(action: Action) -> dict[str, Any]:
    """Two steps at once, then one; with a key that nobody knows."""
    return {
        "display_name": "Nightly",
        "my_own_key": [1],
        "stages": [
            {"stageName": "Load", "actions": [entry(action, "shops"), entry(action, "sales")]},
            {"stageName": "Merge", "actions": [entry(action, "merge")]},
        ],
    }


@pytest.fixture
def workflow(editor: Caller, definition: dict[str, Any]) -> str:
    return editor.post("/dpe/v3/workflows", json=definition).json["id"]


def start(caller: Caller, id: str, content: Any = None, **headers: str) -> dict[str, Any]:
    answer = caller.post(f"/dpe/v3/workflows/{id}/start", data=json.dumps(content), headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json


def job(caller: Caller, id: str) -> dict[str, Any]:
    return caller.get(f"/dpe/v3/jobs/{id}").json


def executions(run: dict[str, Any]) -> dict[str, str]:
    return {s["step"]: e["execution_id"] for s in run["steps"] for e in s["executions"]}


def test_a_workflow_is_kept_as_it_was_pushed(
    editor: Caller, workflow: str, definition: dict[str, Any]
) -> None:
    one = editor.get(f"/dpe/v3/workflows/{workflow}").json
    assert (one["_id"], one["name"], one["version"]) == (workflow, "Nightly", 1)
    assert one["definition"] == definition
    assert one["stages"] == definition["stages"]
    assert editor.get("/dpe/v3/workflow/Nightly").json == one
    assert editor.get("/dpe/v3/workflows").json == [one]
    assert editor.get("/dpe/v3/workflows/nothing").status_code == 404


def test_another_definition_is_another_version_and_the_same_is_not(
    editor: Caller, workflow: str, definition: dict[str, Any]
) -> None:
    path = f"/dpe/v3/workflows/{workflow}"
    assert editor.call("PUT", path, json=definition).json["version"] == 1
    assert editor.call("PUT", path, json=definition | {"other": 1}).json["version"] == 2
    assert editor.delete(path).json["deleted"] is True
    assert editor.get(path).status_code == 404
    assert editor.post(f"{path}/start").status_code == 404
    assert editor.call("PUT", path, json=definition).json["version"] == 3


@pytest.mark.parametrize("words", ["workflows", "workflow"])
def test_a_start_names_the_run_and_its_steps_wait_in_line(
    editor: Caller, workflow: str, conn: psycopg.Connection, words: str
) -> None:
    answer = editor.post(f"/dpe/v3/{words}/{workflow}/start?app_id=x&type=cam", json=[1, 2])
    assert answer.status_code == 202
    assert answer.json["id"] == workflow
    assert (answer.json["type"], answer.json["status"]) == ("workflow", "PROCESSING")
    assert answer.headers["Location"] == f"/dpe/v3/jobs/{answer.json['execution_id']}"
    run = job(editor, answer.json["execution_id"])
    assert [(s["step"], s["status"]) for s in run["steps"]] == [
        ("shops", "QUEUED"),
        ("sales", "QUEUED"),
        ("merge", None),
    ]
    assert run["execution"] == {"id": run["execution_id"], "status": "PROCESSING", "progress": 0}
    found = editor.get(f"/dpe/v3/jobs?run_id={run['execution_id']}").json
    assert [one["step"] for one in found] == ["shops", "sales"]
    assert {one["event_type"] for one in found} == {"workflow"}


def test_progress_is_the_share_of_steps_that_have_ended(
    editor: Caller, workflow: str, hand: Hand
) -> None:
    run = job(editor, start(editor, workflow)["execution_id"])
    seen = []
    for step in ("shops", "sales", "merge"):
        hand.run(executions(run)[step], step)
        run = job(editor, run["execution_id"])
        seen.append((run["execution"]["progress"], run["status"]))
    assert seen == [(33, "PROCESSING"), (66, "PROCESSING"), (100, "SUCCESS")]
    assert run["result"] == {"shops": "shops", "sales": "sales", "merge": "merge"}
    assert editor.get("/dpe/v3/jobs").json[0]["execution"]["progress"] == 100


def test_the_log_of_a_run(editor: Caller, workflow: str, hand: Hand) -> None:
    run = job(editor, start(editor, workflow)["execution_id"])
    path = f"/dpe/v3/workflows/{workflow}/logs/{run['execution_id']}"
    first = editor.get(path)
    assert [line["message"] for line in first.json] == [
        '"Nightly" SUBMITTED',
        '"Nightly" QUEUED',
        '"Nightly" BEGIN workflow',
        '"Load" BEGIN stage 1/2 with 2 task(s)',
        '"shops" BEGIN action',
        '"sales" BEGIN action',
    ]
    assert {line["level"] for line in first.json} == {"notice"}
    hand.run(executions(run)["shops"])
    more = editor.get(f"{path}?after={first.headers['X-Next-After']}").json
    assert [line["message"].split(". ")[0] for line in more] == ['"shops" END action: SUCCESS']
    assert editor.get(path.replace(workflow, "0" * 24)).status_code == 404


def test_a_wait_answers_the_end_of_the_run(editor: Caller, action: Action, hand: Hand) -> None:
    definition = {"stages": [{"actions": [entry(action, "only")]}]}
    id = editor.post("/dpe/v3/workflows", json=definition).json["id"]
    run = job(editor, start(editor, id)["execution_id"])
    thread = hand.run_later(executions(run)["only"], 0.2)
    answer = editor.get(f"/dpe/v3/jobs/{run['execution_id']}?wait=10")
    thread.join()
    assert (answer.status_code, answer.json["status"]) == (200, "SUCCESS")


def test_the_same_idempotency_key_starts_one_run(
    editor: Caller, workflow: str, conn: psycopg.Connection
) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda _: start(editor, workflow, **{"Idempotency-Key": "k"}), range(8))
        )
    assert len({json.dumps(answer, sort_keys=True) for answer in answers}) == 1
    assert conn.execute("SELECT count(*) FROM dpe.jobs WHERE run_id IS NULL").fetchone() == (1,)
    other = editor.post(
        f"/dpe/v3/workflows/{workflow}/start", json=[2], headers={"Idempotency-Key": "k"}
    )
    assert other.status_code == 422


def test_a_stop_ends_the_run_and_its_steps(editor: Caller, workflow: str, hand: Hand) -> None:
    first, second = (start(editor, workflow)["execution_id"] for _ in range(2))
    claim = hand.claim(executions(job(editor, first))["shops"])
    stopped = editor.delete(f"/dpe/v3/jobs/{first}/stop").json
    assert stopped["status"] == "STOPPED"
    run = job(editor, first)
    assert [step["status"] for step in run["steps"]] == ["STOPPED", "STOPPED", None]
    with pytest.raises(Exception, match="no longer the owner"):
        hand.succeed(claim)
    claim.conn.close()
    assert job(editor, second)["status"] == "PROCESSING"
    answer = editor.delete(f"/dpe/v3/workflow/{workflow}/stop").json
    assert answer == {"id": workflow, "stopped": 1}
    assert {one["status"] for one in editor.get("/dpe/v3/jobs").json} == {"STOPPED"}
    assert editor.delete(f"/dpe/v3/workflow/{'0' * 24}/stop").status_code == 404


def test_a_step_that_is_stopped_alone_fails_the_run_and_the_rest_goes_on(
    editor: Caller, workflow: str, hand: Hand
) -> None:
    run = job(editor, start(editor, workflow)["execution_id"])
    hand.run(executions(run)["sales"])
    editor.delete(f"/dpe/v3/jobs/{executions(run)['shops']}/stop")
    run = job(editor, run["execution_id"])
    hand.run(executions(run)["merge"])  # started in the transaction of the stop
    run = job(editor, run["execution_id"])
    assert run["status"] == "FAILED"
    assert "1 of 3 steps failed: shops STOPPED: stopped by" in run["error"]["message"]


def test_a_retry_goes_on_from_what_failed(editor: Caller, workflow: str, hand: Hand) -> None:
    first = job(editor, start(editor, workflow, [7])["execution_id"])
    assert editor.post(f"/dpe/v3/jobs/{first['execution_id']}/retry").status_code == 409
    hand.run(executions(first)["shops"], "S")
    hand.fail(hand.claim(executions(first)["sales"]))
    first = job(editor, first["execution_id"])
    hand.run(executions(first)["merge"])
    answer = editor.post(f"/dpe/v3/jobs/{first['execution_id']}/retry")
    assert answer.status_code == 202
    run = job(editor, answer.json["execution_id"])
    assert (run["event_type"], run["retry_of"]) == ("retry", first["execution_id"])
    assert [(s["step"], s["status"]) for s in run["steps"]] == [
        ("shops", "SUCCESS"),
        ("sales", "QUEUED"),
        ("merge", None),
    ]
    assert run["steps"][0]["executions"][0]["kept"] is True
    assert executions(run)["shops"] == executions(first)["shops"]
    hand.run(executions(run)["sales"], "s")
    hand.run(executions(job(editor, run["execution_id"]))["merge"], "m")
    run = job(editor, run["execution_id"])
    assert (run["status"], run["result"]) == (
        "SUCCESS",
        {"shops": "S", "sales": "s", "merge": "m"},
    )
    one_step = editor.post(f"/dpe/v3/jobs/{executions(run)['sales']}/retry")
    assert one_step.status_code == 409
    assert "is a step of run" in one_step.json["error"]


def test_a_deleted_action_keeps_a_workflow_from_starting(
    editor: Caller, workflow: str, action: Action
) -> None:
    editor.delete(f"/dpe/v3/actions/{action.id}")
    answer = editor.post(f"/dpe/v3/workflows/{workflow}/start")
    assert answer.status_code == 409
    assert f"/stages/0/actions/0/action_conf: there is no action '{action.id}'" in answer.text


def test_who_may(caller: Callable[[str], Caller], workflow: str) -> None:
    viewer, starter = caller("DPE Viewer"), caller("DPE Starter")
    assert viewer.get("/dpe/v3/workflows").status_code == 200
    assert viewer.post(f"/dpe/v3/workflows/{workflow}/start").status_code == 403
    assert starter.post(f"/dpe/v3/workflows/{workflow}/start").status_code == 202
    assert starter.post("/dpe/v3/workflows", json={}).status_code == 403
