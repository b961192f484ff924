"""Datasets are listed with what is set for them."""

from collections.abc import Callable

import psycopg
import pytest

from tests.app.conftest import Caller


def test_a_dialect_is_set_and_listed(editor: Caller, conn: psycopg.Connection) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute("CREATE TABLE data_prim.t (id int)")
    assert editor.get("/dwh/v4/datasets").json == [
        {"name": "data_prim", "dialect": "postgres", "tables": 1}
    ]
    done = editor.call("PUT", "/dwh/v4/datasets/data_prim", json={"dialect": "trino"})
    assert (done.status_code, done.json["dialect"]) == (200, "trino")
    later = editor.call("PUT", "/dwh/v4/datasets/to_come", json={"dialect": "trino"})
    assert later.json == {"name": "to_come", "dialect": "trino", "tables": 0}
    assert [d["name"] for d in editor.get("/dwh/v4/datasets").json] == ["data_prim", "to_come"]


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("data_prim", {"dialect": "mysql"}, "must be one of postgres, trino"),
        ("data_prim", {}, "dialect"),
        ("dpe", {"dialect": "trino"}, "is a name of the engine's"),
        ("a;b", {"dialect": "trino"}, "letters, digits and underscores"),
    ],
)
def test_what_cannot_be_set_is_refused(
    editor: Caller, name: str, body: dict[str, str], words: str
) -> None:
    answer = editor.call("PUT", f"/dwh/v4/datasets/{name}", json=body)
    assert (answer.status_code, words in answer.json["error"]) == (400, True)
    assert editor.get("/dwh/v4/datasets").json == []


def test_a_viewer_may_look_only(caller: Callable[[str], Caller]) -> None:
    viewer = caller("DPE Viewer")
    assert viewer.get("/dwh/v4/datasets").status_code == 200
    body = {"dialect": "trino"}
    assert viewer.call("PUT", "/dwh/v4/datasets/data_prim", json=body).status_code == 403
