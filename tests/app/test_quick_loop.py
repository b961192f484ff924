"""The event loop: a call that waits keeps nobody from an answer, and holds no thread."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psycopg
import pytest
from flask import Flask

from app import resources
from app.embedded import Postgres
from tests.app.conftest import Caller, Hand, start
from tests.app.serving import Ways, count, received
from tests.app.test_limits import bounded, caller_of  # noqa: F401 -- bounded is a fixture
from tests.stack import until
from worker.store.actions import Action

CALLERS = 200
JOBS = 20


def head(method: str, path: str, caller: Caller, more: str = "") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {caller.token}\r\n{more}\r\n"
    ).encode()


@pytest.mark.parametrize("limit", [{"max_waiting": 0, "max_starts_per_s": 1000.0}, {}])
def test_a_limit_that_asks_keeps_nobody_waiting(
    bounded: Callable[..., Flask],  # noqa: F811
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
    monkeypatch: pytest.MonkeyPatch,
    limit: dict[str, Any],
) -> None:
    """Of a key's rate, or of the jobs that wait, which is due every half second."""
    app = bounded(**limit)
    ways = serve(app)
    sender = caller_of(app, conn)
    id = sender.start(action.id)
    ways.by_flask = 0
    limits = resources.of(app).limits
    limits._next_count = 0.0
    check, asked, go_on = limits.check, Event(), Event()

    def slow(session: Any) -> None:
        asked.set()
        assert go_on.wait(10)
        check(session)

    monkeypatch.setattr(limits, "check", slow)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(start, Caller(app.test_client(), sender.token), action)
        try:
            assert asked.wait(10)
            for _ in range(5):
                assert sender.get(f"/dpe/v3/jobs/{id}").status_code == 200
            assert not started.done()
        finally:
            go_on.set()
        assert started.result(10).status_code == 202
    assert ways.by_flask == 0
    assert count(conn) == 2


def test_many_wait_where_threads_are_few(
    bounded: Callable[..., Flask],  # noqa: F811
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
    hand: Hand,
) -> None:
    app = bounded(api_threads=2)
    ways = serve(app)
    sender = caller_of(app, conn)
    ids = [sender.start(action.id, n) for n in range(JOBS)]
    ways.by_flask = 0
    waiting = resources.of(app).waits._waiting
    callers = [ways.connect() for _ in range(CALLERS)]
    try:
        for n, caller in enumerate(callers):
            caller.sendall(head("GET", f"/dpe/v3/jobs/{ids[n % JOBS]}?wait=30", sender))
        until(lambda: len(waiting) == CALLERS)
        assert sender.get("/dpe/v3/jobs?limit=1").status_code == 200
        for n, id in enumerate(ids):
            hand.run(id, n)
        for n, caller in enumerate(callers):
            top, _, body = received(caller).partition(b"\r\n\r\n")
            job = json.loads(body)
            assert (top.split()[1], job["status"], job["result"]) == (b"200", "SUCCESS", n % JOBS)
    finally:
        for caller in callers:
            caller.close()
    assert ways.by_flask == 1
    assert not resources.of(app).waits._waiting


def test_who_goes_away_while_a_start_is_committed_disturbs_nobody(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    postgres: Postgres,
) -> None:
    before = count(conn)
    path = f"/dpe/v3/actions/{action.id}/start"
    together = resources.of(app).intake._starts
    with ThreadPoolExecutor(2) as pool, psycopg.connect(postgres.url) as lock:
        lock.execute("LOCK TABLE dpe.jobs IN SHARE MODE")  # nothing is written any more
        alone = pool.submit(start, Caller(app.test_client(), known.token), action)
        until(lambda: blocked(conn) == 1)
        with ways.connect() as gone:
            gone.sendall(head("POST", path, known, "Content-Length: 4\r\n") + b"[41]")
            until(lambda: len(together._waiting) == 1)
        other = pool.submit(start, Caller(app.test_client(), known.token), action, data=b"[42]")
        until(lambda: len(together._waiting) == 2)
        lock.rollback()
        assert [one.result(10).status_code for one in (alone, other)] == [202, 202]
    assert count(conn) == before + 3
    assert conn.execute("SELECT 1 FROM dpe.jobs WHERE event = '[41]'").fetchone()
    assert start(known, action).status_code == 202
    assert ways.by_flask == 0


def test_who_goes_away_while_it_waits_disturbs_nobody(
    app: Flask, ways: Ways, known: Caller, action: Action, hand: Hand
) -> None:
    id = known.start(action.id)
    waits = resources.of(app).waits
    with ways.connect() as gone:
        gone.sendall(head("GET", f"/dpe/v3/jobs/{id}?wait=20", known))
        until(lambda: len(waits._waiting) == 1)
    with ThreadPoolExecutor(1) as pool:
        path = f"/dpe/v3/jobs/{id}?wait=20"
        other = pool.submit(Caller(app.test_client(), known.token).get, path)
        until(lambda: len(waits._waiting) == 2)
        hand.run(id)
        assert other.result(10).json["status"] == "SUCCESS"
    assert not waits._waiting
    assert known.get(f"/dpe/v3/jobs/{id}").status_code == 200


def blocked(conn: psycopg.Connection) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    ).fetchone()
    assert row is not None
    return row[0]
