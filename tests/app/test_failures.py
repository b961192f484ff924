"""Wrong credentials slow down the address that they come from, and nobody else."""

import time
from typing import Any

import psycopg
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.failures import MOST, WINDOW_S, Failures
from worker.errors import TooMany
from worker.store import access
from worker.store.actions import Action


@pytest.fixture
def waits_for_a_fresh_minute() -> None:
    """The attempts of a test must not be divided between two windows."""
    left = WINDOW_S - time.time() % WINDOW_S
    if left < 10:
        time.sleep(left + 0.1)


def credentials(key: access.NewKey, secret: str | None = None) -> dict[str, str]:
    return {
        "auth_mode": "apikey",
        "apikey": key.apikey,
        "secretkey": key.secretkey if secret is None else secret,
    }


@pytest.mark.usefixtures("waits_for_a_fresh_minute")
def test_a_guesser_is_slowed_down_and_others_are_not(caller: Any, conn: psycopg.Connection) -> None:
    key = access.create_key(conn, "test", "DPE Editor")
    client = caller("DPE Viewer").client
    far = {"REMOTE_ADDR": "203.0.113.7"}

    def login(secret: str | None = None, **environ: Any) -> Any:
        return client.post("/iam/v4/login", json=credentials(key, secret), **environ)

    answers = [login("wrong", environ_base=far).status_code for _ in range(MOST + 2)]
    assert answers == [401] * MOST + [429] * 2
    slowed = login(environ_base=far)  # with the right secret as well
    assert slowed.status_code == 429
    assert 0 < int(slowed.headers["Retry-After"]) <= WINDOW_S + 1
    assert login().status_code == 200  # the owner, from elsewhere
    assert login(environ_base={"REMOTE_ADDR": "203.0.113.8"}).status_code == 200


@pytest.mark.usefixtures("waits_for_a_fresh_minute")
def test_all_processes_count_together() -> None:
    first, second = Failures(), Failures()
    for _ in range(MOST - 1):
        first.note("198.51.100.1")
    second.note("198.51.100.1")  # the last that is one too many, in another process
    with pytest.raises(TooMany):
        second.check("198.51.100.1")
    second.check("198.51.100.2")


@pytest.mark.usefixtures("waits_for_a_fresh_minute")
def test_without_a_broker_each_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.failures.broker.queue_client", _away)
    alone = Failures()
    for _ in range(MOST):
        alone.check("198.51.100.3")
        alone.note("198.51.100.3")
    with pytest.raises(TooMany):
        alone.check("198.51.100.3")


def _away(_timeout_s: float) -> Redis:
    return Redis(port=1, socket_connect_timeout=0.1, retry=Retry(NoBackoff(), 0))


@pytest.mark.usefixtures("waits_for_a_fresh_minute")
def test_wrong_signatures_count_as_well(caller: Any, action: Action) -> None:
    editor = caller("DPE Editor")
    path = f"/dpe/v3/actions/{action.id}/webhook"
    assert editor.call("PUT", path, json={"form": "github"}).status_code == 200
    wrong = {"X-Hub-Signature-256": "sha256=" + "0" * 64, "X-GitHub-Delivery": "1"}
    answers = [
        editor.client.post(path, data=b"{}", headers=wrong).status_code for _ in range(MOST + 1)
    ]
    assert answers == [401] * MOST + [429]
