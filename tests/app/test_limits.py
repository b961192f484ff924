"""429: how many jobs may wait, how many starts a key may make; and what a key is bound to."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask

from app import create_app, resources
from app.embedded import Valkey
from tests.app.conftest import Caller
from tests.stack import until
from worker.settings import Settings
from worker.store import access
from worker.store.actions import Action

OTHER = "0" * 24


@pytest.fixture
def bounded(conn: psycopg.Connection, valkey: Valkey) -> Iterator[Callable[..., Flask]]:
    """Makes an application with other settings."""
    made: list[Flask] = []

    def make(**settings: Any) -> Flask:
        made.append(create_app(replace(Settings.from_environ(), **settings)))
        return made[-1]

    yield make
    for app in made:
        resources.of(app).close()


def caller_of(app: Flask, conn: psycopg.Connection, **bounds: Any) -> Caller:
    key = access.create_key(conn, "a sender", "DPE Editor", bounds=access.Bounds(**bounds))
    body = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    client = app.test_client()
    return Caller(client, client.post("/iam/v4/login", json=body).json["token"])


def stored(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


def test_when_too_many_wait_no_more_are_taken_until_some_have_begun(
    bounded: Callable[..., Flask], conn: psycopg.Connection, action: Action
) -> None:
    sender = caller_of(bounded(max_waiting=3), conn)
    path = f"/dpe/v3/actions/{action.id}/start"
    key = {"Idempotency-Key": "the first"}
    first = sender.post(path, data="[1]", headers=key)
    assert [first.status_code] + [sender.post(path).status_code for _ in range(2)] == [202] * 3
    refused = sender.post(path)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert "3 jobs are accepted and have not begun" in refused.json["error"]
    assert stored(conn) == 3
    # What was accepted before gets its answer; what is new under a key is turned down, and may
    # come again under it.
    again = sender.post(path, data="[1]", headers=key)
    assert (again.status_code, again.json["execution_id"]) == (202, first.json["execution_id"])
    later = {"Idempotency-Key": "later"}
    assert sender.post(path, data="[2]", headers=later).status_code == 429
    conn.execute("UPDATE dpe.jobs SET status = 'STOPPED', ended_at = now()")
    until(lambda: sender.post(path, data="[2]", headers=later).status_code == 202, 3, 0.1)
    assert stored(conn) == 4


def test_a_retry_is_a_start_too(
    bounded: Callable[..., Flask], conn: psycopg.Connection, action: Action
) -> None:
    sender = caller_of(bounded(max_waiting=1), conn)
    id = sender.start(action.id)
    assert sender.post(f"/dpe/v3/jobs/{id}/retry").status_code == 429


@pytest.mark.parametrize("of_key", [True, False])
def test_a_key_makes_its_starts_a_second_and_no_more(
    bounded: Callable[..., Flask], conn: psycopg.Connection, action: Action, of_key: bool
) -> None:
    rate = {"starts_per_s": 0.01} if of_key else {}
    apps = [bounded(max_starts_per_s=None if of_key else 0.01) for _ in range(2)]
    sender = caller_of(apps[0], conn, **rate)
    # The other process of the API counts with it.
    elsewhere = Caller(apps[1].test_client(), sender.token)
    path = f"/dpe/v3/actions/{action.id}/start"
    codes = [caller.post(path).status_code for caller in (sender, elsewhere, sender)]
    assert codes[0] == 202
    assert codes.count(429) >= 1  # a window may end between two of them
    refused = next(a for a in (elsewhere.post(path) for _ in range(3)) if a.status_code == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 100
    assert "0.01 starts a second" in refused.json["error"]
    assert stored(conn) == 3 - codes.count(429)
    others = caller_of(apps[0], conn, starts_per_s=1000)
    assert others.post(path).status_code == 202


def test_without_a_broker_nobody_is_turned_down(
    bounded: Callable[..., Flask],
    conn: psycopg.Connection,
    action: Action,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from worker import broker

    sender = caller_of(bounded(), conn, starts_per_s=0.01)
    nowhere = broker.Redis.from_url("redis://127.0.0.1:1/0")
    monkeypatch.setattr(broker, "queue_client", lambda _=1.0: nowhere)
    path = f"/dpe/v3/actions/{action.id}/start"
    assert [sender.post(path).status_code for _ in range(3)] == [202] * 3


def test_a_key_starts_and_stops_what_it_is_bound_to(
    app: Flask, conn: psycopg.Connection, action: Action, editor: Caller
) -> None:
    bound = caller_of(app, conn, only_ids=[OTHER])
    id = editor.start(action.id)
    for call in (
        ("POST", f"/dpe/v3/actions/{action.id}/start"),
        ("POST", f"/dpe/v3/workflows/{action.id}/start"),
        ("POST", f"/dpe/v3/jobs/{id}/retry"),
        ("DELETE", f"/dpe/v3/jobs/{id}/stop"),
        ("DELETE", f"/dpe/v3/actions/{action.id}/stop"),
        ("DELETE", f"/dpe/v3/workflows/{action.id}/stop"),
    ):
        answer = bound.call(*call)
        assert (answer.status_code, "bound to other" in answer.json["hint"]) == (403, True), call
    assert stored(conn) == 1
    assert caller_of(app, conn, only_ids=[OTHER, action.id]).start(action.id)


def test_a_bound_key_changes_its_own_actions_and_nothing_through_which_others_start(
    app: Flask, conn: psycopg.Connection, action: Action
) -> None:
    bound = caller_of(app, conn, only_ids=[action.id])
    files = {"files": {"main.py": "ZGVmIGN1c3RvbWZ1bmMoZXZlbnQpOiBwYXNzCg=="}}
    steps = {"stages": [{"stageName": "a", "actions": [{"action_conf": action.id}]}]}
    for method, path, sent in (
        ("PUT", f"/dpe/v3/actions/{OTHER}", files),
        ("POST", "/dpe/v3/actions", files),
        ("PUT", f"/dpe/v3/workflows/{action.id}", steps),
        ("PUT", "/dpe/v3/triggers/nightly", {"action": OTHER, "cron": "0 2 * * *"}),
    ):
        assert bound.call(method, path, json=sent).status_code == 403, path
    assert bound.call("PUT", f"/dpe/v3/actions/{action.id}", json=files).status_code == 200


@pytest.mark.parametrize(
    ("networks", "peer", "forwarded", "trusted", "allowed"),
    [
        (["10.0.0.0/8"], "10.1.2.3", "", (), True),
        (["10.0.0.0/8"], "11.1.2.3", "", (), False),
        (["2001:db8::/32"], "2001:db8::7", "", (), True),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", "", (), True),
        # A caller can write what it likes: only a proxy of ours is believed.
        (["10.0.0.0/8"], "11.1.2.3", "10.1.2.3", (), False),
        (["10.0.0.0/8"], "192.168.0.1", "10.1.2.3", ("192.168.0.0/16",), True),
        (["10.0.0.0/8"], "192.168.0.1", "10.1.2.3, 11.1.2.3", ("192.168.0.0/16",), False),
        (["10.0.0.0/8"], "192.168.0.1", "10.1.2.3, 192.168.0.9", ("192.168.0.0/16",), True),
        (["10.0.0.0/8"], "192.168.0.1", "nonsense", ("192.168.0.0/16",), False),
    ],
)
def test_a_key_is_used_from_its_networks(
    bounded: Callable[..., Flask],
    conn: psycopg.Connection,
    networks: list[str],
    peer: str,
    forwarded: str,
    trusted: tuple[str, ...],
    allowed: bool,
) -> None:
    bound = caller_of(bounded(trusted_proxies=trusted), conn, networks=networks)
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    answer = bound.get("/dpe/v3/jobs", headers=headers, environ_base={"REMOTE_ADDR": peer})
    assert answer.status_code == (200 if allowed else 403)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"starts_per_s": 0}, "above 0"),
        ({"starts_per_s": "5"}, "must be a number"),
        ({"starts_per_s": True}, "must be a number"),
        ({"only_ids": []}, "not empty"),
        ({"only_ids": ["nonsense"]}, "24 hex characters"),
        ({"networks": ["10.0.0.1/8"]}, "host bits set"),
        ({"networks": "10.0.0.0/8"}, "a list of texts"),
    ],
)
def test_bounds_that_are_none_are_refused(
    caller: Callable[[str], Caller], bounds: dict[str, Any], words: str
) -> None:
    answer = caller("DPE Admin").post("/iam/v4/keys", json={"name": "a"} | bounds)
    assert (answer.status_code, words in answer.json["error"]) == (400, True), answer.text


def test_a_keys_bounds_are_shown(caller: Callable[[str], Caller]) -> None:
    bounds = {"starts_per_s": 5.0, "only_ids": [OTHER], "networks": ["10.0.0.0/8"]}
    admin = caller("DPE Admin")
    made = admin.post("/iam/v4/keys", json={"name": "a"} | bounds)
    assert made.status_code == 201, made.text
    assert bounds.items() <= made.json.items()
    shown = {key["apikey"]: key for key in admin.get("/iam/v4/keys").json}
    assert bounds.items() <= shown[made.json["apikey"]].items()
