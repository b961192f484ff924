"""`allow_concurrent: false` turns starts down; both settings are checked when they are pushed."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Caller, Hand
from worker.errors import Invalid
from worker.store import actions, turns
from worker.store.actions import Action

MAIN = b"def customfunc(event): pass"


def pushed(conn: psycopg.Connection, **config: Any) -> Action:
    files = {"main.py": MAIN, "forepaas.json": json.dumps(config).encode()}
    return actions.push(conn, None, files)


@pytest.mark.parametrize("inside", [True, False])
def test_an_action_that_runs_already_is_409_until_it_has_ended(
    editor: Caller, conn: psycopg.Connection, hand: Hand, inside: bool
) -> None:
    words = {"allow_concurrent": False}
    action = pushed(conn, **({"params": words} if inside else words))
    path = f"/dpe/v3/actions/{action.id}/start"
    first = editor.start(action.id)
    for headers in ({}, {"Idempotency-Key": "again"}):
        refused = editor.post(path, headers=headers)
        assert (refused.status_code, first in refused.json["error"]) == (409, True), refused.text
    hand.run(first)
    again = {"Idempotency-Key": "again"}  # it stored nothing, so it may be used now
    second = editor.post(path, headers=again)
    assert second.status_code == 202
    assert editor.post(path, headers=again).json["execution_id"] == second.json["execution_id"]
    editor.delete(f"/dpe/v3/jobs/{second.json['execution_id']}/stop")
    assert editor.post(path).status_code == 202
    assert editor.post(f"/dpe/v3/actions/{'0' * 24}/start").status_code == 404


def test_of_many_starts_at_one_instant_one_is_accepted(
    editor: Caller, conn: psycopg.Connection
) -> None:
    action = pushed(conn, allow_concurrent=False)
    call = {"Authorization": f"Bearer {editor.token}"}
    app = editor.client.application

    def start(_: int) -> int:
        path = f"/dpe/v3/actions/{action.id}/start"
        return app.test_client().post(path, headers=call).status_code

    with ThreadPoolExecutor(16) as pool:
        codes = sorted(pool.map(start, range(16)))
    assert codes == [202] + [409] * 15


def test_a_retry_gets_in_line(editor: Caller, conn: psycopg.Connection, hand: Hand) -> None:
    action = pushed(conn, allow_concurrent=False)
    first = editor.start(action.id)
    hand.run(first)
    second = editor.start(action.id)
    retried = editor.post(f"/dpe/v3/jobs/{first}/retry")
    assert (retried.status_code, retried.json["status"]) == (202, "SUBMITTED")
    assert turns.let_in(conn, action.id) == []
    hand.run(second)
    (message,) = turns.let_in(conn, action.id)
    assert str(message.execution_id) == retried.json["execution_id"]


def test_a_newer_version_without_a_limit_lets_all_in(
    editor: Caller, conn: psycopg.Connection
) -> None:
    action = pushed(conn, max_concurrency=1)
    for _ in range(4):
        editor.start(action.id)
    assert turns.let_in(conn, action.id) == []
    files = {"main.py": MAIN, "forepaas.json": b"{}"}
    actions.push(conn, action.id, files)
    assert len(turns.let_in(conn, action.id)) == 3
    assert turns.waiting_actions(conn) == []


@pytest.mark.parametrize(
    "config",
    [
        {"max_concurrency": 0},
        {"max_concurrency": "2"},
        {"max_concurrency": True},
        {"max_concurrency": 1.5},
        {"allow_concurrent": "no"},
    ],
)
def test_what_is_no_limit_is_refused_when_it_is_pushed(
    conn: psycopg.Connection, config: dict[str, Any]
) -> None:
    with pytest.raises(Invalid, match=r"max_concurrency|allow_concurrent"):
        pushed(conn, **config)
