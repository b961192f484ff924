"""The quick way and its connections to Postgres, which are lost at times."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import resources
from app.embedded import Postgres
from tests.app.conftest import MAIN, Caller, start
from tests.app.serving import Ways, count, locked
from tests.app.test_errors import own_app, own_postgres  # noqa: F401 -- fixtures
from tests.app.test_limits import caller_of
from tests.stack import until
from worker.store import actions
from worker.store.actions import Action
from worker.store.migrate import migrate

NAME = "dpe-api"


def test_idle_connections_that_are_lost_cost_no_call(
    ways: Ways, known: Caller, action: Action, conn: psycopg.Connection
) -> None:
    before = count(conn)
    for _ in range(3):
        started = start(known, action)
        assert started.status_code == 202, started.text
        polled = known.get(f"/dpe/v3/jobs/{started.json['execution_id']}")
        assert polled.status_code == 200, polled.text
        lost = conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = %s",
            [NAME],
        ).fetchall()
        assert len(lost) >= 2  # of starts, and of polls
        assert all(ended for (ended,) in lost)
    assert start(known, action).status_code == 202
    assert count(conn) == before + 4
    assert ways.by_flask == 0


@pytest.mark.parametrize("how", ["pg_cancel_backend(pid)", "pg_terminate_backend(pid, 5000)"])
@pytest.mark.parametrize(("call", "mode"), [("start", "SHARE"), ("poll", "ACCESS EXCLUSIVE")])
def test_a_statement_that_is_ended_is_503_for_all_that_share_it_and_not_for_the_next(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    postgres: Postgres,
    how: str,
    call: str,
    mode: str,
) -> None:
    id = known.start(action.id)
    before = count(conn)
    held = resources.of(app)
    together: Any = held.intake._starts if call == "start" else held.lookups._lookups

    def make() -> TestResponse:
        caller = Caller(app.test_client(), known.token)
        return start(caller, action) if call == "start" else caller.get(f"/dpe/v3/jobs/{id}")

    def end() -> bool:
        """Whether there was one that waits for the lock."""
        sql = f"SELECT {how} FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return (True,) in conn.execute(sql.encode()).fetchall()

    with ThreadPoolExecutor(3) as pool:
        with locked(postgres.url, mode):
            called = [pool.submit(make)]
            until(lambda: together._serving)
            called += [pool.submit(make) for _ in range(2)]
            until(lambda: len(together._waiting) == 2)
            until(end)
            failed = called[0].result(10)
            assert (failed.status_code, failed.headers["Retry-After"]) == (503, "1"), failed.text
            until(end)
            for one in called[1:]:
                assert one.result(10).status_code == 503
        answer = make()
    assert answer.status_code == (202 if call == "start" else 200), answer.text
    assert count(conn) == before + (call == "start")
    assert ways.by_flask == 0


@pytest.fixture
def own_ways(
    own_postgres: Postgres,  # noqa: F811
    own_app: Flask,  # noqa: F811
    serve: Callable[[Flask], Ways],
) -> tuple[Ways, Callable[[], TestResponse], Callable[[], TestResponse]]:
    """Served with a database of the test's own; a start, and a poll, that were made before."""
    with psycopg.connect(own_postgres.url, autocommit=True) as conn:
        migrate(conn)
        action = actions.push(conn, None, {"main.py": MAIN})
        sender = caller_of(own_app, conn)
    ways = serve(own_app)
    id = sender.start(action.id)
    ways.by_flask = 0

    def make() -> TestResponse:
        return start(sender, action)

    def poll() -> TestResponse:
        return sender.get(f"/dpe/v3/jobs/{id}")

    assert (make().status_code, poll().status_code) == (202, 200)
    return ways, make, poll


OwnWays = tuple[Ways, Callable[[], TestResponse], Callable[[], TestResponse]]


def test_a_restart_of_postgres_costs_neither_a_start_nor_a_poll(
    own_postgres: Postgres,  # noqa: F811
    own_ways: OwnWays,
) -> None:
    ways, make, poll = own_ways
    own_postgres.stop()
    own_postgres.start()
    assert (make().status_code, poll().status_code) == (202, 200)
    assert ways.by_flask == 0


@pytest.mark.slow
def test_without_postgres_both_are_503_and_come_back(
    own_postgres: Postgres,  # noqa: F811
    own_ways: OwnWays,
) -> None:
    ways, make, poll = own_ways
    own_postgres.stop()
    for call in (make, poll, make, poll):
        away = call()
        assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
        assert away.json["error"] == "the database does not answer"
    own_postgres.start()
    # At once: these connections know no pause.
    assert (poll().status_code, make().status_code) == (200, 202)
    assert ways.by_flask == 0
