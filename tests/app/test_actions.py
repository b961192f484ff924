"""Actions and tables over HTTP."""

import re
from base64 import b64decode
from typing import Any

import pytest

from tests.app.conftest import MAIN, Caller, encoded
from worker.store.actions import Action

CONFIG = b'{"display_name": "Archive", "tags": {"path": "x"}, "params": {"timeout": "1m"}}'
FILES = {"main.py": MAIN, "forepaas.json": CONFIG, "lib/rows.py": b"\xef\xbb\xbfX = 1\r\n"}


def test_a_pushed_action_comes_back_byte_for_byte(editor: Caller) -> None:
    answer = editor.post("/dpe/v3/actions", json=encoded(**FILES))
    assert answer.status_code == 201, answer.text
    action = answer.json
    assert re.fullmatch("[0-9a-f]{24}", action["id"])
    assert action["_id"] == action["id"]
    assert answer.headers["Location"] == f"/dpe/v3/actions/{action['id']}"
    assert action["files"] == sorted(FILES)
    assert action["config"]["tags"] == {"path": "x"}
    assert (action["name"], action["version"], action["timeout_s"]) == ("Archive", 1, 60.0)
    pulled = editor.get(f"/dpe/v3/actions/{action['id']}/files").json
    assert {path: b64decode(text) for path, text in pulled["files"].items()} == FILES
    assert editor.get(f"/dpe/v3/action/{action['id']}").json == action
    assert editor.get("/dpe/v3/actions/Archive").json == action
    assert editor.get("/dpe/v3/actions").json == [action]


def test_a_push_to_an_id_makes_it_known_and_then_its_next_version(editor: Caller) -> None:
    path = "/dpe/v3/actions/5eaf0db7f6f51d5255974217"
    first = editor.call("PUT", path, json=encoded(**FILES))
    assert (first.status_code, first.json["version"]) == (200, 1)
    assert editor.call("PUT", path, json=encoded(**FILES)).json["version"] == 1
    changed = FILES | {"main.py": MAIN + b"\n"}
    assert editor.call("PUT", path, json=encoded(**changed)).json["version"] == 2


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, '"files" must be an object'),
        ([], "must be a JSON object"),
        ({"files": {"main.py": "no base64!"}}, "content of 'main.py' must be base64"),
        ({"files": {"main.py": 5}}, "content of 'main.py' must be base64"),
        ({"files": {"other.py": ""}}, "needs a main.py"),
        ({"files": {"main.py": "", "../x": ""}}, "not a path inside"),
        ({"files": {"main.py": "", "forepaas.json": "e"}}, "base64"),
        ({"files": {"main.py": "", "forepaas.json": "ew=="}}, "forepaas.json is not JSON"),
    ],
)
def test_a_push_that_is_none_is_refused(editor: Caller, sent: Any, words: str) -> None:
    answer = editor.post("/dpe/v3/actions", json=sent)
    assert answer.status_code == 400
    assert words in answer.json["error"]
    assert editor.get("/dpe/v3/actions").json == []


def test_an_id_that_is_none_is_refused(editor: Caller) -> None:
    answer = editor.call("PUT", "/dpe/v3/actions/mine", json=encoded(**FILES))
    assert answer.status_code == 400
    assert "24 hex characters" in answer.json["error"]


def test_files_may_be_larger_than_an_event(editor: Caller) -> None:
    files = encoded(**FILES, **{"data.bin": bytes(12_000_000)})
    assert editor.post("/dpe/v3/actions", json=files).status_code == 201


def test_a_deleted_action_is_not_found(editor: Caller, action: Action) -> None:
    assert editor.delete(f"/dpe/v3/actions/{action.id}").json["deleted"] is True
    for answer in (
        editor.get(f"/dpe/v3/actions/{action.id}"),
        editor.get(f"/dpe/v3/actions/{action.id}/files"),
        editor.delete(f"/dpe/v3/actions/{action.id}"),
    ):
        assert answer.status_code == 404
        assert f"action {action.id} not found" in answer.json["warning"]


TABLE = {
    "dataset": "data_prim",
    "name": "event_archive",
    "attributes": [{"name": "event_id", "type": "Number"}, {"name": "date", "type": "Date"}],
}


def test_a_table_is_built_and_listed(editor: Caller, conn: Any) -> None:
    answer = editor.post("/dwh/v4/tables", json=TABLE)
    assert answer.status_code == 201, answer.text
    assert (answer.json["dataset"], answer.json["name"]) == ("data_prim", "event_archive")
    assert answer.json["changes"]
    conn.execute("INSERT INTO data_prim.event_archive (event_id) VALUES (1)")
    [table] = editor.get("/dwh/v4/tables").json
    assert table["attributes"] == TABLE["attributes"]
    assert editor.get("/dwh/v4/tables?dataset=data_mart").json == []
    assert editor.post("/dwh/v4/tables", json=TABLE).json["changes"] == []


def test_a_table_that_is_none_is_refused(editor: Caller) -> None:
    answer = editor.post("/dwh/v4/tables", json={"dataset": "data_prim"})
    assert answer.status_code == 400
    assert "name" in answer.json["error"]


def test_an_earlier_version_is_gone_back_to(editor: Caller) -> None:
    path = "/dpe/v3/actions/5eaf0db7f6f51d5255974217"
    assert editor.get(f"{path}/versions").status_code == 404
    for n in (1, 2, 3):
        editor.call("PUT", path, json=encoded(**FILES | {"main.py": MAIN + b"\n" * n}))
    running = editor.start("5eaf0db7f6f51d5255974217")

    back = editor.post(f"{path}/rollback").json
    assert back["version"] == 2
    found = editor.get(f"{path}/versions").json
    assert [(v["version"], v["current"]) for v in found] == [(3, False), (2, True), (1, False)]
    started = editor.start("5eaf0db7f6f51d5255974217")
    assert editor.get(f"/dpe/v3/jobs/{started}").json["version"] == 2
    assert editor.get(f"/dpe/v3/jobs/{running}").json["version"] == 3

    pulled = editor.get(f"{path}/files?version=3").json["files"]["main.py"]
    assert b64decode(pulled) == MAIN + b"\n" * 3
    assert editor.get(f"{path}/files").json["version"] == 2
    assert editor.post(f"{path}/rollback?version=3").json["version"] == 3
    assert editor.post(f"{path}/rollback?version=1").json["version"] == 1
    assert editor.post(f"{path}/rollback").status_code == 409  # there is none before it
    assert editor.post(f"{path}/rollback?version=9").status_code == 404
    assert editor.get(f"{path}/files?version=9").status_code == 404
    # A push of what the newest one holds is new after a way back: the next start must run it.
    again = editor.call("PUT", path, json=encoded(**FILES | {"main.py": MAIN + b"\n" * 3}))
    assert again.json["version"] == 4
