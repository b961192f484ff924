"""The gate: which tokens are taken, and what a session without the permission is told."""

from collections.abc import Callable

import psycopg
import pytest

from tests.app.conftest import Caller
from worker.store import access
from worker.store.actions import Action


def test_a_session_without_the_permission_is_refused(
    caller: Callable[[str], Caller], action: Action
) -> None:
    viewer = caller("DPE Viewer")
    answer = viewer.post(f"/dpe/v3/actions/{action.id}/start")
    assert answer.status_code == 403
    assert answer.json["error"] == "No permission for this user"
    assert "DPE Viewer has no dpe:action:start" in answer.json["hint"]
    assert viewer.get("/dpe/v3/jobs").status_code == 200
    assert caller("DPE Starter").post(f"/dpe/v3/actions/{action.id}/start").status_code == 202


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda token: "x" * 32,
        # Not the last character: some of its bits are padding.
        lambda token: token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1],
        lambda token: ("x" if token[0] != "x" else "y") + token[1:],
        lambda token: token.rsplit(".", 1)[0],
        lambda token: "é" + token,
        lambda token: "\0",
    ],
)
def test_a_token_not_made_here_is_refused(editor: Caller, spoilt: Callable[[str], str]) -> None:
    answer = editor.client.get("/dpe/v3/jobs", query_string={"token": spoilt(editor.token)})
    assert (answer.status_code, answer.json["error"]) == (401, "Invalid token")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_a_bearer_token_counts_before_the_one_in_the_address(editor: Caller, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {editor.token}"}
    assert editor.client.get("/dpe/v3/jobs?token=x", headers=headers).status_code == 200
    wrong = {"Authorization": f"{scheme} x"}
    query = {"token": editor.token}
    answer = editor.client.get("/dpe/v3/jobs", query_string=query, headers=wrong)
    assert answer.status_code == 401


def test_another_scheme_leaves_the_token_in_the_address(editor: Caller) -> None:
    # A proxy in front may ask for a password of its own.
    headers = {"Authorization": "Basic eDp5"}
    query = {"token": editor.token}
    answer = editor.client.get("/dpe/v3/jobs", query_string=query, headers=headers)
    assert answer.status_code == 200


def test_an_expired_session_is_refused(editor: Caller, conn: psycopg.Connection) -> None:
    assert editor.get("/dpe/v3/jobs").status_code == 200
    conn.execute("UPDATE dpe.sessions SET expires_at = now()")
    assert editor.get("/dpe/v3/jobs").json["error"] == "Invalid token"


def test_a_revoked_key_is_refused_at_the_next_call(
    editor: Caller, conn: psycopg.Connection
) -> None:
    assert editor.get("/dpe/v3/jobs").status_code == 200
    [key] = access.list_keys(conn)
    access.revoke_key(conn, key.apikey)
    assert editor.get("/dpe/v3/jobs").status_code == 401
