"""A broker that is away, or hangs, costs a start nothing and loses nothing."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from redis import Redis

from app.embedded import Valkey
from tests.app.conftest import Caller
from tests.stack import until
from worker import broker, settings
from worker.store.actions import Action


@pytest.fixture
def own_valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: Flask) -> Iterator[Valkey]:
    """A broker of the test's own, to be broken."""
    server = Valkey(tmp_path)
    server.start()
    monkeypatch.setenv("DPE_BROKER_URL", server.url)
    settings.current_settings.cache_clear()
    broker.queue_client.cache_clear()
    yield server
    if server.pid:
        server.process.send_signal(signal.SIGCONT)
    server.stop()
    monkeypatch.undo()
    settings.current_settings.cache_clear()
    broker.queue_client.cache_clear()
    from app import resources

    resources.of(app).handover._broken = False


def stopped(server: Valkey) -> None:
    server.process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("breaking", [Valkey.kill, stopped], ids=["dead", "hanging"])
def test_f07_starts_are_accepted_and_quick_without_a_broker(
    own_valkey: Valkey,
    editor: Caller,
    action: Action,
    conn: psycopg.Connection,
    breaking: Callable[[Valkey], None],
) -> None:
    assert editor.post(f"/dpe/v3/actions/{action.id}/start").json["status"] == "QUEUED"
    breaking(own_valkey)
    took: list[float] = []
    statuses: list[str] = []
    end = time.monotonic() + 2.5  # over two tries of the broker
    while time.monotonic() < end:
        began = time.perf_counter()
        answer = editor.post(f"/dpe/v3/actions/{action.id}/start", data=b"[1]")
        took.append(time.perf_counter() - began)
        assert answer.status_code == 202
        statuses.append(answer.json["status"])
        time.sleep(0.02)
    assert set(statuses) == {"SUBMITTED"}
    assert sorted(took)[int(len(took) * 0.99)] < 0.2
    assert max(took) < 0.4
    stored = conn.execute(
        "SELECT status, published_at IS NULL, count(*) FROM dpe.jobs GROUP BY 1, 2 ORDER BY 1"
    ).fetchall()
    assert stored == [("QUEUED", False, 1), ("SUBMITTED", True, len(statuses))]


def test_the_broker_is_used_again_when_it_answers_again(
    own_valkey: Valkey, editor: Caller, action: Action
) -> None:
    path = f"/dpe/v3/actions/{action.id}/start"
    stopped(own_valkey)
    assert editor.post(path).json["status"] == "SUBMITTED"
    own_valkey.process.send_signal(signal.SIGCONT)
    until(lambda: editor.post(path).json["status"] == "QUEUED", 5, 0.1)
    assert editor.post(path).json["status"] == "QUEUED"
    with Redis.from_url(own_valkey.url) as redis:
        assert redis.llen(broker.LISTS[1]) >= 2
