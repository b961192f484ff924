"""Triggers over HTTP, and what a start says of itself."""

from collections.abc import Callable

import psycopg
import pytest
from flask import Flask

from tests.app.conftest import Caller
from worker.store import access
from worker.store.actions import Action

PATH = "/dpe/v3/triggers/nightly"


def definition(action: Action, **words: object) -> dict[str, object]:
    return {"action": action.id, "cron": "30 2 * * *", "timezone": "Europe/Paris", **words}


def test_a_trigger_is_set_looked_at_and_removed(editor: Caller, action: Action) -> None:
    made = editor.call("PUT", PATH, json=definition(action, catch_up="last", event={"n": 1}))
    assert made.status_code == 200, made.text
    shown = editor.get(PATH).json
    assert shown["ticks"] == []
    assert (shown["name"], shown["action"], shown["event"]) == ("nightly", action.id, {"n": 1})
    assert (shown["catch_up"], shown["overlap"], shown["paused"]) == ("last", "allow", False)
    assert [one["name"] for one in editor.get("/dpe/v3/triggers").json] == ["nightly"]
    assert editor.delete(PATH).json == {"name": "nightly", "deleted": True}
    assert editor.get(PATH).status_code == 404


def test_an_action_is_named_by_its_name_too(editor: Caller, action: Action) -> None:
    made = editor.call("PUT", PATH, json={"action": "Archive", "cron": "@ * * * *"})
    assert made.status_code == 400
    made = editor.call("PUT", PATH, json={"action": "Archive", "cron": "5 * * * *"})
    assert made.json["action"] == action.id


def test_the_next_ticks_are_shown_in_both_times(editor: Caller, action: Action) -> None:
    editor.call("PUT", PATH, json=definition(action))
    answer = editor.get(f"{PATH}/next?count=3").json
    assert [tick["local"][11:16] for tick in answer["next"]] == ["02:30"] * 3
    assert {tick["tick"][11:16] for tick in answer["next"]} <= {"00:30", "01:30"}
    assert editor.get(f"{PATH}/next?count=1000").status_code == 400


def test_a_paused_trigger_says_so(editor: Caller, action: Action) -> None:
    editor.call("PUT", PATH, json=definition(action))
    paused = editor.post(f"{PATH}/pause").json
    assert (paused["paused"], paused["next_at"]) == (True, None)
    # Whoever changes its time does not wake it up by that.
    assert editor.call("PUT", PATH, json=definition(action, cron="0 0 * * *")).json["paused"]
    resumed = editor.post(f"{PATH}/resume").json
    assert resumed["paused"] is False
    assert resumed["next_at"]


def test_a_name_that_the_address_contradicts_is_refused(editor: Caller, action: Action) -> None:
    answer = editor.call("PUT", PATH, json=definition(action, name="daily"))
    assert answer.status_code == 400
    assert "daily" in answer.json["error"]


@pytest.mark.parametrize(("role", "status"), [("DPE Viewer", 403), ("DPE Starter", 403)])
def test_only_who_may_write_sets_triggers(
    caller: Callable[[str], Caller], action: Action, role: str, status: int
) -> None:
    assert caller(role).call("PUT", PATH, json=definition(action)).status_code == status


def test_a_bound_key_sets_no_trigger_of_another_action(
    app: Flask, conn: psycopg.Connection, editor: Caller, action: Action
) -> None:
    bounds = access.Bounds(only_ids=["b" * 24])
    key = access.create_key(conn, "bound", "DPE Editor", bounds=bounds)
    body = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    client = app.test_client()
    bound = Caller(client, client.post("/iam/v4/login", json=body).json["token"])
    assert bound.call("PUT", PATH, json=definition(action)).status_code == 403
    assert editor.get(PATH).status_code == 404  # and nothing of it stays
    editor.call("PUT", PATH, json=definition(action))
    assert bound.post(f"{PATH}/pause").status_code == 403
    assert bound.delete(PATH).status_code == 403


def test_a_start_says_whether_a_program_or_a_person_made_it(editor: Caller, action: Action) -> None:
    path = f"/dpe/v3/actions/{action.id}/start"
    for query, expected in (("", "api"), ("?event_type=manual", "manual")):
        id = editor.post(path + query).json["execution_id"]
        assert editor.get(f"/dpe/v3/jobs/{id}").json["event_type"] == expected
    assert editor.post(f"{path}?event_type=cron").status_code == 400
