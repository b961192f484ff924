"""Every error is JSON with the old fields and RFC 9457's, and says nothing of the inside."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from os import environ
from pathlib import Path

import psycopg
import pytest
from flask import Flask

from app import create_app, resources
from app.auth import open_to_all
from app.embedded import Postgres
from tests.app.conftest import Caller
from tests.stack import until
from worker.settings import Settings
from worker.store import access
from worker.store.actions import push
from worker.store.database import open_pool
from worker.store.migrate import migrate


@pytest.mark.parametrize("path", ["/", "/nowhere", "/dpe//v3/jobs", "/dpe/v3/actions/a/b/c"])
def test_an_unknown_address_is_a_warning(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)
    assert answer.status_code == 404
    assert answer.json["warning"] == f"GET {path} not found"
    assert answer.json["status"] == 404
    assert answer.json["type"] == "about:blank"
    assert {"title", "detail"} <= set(answer.json)


def test_a_slash_at_the_end_makes_no_difference(editor: Caller) -> None:
    assert editor.get("/dpe/v3/jobs/").status_code == 200


def test_a_wrong_method_names_the_right_ones(app: Flask) -> None:
    answer = app.test_client().delete("/iam/login")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.json["error"]


def test_problem_json_for_those_who_ask_for_it(app: Flask) -> None:
    ask = {"Accept": "application/problem+json, application/json"}
    assert app.test_client().get("/x", headers=ask).mimetype == "application/problem+json"
    assert app.test_client().get("/x").mimetype == "application/json"


def test_what_nobody_foresaw_is_500_with_an_id_and_no_stack_trace(
    environment: None, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings.from_environ())

    @app.get("/broken")
    @open_to_all
    def broken() -> str:
        raise ZeroDivisionError("the inside")

    try:
        with caplog.at_level(logging.ERROR):
            answer = app.test_client().get("/broken?token=very-secret")
    finally:
        resources.of(app).close()
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json["id"] in caplog.text
    assert "ZeroDivisionError: the inside" in caplog.text
    assert "very-secret" not in caplog.text


def test_nul_in_a_value_is_refused_not_an_error_of_ours(editor: Caller) -> None:
    assert editor.get("/dpe/v3/actions/%00").status_code == 400
    assert editor.get("/dpe/v3/jobs?action=%00").status_code == 400


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A database of the test's own, to be broken; not migrated."""
    server = Postgres(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_app(own_postgres: Postgres, environment: None) -> Iterator[Flask]:
    app = create_app(Settings.from_environ({**environ, "DPE_DATABASE_URL": own_postgres.url}))
    yield app
    resources.of(app).close()


def test_a_database_without_tables_says_what_to_do(own_app: Flask) -> None:
    client = own_app.test_client()
    login = {"auth_mode": "apikey", "apikey": "a", "secretkey": "b"}
    answer = client.post("/iam/login", json=login)
    assert (answer.status_code, answer.json["hint"]) == (503, "run `dpe migrate`")
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert "dpe migrate" in ready.json["database"]


@pytest.mark.slow
def test_a_database_that_is_away_is_503_and_comes_back(
    own_postgres: Postgres, own_app: Flask
) -> None:
    client = own_app.test_client()
    with psycopg.connect(own_postgres.url, autocommit=True) as conn:
        migrate(conn)
        key = access.create_key(conn, "a")
        action = push(conn, None, {"main.py": b""})
    login = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    token = client.post("/iam/login", json=login).json["token"]
    start = f"/dpe/v3/actions/{action.id}/start?token={token}"
    assert client.post(start).status_code == 202
    assert client.get("/ready").json["database"] == "ok"

    own_postgres.stop()
    away = client.post(start)
    assert (away.status_code, away.headers["Retry-After"]) == (503, "1")
    assert away.json["error"] == "the database does not answer"
    assert client.get("/health").status_code == 200
    ready = client.get("/ready")
    assert (ready.status_code, ready.json["status"]) == (503, "unavailable")
    time.sleep(4)  # an outage long enough for pauses to have grown

    own_postgres.start()
    until(lambda: client.get("/ready").status_code == 200, 2, 0.1)
    assert client.post(start).status_code == 202


def test_a_restart_of_postgres_costs_no_request(own_postgres: Postgres) -> None:
    pool = open_pool(own_postgres.url, 4, "test")
    try:
        with ExitStack() as held:
            for _ in range(4):
                held.enter_context(pool.connection()).execute("SELECT 1")
        own_postgres.stop()
        own_postgres.start()
        for _ in range(4):
            with pool.connection() as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
    finally:
        pool.close()
