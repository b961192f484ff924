"""What the quick way refuses, and what fails on it, is answered as by Flask."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from app import resources
from tests.app.conftest import MAIN, ROWS, Caller, start
from tests.app.serving import Ways, count
from tests.app.test_limits import bounded, caller_of  # noqa: F401 -- bounded is a fixture
from worker.store import actions
from worker.store.actions import Action


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[1,\n 2,\n  x]", "line 3, column 3"),
        (b"\xff", "byte 1 of 1"),
        (b"[" * 2000, "not JSON: line 1"),
    ],
)
def test_what_is_no_json_is_400_and_says_where(
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    body: bytes,
    words: str,
) -> None:
    before = count(conn)
    quick, flask = ways.both(lambda: start(known, action, data=body))
    assert (quick.status_code, words in quick.json["error"]) == (400, True), quick.text
    assert (quick.status, quick.data) == (flask.status, flask.data)
    assert sorted(quick.headers) == sorted(flask.headers)
    assert count(conn) == before


@pytest.mark.parametrize("length", [len(ROWS) + 1, 100_000])
def test_a_body_that_breaks_off_stores_nothing(
    ways: Ways, known: Caller, action: Action, conn: psycopg.Connection, length: int
) -> None:
    before = count(conn)
    head = (
        f"POST /dpe/v3/actions/{action.id}/start HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {known.token}\r\nContent-Length: {length}\r\n\r\n"
    )
    for sent in (ROWS, b""):
        answer, _, body = ways.raw(head.encode() + sent, half_closed=True).partition(b"\r\n\r\n")
        assert not answer or (answer.split()[1], b"did not arrive whole" in body) == (b"400", True)
    assert ways.by_flask == 0
    assert count(conn) == before
    assert start(known, action).status_code == 202


@pytest.mark.parametrize(
    "ending",
    [
        "DELETE FROM dpe.sessions",
        "UPDATE dpe.sessions SET expires_at = now()",
        "UPDATE dpe.keys SET revoked_at = now()",
    ],
)
def test_a_session_that_has_ended_is_401_at_once(
    known: Caller, action: Action, conn: psycopg.Connection, ending: str
) -> None:
    id = known.start(action.id)
    before = count(conn)
    conn.execute(ending.encode())
    for _ in range(2):
        answer = start(known, action)
        assert (answer.status_code, answer.json["error"]) == (401, "Invalid token")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert known.get(f"/dpe/v3/jobs/{id}").status_code == 401
    assert count(conn) == before


@pytest.mark.parametrize("query", ["", "?wait=20"])
def test_a_poll_of_an_ended_session_is_401_at_once(
    known: Caller, action: Action, conn: psycopg.Connection, query: str
) -> None:
    id = known.start(action.id)
    assert known.get(f"/dpe/v3/jobs/{id}").status_code == 200
    conn.execute("DELETE FROM dpe.sessions")
    assert known.get(f"/dpe/v3/jobs/{id}{query}").status_code == 401


def test_what_there_is_not_is_404_as_by_flask(ways: Ways, known: Caller) -> None:
    path = f"/dpe/v3/actions/{'0' * 24}/start"
    quick, flask = ways.both(lambda: known.post(path, data=ROWS))
    assert quick.status_code == 404
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)
    ways.by_flask = 0
    assert known.get(f"/dpe/v3/jobs/{UUID(int=0)}").status_code == 404
    assert ways.by_flask == 1


def test_of_an_action_that_allows_one_open_job_a_second_is_409_as_by_flask(
    ways: Ways, known: Caller, conn: psycopg.Connection
) -> None:
    config = json.dumps({"allow_concurrent": False}).encode()
    alone = actions.push(conn, None, {"main.py": MAIN, "forepaas.json": config})
    assert start(known, alone).status_code == 202
    assert ways.by_flask == 0
    quick, flask = ways.both(lambda: start(known, alone))
    assert quick.status_code == 409
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)


def failing(
    error: Exception, after: Callable[..., Awaitable[Any]] | None = None
) -> tuple[list[Any], Callable[[list[Any]], Awaitable[Any]]]:
    calls: list[Any] = []

    async def serve(several: list[Any]) -> Any:
        calls.append(several)
        if after is not None:
            await after(several)
        raise error

    return calls, serve


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (psycopg.OperationalError("server closed the connection: host db user dpe"), 503),
        (RuntimeError("what nobody foresaw"), 500),
    ],
)
def test_a_commit_in_doubt_is_not_tried_again(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    before = count(conn)
    together = resources.of(app).intake._starts
    calls, accept_all = failing(error, after=together._serve)
    monkeypatch.setattr(together, "_serve", accept_all)
    answer = start(known, action, headers={"Accept": "application/problem+json"})
    assert (answer.status_code, len(calls), ways.by_flask) == (status, 1, 0)
    assert count(conn) == before + 1
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert str(error) not in answer.text


@pytest.mark.parametrize("of", ["start", "poll"])
def test_an_error_of_the_waiting_is_an_answer_too(
    ways: Ways, known: Caller, action: Action, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    id = known.start(action.id)
    calls: list[Any] = []

    @contextmanager
    def waits(*given: Any) -> Iterator[None]:
        calls.append(given)
        raise psycopg.OperationalError("the connection is lost")
        yield

    monkeypatch.setattr(resources.Waits, "_waits", waits)
    quick, flask = ways.both(
        lambda: (
            start(known, action, "?wait=1")
            if of == "start"
            else known.get(f"/dpe/v3/jobs/{id}?wait=1")
        )
    )
    assert (quick.status_code, len(calls)) == (503, 2)
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)


def test_a_poll_without_postgres_is_503(
    app: Flask, ways: Ways, known: Caller, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = known.start(action.id)
    calls, look_up = failing(psycopg.OperationalError("host db user dpe"))
    monkeypatch.setattr(resources.of(app).lookups._lookups, "_serve", look_up)
    answer = known.get(f"/dpe/v3/jobs/{id}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json["error"] == "the database does not answer"
    assert (len(calls), ways.by_flask) == (1, 0)


@pytest.fixture
def full(
    bounded: Callable[..., Flask],  # noqa: F811
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
) -> tuple[Ways, Caller]:
    """An application that takes two starts, one of which it has."""
    app = bounded(max_waiting=2)
    ways = serve(app)
    sender = caller_of(app, conn)
    assert start(sender, action).status_code == 202
    return ways, sender


def test_what_is_too_much_is_429(
    full: tuple[Ways, Caller], action: Action, conn: psycopg.Connection
) -> None:
    ways, sender = full
    assert start(sender, action).status_code == 202
    quick, flask = ways.both(lambda: start(sender, action))
    assert (quick.status_code, quick.headers["Retry-After"]) == (429, "5")
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)
    assert count(conn) == 2


def test_a_start_that_is_refused_counts_once(
    ways: Ways, known: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(resources.Limits, "check", lambda *given: checked.append(given))
    assert known.post(f"/dpe/v3/actions/{'0' * 24}/start", data=ROWS).status_code == 404
    assert (len(checked), ways.by_flask) == (1, 0)
