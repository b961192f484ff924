"""A client with a session, and jobs that end when a test says so."""

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from werkzeug.test import TestResponse

from app import create_app, resources
from app.embedded import Postgres, Valkey
from tests.app.serving import Ways
from worker.settings import Settings
from worker.store import access, actions, claims, ending, workers

ROWS = b'[{"event_id": 1, "event_name": "Ada"}]'
MAIN = b"def customfunc(event):\n    return len(event.content)\n"


@pytest.fixture(scope="session")
def app(environment: None) -> Iterator[Flask]:
    app = create_app(Settings.from_environ())
    yield app
    resources.of(app).close()


@pytest.fixture(autouse=True)
def _nobody_is_slowed_down(app: Flask, valkey: Valkey) -> None:
    """Wrong credentials of a test before must not count against this one."""
    resources.of(app).failures._slowed.clear()
    with Redis.from_url(valkey.url) as broker:
        names = list(broker.scan_iter("dpe:failures:*"))
        if names:
            broker.delete(*names)


@dataclass
class Caller:
    """Somebody with a session, calling through Flask's test client."""

    client: FlaskClient
    token: str

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.client.open(path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        return self.call("POST", path, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.call("DELETE", path, **options)

    def start(self, action_id: str, content: Any = None) -> str:
        answer = self.post(f"/dpe/v3/actions/{action_id}/start", data=json.dumps(content))
        assert answer.status_code == 202, answer.text
        return answer.json["execution_id"]


@pytest.fixture
def caller(app: Flask, conn: psycopg.Connection, valkey: Valkey) -> Callable[[str], Caller]:
    """Make a caller of a role."""

    def make(role: str) -> Caller:
        key = access.create_key(conn, f"a {role}", role)
        body = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
        client = app.test_client()
        return Caller(client, client.post("/iam/v4/login", json=body).json["token"])

    return make


@pytest.fixture
def editor(caller: Callable[[str], Caller]) -> Caller:
    return caller("DPE Editor")


@pytest.fixture
def action(conn: psycopg.Connection) -> actions.Action:
    config = json.dumps({"display_name": "Archive"}).encode()
    return actions.push(conn, None, {"main.py": MAIN, "forepaas.json": config})


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Flask], Ways]]:
    """Serve an application by granian, where its test clients call it then."""
    served: list[Ways] = []

    def start(app: Flask) -> Ways:
        served.append(Ways(app))
        monkeypatch.setattr(app, "wsgi_app", served[-1].forward)
        return served[-1]

    yield start
    for ways in served:
        ways.end()


@pytest.fixture
def ways(app: Flask, serve: Callable[[Flask], Ways]) -> Ways:
    return serve(app)


@pytest.fixture
def known(ways: Ways, editor: Caller, action: actions.Action) -> Caller:
    """A caller whose session this process has seen in a start before."""
    ways.by_flask = 0
    assert start(editor, action).status_code == 202
    assert ways.by_flask == 1
    ways.by_flask = 0
    return editor


def start(caller: Caller, action: actions.Action, query: str = "", **options: Any) -> TestResponse:
    options.setdefault("data", ROWS)
    return caller.post(f"/dpe/v3/actions/{action.id}/start{query}", **options)


def encoded(**files: bytes) -> dict[str, Any]:
    return {"files": {name: b64encode(content).decode() for name, content in files.items()}}


class Hand:
    """Does with a job what a worker does, at the moment that the test chooses."""

    def __init__(self, conn: psycopg.Connection, url: str) -> None:
        self.conn, self.url, self.worker_id = conn, url, uuid4()
        workers.register(conn, self.worker_id, "here", 1, 1)

    def claim(self, execution_id: str) -> claims.Claim:
        job_conn = psycopg.connect(self.url)
        job = claims.claim(self.conn, job_conn, UUID(execution_id), self.worker_id, 1)
        assert job is not None, execution_id
        return job

    def log(self, job: claims.Claim, part: int, *messages: str) -> None:
        claims.add_log(self.conn, job, part, lines(*messages))

    def succeed(self, job: claims.Claim, result: Any = None, part: int = 1) -> None:
        ending.succeed(job, json.dumps(result).encode(), (part, lines("done")))
        job.conn.close()

    def fail(self, job: claims.Claim) -> None:
        error = {"type": "ValueError", "message": "no", "traceback": "Traceback …"}
        ending.fail(job, error, (1, lines("failed")))
        job.conn.close()

    def run(self, execution_id: str, result: Any = None) -> None:
        self.succeed(self.claim(execution_id), result)

    def run_later(self, execution_id: str, after_s: float) -> threading.Thread:
        thread = threading.Thread(target=lambda: (time.sleep(after_s), self.run(execution_id)))
        thread.start()
        return thread


def lines(*messages: str) -> bytes:
    line = {"at": "2026-01-31T08:00:00.000000Z", "level": "info", "logger": "main"}
    return json.dumps([line | {"message": message} for message in messages]).encode()


@pytest.fixture
def hand(conn: psycopg.Connection, postgres: Postgres) -> Hand:
    return Hand(conn, postgres.url)
