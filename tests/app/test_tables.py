"""The routes of tables: planned, built, shown, compared, dropped; who may do what."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Caller

ID = {"name": "id", "type": "Number", "format": "integer"}
NAME = {"name": "name", "type": "String"}
TABLES = "/dwh/v4/tables"
EVENT = f"{TABLES}/data_prim/event"


def described(*attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"dataset": "data_prim", "name": "event", "attributes": list(attributes)} | more


@pytest.fixture
def built(editor: Caller, conn: psycopg.Connection) -> None:
    answer = editor.post(TABLES, json=described(ID, NAME, primary_key=["id"]))
    assert (answer.status_code, answer.json["changes"]) == (
        201,
        ["created data_prim.event with 2 attributes"],
    )
    conn.execute("INSERT INTO data_prim.event VALUES (1, 'ann')")


@pytest.mark.usefixtures("built")
def test_what_was_planned_is_built(editor: Caller) -> None:
    wanted = described(ID, {**NAME, "name": "title", "renamed_from": "name"}, primary_key=["id"])
    plan = editor.post(f"{TABLES}/plan", json=wanted).json
    assert (plan["dataset"], plan["name"], plan["loses_data"]) == ("data_prim", "event", False)
    assert plan["steps"] == [{"step": "rename", "what": "name to title", "loses_data": False}]
    refused = editor.post(f"{TABLES}?if_plan=0123", json=wanted)
    assert (refused.status_code, "not 0123 any more" in refused.json["error"]) == (409, True)
    done = editor.post(f"{TABLES}?if_plan={plan['plan']}", json=wanted)
    assert (done.status_code, done.json["changes"]) == (201, ["renamed name to title"])


@pytest.mark.usefixtures("built")
def test_data_are_lost_only_where_that_is_said(editor: Caller, conn: psycopg.Connection) -> None:
    plan = editor.post(f"{TABLES}/plan", json=described(ID, primary_key=["id"])).json
    assert plan["loses_data"] is True
    refused = editor.post(TABLES, json=described(ID, primary_key=["id"]))
    assert (refused.status_code, "drop name (text)" in refused.json["error"]) == (409, True)
    assert conn.execute("SELECT name FROM data_prim.event").fetchall() == [("ann",)]
    unclear = editor.post(f"{TABLES}?allow_data_loss=perhaps", json=described(ID))
    assert (unclear.status_code, "allow_data_loss" in unclear.json["error"]) == (400, True)
    done = editor.post(f"{TABLES}?allow_data_loss=true", json=described(ID, primary_key=["id"]))
    assert done.json["changes"] == ["dropped name (text)"]


@pytest.mark.usefixtures("built")
def test_a_table_is_shown_with_what_stands(editor: Caller) -> None:
    shown = editor.get(EVENT).json
    assert (shown["attributes"], shown["primary_key"]) == ([ID, NAME], ["id"])
    assert shown["built_at"].endswith("Z")
    assert shown["standing"]["bytes"] > 0
    missing = editor.get(f"{TABLES}/data_prim/nothing")
    assert missing.status_code == 404
    assert "table data_prim.nothing not found" in missing.json["warning"]


@pytest.mark.usefixtures("built")
def test_what_others_changed_is_seen(editor: Caller, conn: psycopg.Connection) -> None:
    assert editor.get(f"{EVENT}/diff").json["steps"] == []
    conn.execute("ALTER TABLE data_prim.event ADD more int")
    conn.execute("CREATE TABLE data_prim.other (id int)")
    (step,) = editor.get(f"{EVENT}/diff").json["steps"]
    assert step == {"step": "drop", "what": "more (integer)", "loses_data": True}
    assert editor.get(f"{TABLES}/data_prim/other/diff").status_code == 404
    assert [t["name"] for t in editor.get(f"{TABLES}?all=true").json] == ["event", "other"]
    assert [t["name"] for t in editor.get(TABLES).json] == ["event"]


@pytest.mark.usefixtures("built")
def test_a_table_is_dropped(editor: Caller) -> None:
    refused = editor.delete(EVENT)
    assert (refused.status_code, "has rows" in refused.json["error"]) == (409, True)
    dropped = editor.delete(f"{EVENT}?allow_data_loss=true")
    assert dropped.json["changes"] == ["dropped data_prim.event"]
    assert editor.get(EVENT).status_code == 404


@pytest.mark.usefixtures("built")
def test_each_route_has_its_permission(caller: Callable[[str], Caller]) -> None:
    viewer, starter = caller("DPE Viewer"), caller("DPE Starter")
    reads = [EVENT, f"{EVENT}/diff", f"{EVENT}/rows", f"{EVENT}/export"]
    assert {viewer.get(path, buffered=True).status_code for path in reads} == {200}
    assert {starter.get(path, buffered=True).status_code for path in reads} == {403}
    plan = described(ID)
    assert viewer.post(f"{TABLES}/plan", json=plan).status_code == 200
    assert viewer.post(TABLES, json=plan).status_code == 403
    assert viewer.delete(EVENT).status_code == 403
