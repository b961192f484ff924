"""/health and /ready: quick whatever hangs, and honest."""

import os
import signal
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from flask import Flask

from app import create_app, resources
from app.embedded import Postgres, Valkey
from tests.app.conftest import Hand
from worker.settings import Settings
from worker.store.migrate import migrate


def test_a_process_that_is_up_says_so_to_anybody(app: Flask) -> None:
    answer = app.test_client().get("/health")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_ready_counts_the_workers_that_live(
    app: Flask, hand: Hand, conn: psycopg.Connection, valkey: Valkey
) -> None:
    conn.execute("DELETE FROM dpe.workers WHERE id <> %s", [hand.worker_id])  # of tests before
    answer = app.test_client().get("/ready")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ok",
        "database": "ok",
        "broker": "ok",
        "workers": 1,
        "stuck": 0,
    }
    conn.execute("UPDATE dpe.workers SET beat_at = now() - interval '1 hour'")
    assert app.test_client().get("/ready").json["workers"] == 0


def test_ready_is_bounded_in_time_when_the_servers_hang(
    tmp_path: Path, environment: None, valkey: Valkey
) -> None:
    server = Postgres(tmp_path)
    server.start()
    with psycopg.connect(server.url, autocommit=True) as conn:
        migrate(conn)
    app = create_app(Settings.from_environ({**os.environ, "DPE_DATABASE_URL": server.url}))
    client = app.test_client()
    try:
        assert client.get("/ready").status_code == 200
        frozen = [psutil.Process(server.pid), *psutil.Process(server.pid).children(True)]
        frozen.append(psutil.Process(valkey.pid))
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(2):
                began = time.monotonic()
                answer = client.get("/ready")
                assert time.monotonic() - began < 2.5
                assert answer.status_code == 503
                assert "does not answer" in answer.json["database"]
                assert "does not answer" in answer.json["broker"]
            assert client.get("/health").status_code == 200
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)
        from tests.stack import until

        until(lambda: client.get("/ready").status_code == 200, 5, 0.1)
    finally:
        resources.of(app).close()
        server.stop()


def test_a_dead_broker_does_not_make_it_unready(
    app: Flask, tmp_path: Path, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import broker, settings

    monkeypatch.setenv("DPE_BROKER_URL", "redis://127.0.0.1:1/0")
    settings.current_settings.cache_clear()
    broker.queue_client.cache_clear()
    try:
        answer = app.test_client().get("/ready")
    finally:
        monkeypatch.undo()
        settings.current_settings.cache_clear()
        broker.queue_client.cache_clear()
    assert answer.status_code == 200
    assert answer.json["database"] == "ok"
    assert answer.json["broker"] == "the broker does not answer"
