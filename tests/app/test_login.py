"""Logging in and out, and the API keys over HTTP."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.app.conftest import Caller
from worker.store import access

DOCUMENTED = {
    "uid", "user", "firstname", "lastname", "civility", "login", "password_renew",
    "password_expiration", "token",
}  # fmt: skip


@pytest.fixture
def body(conn: psycopg.Connection) -> dict[str, str]:
    key = access.create_key(conn, "website")
    return {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}


@pytest.mark.parametrize("path", ["/iam/login", "/iam/v4/login"])
@pytest.mark.parametrize("form", ["json", "form", "multipart", "json called a form"])
def test_a_login_in_every_form(app: Flask, body: dict[str, str], path: str, form: str) -> None:
    multipart = {"content_type": "multipart/form-data"}
    urlencoded = {"content_type": "application/x-www-form-urlencoded"}
    body |= {"app_id": "55c1423560702d6426490f38"}
    options: dict[str, Any] = {
        "json": {"json": body},
        "form": {"data": body},
        "multipart": {"data": body} | multipart,
        "json called a form": {"data": json.dumps(body)} | urlencoded,
    }[form]
    answer = app.test_client().post(path, **options)
    assert answer.status_code == 200, answer.text
    assert set(answer.json) >= DOCUMENTED
    assert answer.json["user"] == "website"
    query = {"token": answer.json["token"]}
    session = app.test_client().get("/iam/v4/checkSession", query_string=query).json
    # A token carries the second that it was sealed in: of the same session it may be another text.
    again = session.pop("token")
    assert session | query == answer.json
    assert app.test_client().get("/dpe/v3/jobs", query_string={"token": again}).status_code == 200
    lasts = datetime.fromisoformat(session["expires_at"]) - datetime.now().astimezone()
    assert 3590 < lasts.total_seconds() <= 3600


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"auth_mode": "password"}, 400, "auth_mode"),
        ({"auth_mode": None}, 400, "auth_mode"),
        ({"apikey": None}, 400, "apikey"),
        ({"secretkey": ""}, 400, "secretkey"),
        ({"secretkey": "0" * 64}, 401, "wrong API key or secret"),
        ({"apikey": "0" * 48}, 401, "wrong API key or secret"),
        ({"apikey": 5}, 400, "apikey"),
    ],
)
def test_a_login_that_lacks_or_is_wrong(
    app: Flask, body: dict[str, Any], change: dict[str, Any], status: int, words: str
) -> None:
    sent = {k: v for k, v in (body | change).items() if v is not None}
    answer = app.test_client().post("/iam/login", json=sent)
    assert answer.status_code == status
    assert words in answer.json["error"]
    if status == 401:
        assert app.test_client().post("/iam/login", data=sent).status_code == 401


@pytest.mark.parametrize("sent", [b"", b"[]", b"{", b"\xff\xfe", b"apikey"])
def test_a_login_that_is_nothing_of_the_kind(app: Flask, sent: bytes) -> None:
    answer = app.test_client().post("/iam/login", data=sent)
    assert answer.status_code == 400
    assert answer.json["error"]


@pytest.mark.parametrize("path", ["/iam/logout", "/iam/v4/logout"])
def test_after_logout_the_token_is_good_for_nothing(editor: Caller, path: str) -> None:
    answer = editor.client.delete(path, query_string={"app_id": "5", "token": editor.token})
    assert answer.status_code == 200
    assert answer.json["success"] is True
    assert answer.json["status"] == 200
    assert answer.json["duration"] >= 0
    assert editor.get("/dpe/v3/jobs").status_code == 401
    assert editor.delete(path).status_code == 401


def test_keys_are_made_listed_and_revoked(caller: Callable[[str], Caller], app: Flask) -> None:
    admin = caller("DPE Admin")
    made = admin.post("/iam/v4/keys", json={"name": "nightly", "role": "DPE Viewer"})
    assert made.status_code == 201
    key = made.json
    assert (len(key["apikey"]), len(key["secretkey"])) == (48, 64)
    body = {"auth_mode": "apikey", "apikey": key["apikey"], "secretkey": key["secretkey"]}
    assert app.test_client().post("/iam/login", json=body).status_code == 200
    listed = admin.get("/iam/v4/keys")
    assert [k["name"] for k in listed.json] == ["a DPE Admin", "nightly"]
    assert "secret" not in listed.text
    assert admin.delete(f"/iam/v4/keys/{key['apikey']}").json["revoked_at"]
    assert app.test_client().post("/iam/login", json=body).status_code == 401
    assert admin.delete(f"/iam/v4/keys/{'0' * 48}").status_code == 404


@pytest.mark.parametrize(
    "sent",
    [{}, {"name": ""}, {"name": "a\0b"}, {"name": "a", "role": "x"}, {"name": "a", "role": 1},
     {"name": "a", "lifetime_s": -1}, {"name": "a", "lifetime_s": "1"}, []],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(caller: Callable[[str], Caller], sent: Any) -> None:
    assert caller("DPE Admin").post("/iam/v4/keys", json=sent).status_code == 400


def test_an_editor_makes_no_keys(editor: Caller) -> None:
    assert editor.post("/iam/v4/keys", json={"name": "more"}).status_code == 403
    assert editor.get("/iam/v4/keys").status_code == 403
