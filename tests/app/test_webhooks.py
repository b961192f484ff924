"""Webhooks: a call is taken if it is signed with the action's secret, in time, and once."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.app.conftest import Caller
from worker.store.actions import Action

BODY = json.dumps({"id": "evt_1", "ref": "main"}).encode()
FORMS = ("standard", "github", "stripe")
Signed = dict[str, str]


def standard(secret: str, body: bytes, at: float, id: str = "msg_1") -> Signed:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{id}.{int(at)}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": f"v1a,x v1,AAAA v1,{base64.b64encode(signed).decode()}",
    }


def github(secret: str, body: bytes, _: float, id: str = "d-1") -> Signed:
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={signed}", "X-GitHub-Delivery": id}


def stripe(secret: str, body: bytes, at: float, _: str = "") -> Signed:
    signed = hmac.new(secret.encode(), f"{int(at)}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={int(at)},v1={'0' * 64},v1={signed},v0=x"}


SIGN: dict[str, Callable[..., Signed]] = {"standard": standard, "github": github, "stripe": stripe}


class Sender:
    """Somebody without a session, who knows the secret."""

    def __init__(self, editor: Caller, action: Action, form: str, **fields: Any) -> None:
        self.path = f"/dpe/v3/actions/{action.id}/webhook"
        made = editor.call("PUT", self.path, json={"form": form, **fields})
        assert made.status_code == 200, made.text
        self.form, self.secret, self.client = form, made.json["secret"], editor.client

    def signed(self, body: bytes = BODY, at: float | None = None, **words: str) -> Signed:
        return SIGN[self.form](self.secret, body, time.time() if at is None else at, **words)

    def send(self, headers: Signed | None = None, body: bytes = BODY) -> TestResponse:
        signed = self.signed(body) if headers is None else headers
        return self.client.post(self.path, data=body, headers=signed)


@pytest.fixture(params=FORMS)
def sender(request: pytest.FixtureRequest, editor: Caller, action: Action) -> Sender:
    return Sender(editor, action, request.param)


def jobs(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    return conn.execute("SELECT event, event_type, key_id FROM dpe.jobs ORDER BY seq").fetchall()


def test_a_signed_call_starts_the_action(
    sender: Sender, conn: psycopg.Connection, editor: Caller
) -> None:
    answer = sender.send()
    assert answer.status_code == 202, answer.text
    [(event, event_type, key_id)] = jobs(conn)
    assert (event.encode(), event_type) == (BODY, "webhook")
    # Whose job it is: the key's that made the webhook.
    assert conn.execute("SELECT id FROM dpe.keys").fetchall() == [(key_id,)]
    assert editor.get(answer.headers["Location"]).json["status"] == "QUEUED"


def test_the_same_call_again_starts_nothing_again(sender: Sender, conn: psycopg.Connection) -> None:
    first, again = sender.send(), sender.send()
    assert again.json["execution_id"] == first.json["execution_id"]
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert len(jobs(conn)) == 1


def test_another_delivery_of_the_same_body_is_another_event(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    for form in ("standard", "github"):
        sender = Sender(editor, action, form)
        for id in ("one", "two"):
            assert sender.send(sender.signed(id=id)).status_code == 202
    sender = Sender(editor, action, "stripe")
    now = time.time()
    for at in (now, now, now - 5):  # no id in the body: the very same call counts once
        assert sender.send(sender.signed(b"[1]", at), b"[1]").status_code == 202
    assert len(jobs(conn)) == 6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", ["body", "secret", "signature", "missing", "cut", "no ASCII"])
def test_what_is_not_signed_so_is_refused(
    editor: Caller, action: Action, conn: psycopg.Connection, form: str, wrong: str
) -> None:
    sender = Sender(editor, action, form)
    headers = sender.signed()
    name = next(name for name in headers if "ignature" in name)
    body = BODY + b" " if wrong == "body" else BODY
    match wrong:
        case "secret":
            sender.secret = Sender(editor, action, form).secret
            headers = SIGN[form](base64.b64encode(b"x" * 32).decode(), BODY, time.time())
        case "signature":
            headers[name] = headers[name].replace("v1", "v2").replace("sha256", "sha1")
        case "missing":
            del headers[name]
        case "cut":
            headers[name] = headers[name].removesuffix(",v0=x")[:-2]
        case "no ASCII":
            headers[name] = "v1,é t=1,v1=é"
    answer = sender.send(headers, body)
    assert answer.status_code == 401
    assert "the webhook's call was refused" in answer.json["error"]
    assert sender.secret not in answer.text
    assert jobs(conn) == []


@pytest.mark.parametrize("form", ["standard", "stripe"])
@pytest.mark.parametrize(("shift_s", "status"), [(-310, 401), (310, 401), (-290, 202), (290, 202)])
def test_a_call_out_of_its_time_is_refused(
    editor: Caller, action: Action, form: str, shift_s: int, status: int
) -> None:
    sender = Sender(editor, action, form)
    answer = sender.send(sender.signed(at=time.time() + shift_s))
    assert answer.status_code == status
    assert status == 202 or "300 s from now" in answer.json["error"]


@pytest.mark.parametrize("at", ["", "x", "-1", "1e9", "9" * 400, "١٢"])
def test_a_time_that_is_none_is_refused(editor: Caller, action: Action, at: str) -> None:
    sender = Sender(editor, action, "standard")
    key = base64.b64decode(sender.secret.removeprefix("whsec_"))
    signed = base64.b64encode(hmac.digest(key, f"i.{at}.".encode() + BODY, "sha256")).decode()
    headers = {"webhook-id": "i", "webhook-timestamp": at, "webhook-signature": f"v1,{signed}"}
    answer = sender.client.post(sender.path, data=BODY, headers=headers)
    assert answer.status_code == 401


def test_the_example_of_the_standards_own_specification(editor: Caller, action: Action) -> None:
    from werkzeug.datastructures import Headers

    from app import signatures

    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    found = signatures.check(
        "standard", secret, Headers(headers), b'{"test": 2432232314}', 1614265330, 300
    )
    assert found == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_the_secret_is_shown_once_and_is_not_in_the_database(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    sender = Sender(editor, action, "standard")
    shown = editor.get(sender.path)
    assert (shown.json["form"], shown.json["url"]) == ("standard", sender.path)
    stored = conn.execute("SELECT row_to_json(w)::text FROM dpe.webhooks w").fetchone()
    bare = sender.secret.removeprefix("whsec_")
    assert bare not in shown.text
    assert stored is not None
    assert bare not in stored[0]


def test_a_webhook_moved_to_another_action_in_the_database_opens_nothing(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    sender = Sender(editor, action, "github")
    conn.execute("INSERT INTO dpe.actions (id, version) VALUES (%s, 1)", ["0" * 24])
    conn.execute("UPDATE dpe.webhooks SET action_id = %s", ["0" * 24])
    answer = sender.client.post(
        f"/dpe/v3/actions/{'0' * 24}/webhook", data=BODY, headers=sender.signed()
    )
    assert answer.status_code == 500
    assert jobs(conn) == []


def test_a_new_secret_and_the_end_of_a_webhook_hold_at_once(editor: Caller, action: Action) -> None:
    before, after = (Sender(editor, action, "github") for _ in range(2))
    assert [before.send().status_code, after.send().status_code] == [401, 202]
    assert editor.delete(after.path).status_code == 200
    assert after.send().status_code == 404
    assert editor.delete(after.path).status_code == 404


def test_a_senders_own_secret_is_taken(editor: Caller, action: Action) -> None:
    sender = Sender(editor, action, "stripe", secret="whsec_of_the_senders_own")
    assert sender.secret == "whsec_of_the_senders_own"
    assert sender.send().status_code == 202


@pytest.mark.parametrize(
    "sent",
    [
        {"form": "none"},
        {"form": "standard", "secret": "short"},
        {"form": "standard", "secret": "whsec_" + base64.b64encode(b"x" * 23).decode()},
        {"form": "github", "secret": "short"},
        {"form": "github", "secret": 5},
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused(
    editor: Caller, action: Action, sent: dict[str, Any]
) -> None:
    answer = editor.call("PUT", f"/dpe/v3/actions/{action.id}/webhook", json=sent)
    assert answer.status_code == 400, answer.text


def test_an_action_that_is_not_there_has_no_webhook(
    editor: Caller, app: Flask, action: Action
) -> None:
    sender = Sender(editor, action, "github")
    assert editor.call("PUT", f"/dpe/v3/actions/{'0' * 24}/webhook", json={}).status_code == 404
    assert app.test_client().post(f"/dpe/v3/actions/{'0' * 24}/webhook").status_code == 404
    assert app.test_client().post("/dpe/v3/actions/a%00b/webhook").status_code == 404
    assert editor.delete(f"/dpe/v3/actions/{action.id}").status_code == 200
    assert sender.send().status_code == 404


def test_viewers_make_none(caller: Callable[[str], Caller], action: Action) -> None:
    path = f"/dpe/v3/actions/{action.id}/webhook"
    assert caller("DPE Viewer").call("PUT", path, json={}).status_code == 403
    assert caller("DPE Starter").get(path).status_code == 403
