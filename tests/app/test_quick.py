"""The quick way of starts and polls: for their plain form alone, and answering as Flask does."""

import gzip
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import jobs, resources, starts
from app.quick import Quick
from tests.app.conftest import MAIN, Caller, Hand
from tests.app.test_limits import bounded, caller_of  # noqa: F401 -- bounded is a fixture
from worker.store import access, actions
from worker.store.actions import Action

ROWS = b'[{"event_id": 1, "event_name": "Ada"}]'
CHANGING = {"execution_id", "timestamp", "submitted_at", "started_at", "ended_at", "duration"}


class Ways:
    """Which way the calls of one application go; and the way by Flask alone."""

    def __init__(self, app: Flask) -> None:
        self.quick = app.wsgi_app
        assert isinstance(self.quick, Quick)
        self.flask = self.quick._flask
        self.by_flask = 0

    def counted(self, *given: Any) -> Any:
        self.by_flask += 1
        assert given[0]["wsgi.input"].tell() == 0  # nothing of the body is gone
        return self.flask(*given)


@pytest.fixture
def ways(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Ways:
    """Counts the calls that Flask gets."""
    found = Ways(app)
    monkeypatch.setattr(found.quick, "_flask", found.counted)
    return found


@pytest.fixture
def known(editor: Caller, action: Action, ways: Ways) -> Caller:
    """A caller whose session this process has seen in a start before."""
    ways.by_flask = 0
    assert start(editor, action).status_code == 202
    assert ways.by_flask == 1
    ways.by_flask = 0
    return editor


def start(caller: Caller, action: Action, query: str = "", **options: Any) -> TestResponse:
    options.setdefault("data", ROWS)
    return caller.post(f"/dpe/v3/actions/{action.id}/start{query}", **options)


def both(app: Flask, ways: Ways, call: Callable[[], TestResponse]) -> list[TestResponse]:
    """The same call by the quick way, and by Flask's."""
    ways.by_flask = 0
    quick = call()
    assert ways.by_flask == 0
    app.wsgi_app = ways.flask
    try:
        return [quick, call()]
    finally:
        app.wsgi_app = ways.quick


def fixed(value: Any) -> Any:
    """JSON without what differs from job to job."""
    if isinstance(value, dict):
        return {name: "…" if name in CHANGING else fixed(one) for name, one in value.items()}
    if isinstance(value, str):
        return "/".join("…" if is_uuid(part) else part for part in value.split("/"))
    return value


def is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def as_seen(answer: TestResponse) -> tuple[str, dict[str, str], list[str], Any]:
    """All that a caller sees; a length that hangs on the times' digits is checked by itself."""
    headers = {name: fixed(value) for name, value in answer.headers}
    assert len(headers) == len(list(answer.headers))
    assert int(headers.pop("Content-Length")) == len(answer.data)
    return answer.status, headers, list(answer.json), fixed(answer.json)


def count(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("form", ["action", "actions"])
@pytest.mark.parametrize("body", [ROWS, b"", b" ", b"\xef\xbb\xbf[1]", b"12345678901234567890123"])
def test_a_start_is_answered_and_kept_as_by_flask(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    form: str,
    body: bytes,
) -> None:
    path = f"/dpe/v3/{form}/{action.id}/start?app_id=5%2B5&type=cam"
    length = {"CONTENT_LENGTH": str(len(body))}  # which the client leaves out where it is 0
    quick, flask = both(app, ways, lambda: known.post(path, data=body, environ_overrides=length))
    assert quick.status == "202 ACCEPTED"
    assert as_seen(quick) == as_seen(flask)
    assert quick.headers["Location"] == f"/dpe/v3/jobs/{quick.json['execution_id']}"
    kept = [
        conn.execute(
            "SELECT event, event_type, key_id, priority, status FROM dpe.jobs"
            " WHERE execution_id = %s",
            [answer.json["execution_id"]],
        ).fetchone()
        for answer in (quick, flask)
    ]
    assert kept[0] == kept[1]


def test_a_start_that_waits_is_answered_as_by_flask(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    monkeypatch: pytest.MonkeyPatch,
    hand: Hand,
) -> None:
    answers = both(app, ways, lambda: start(known, action, "?wait=0"))
    assert as_seen(answers[0]) == as_seen(answers[1])
    accept = resources.Intake.accept

    def and_run(self: Any, start: Any) -> Any:
        found = accept(self, start)
        hand.run_later(str(start.execution_id), 0.1)
        return found

    monkeypatch.setattr(resources.Intake, "accept", and_run)
    answers = both(app, ways, lambda: start(known, action, "?wait=20"))
    assert answers[0].status == "200 OK"
    assert answers[0].json["status"] == "SUCCESS"
    assert as_seen(answers[0]) == as_seen(answers[1])


def test_a_wait_that_is_over_is_answered_as_by_flask(
    app: Flask, ways: Ways, known: Caller, action: Action
) -> None:
    answers = both(app, ways, lambda: start(known, action, "?wait=1"))
    assert answers[0].status == "202 ACCEPTED"
    assert answers[0].json["status"] == "QUEUED"
    assert as_seen(answers[0]) == as_seen(answers[1])


@pytest.mark.parametrize("form", ["/dpe/v3/job/{}", "/dpe/v3/jobs/{}", "/dpe/v3/jobs/{}?wait=0"])
@pytest.mark.parametrize("digits", [str, lambda whole: UUID(whole).hex])
def test_a_poll_is_answered_as_by_flask(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    hand: Hand,
    form: str,
    digits: Callable[[str], str],
) -> None:
    id = known.start(action.id, [1])
    path = form.format(digits(id))
    for then in (lambda: hand.run(id, {"rows": 12345678901234567890}), lambda: None):
        quick, flask = both(app, ways, lambda: known.get(path))
        assert quick.status == "200 OK"
        assert (quick.data, quick.status, sorted(quick.headers)) == (
            flask.data, flask.status, sorted(flask.headers))  # fmt: skip
        then()
    assert "Retry-After" not in quick.headers


def test_the_poll_of_a_run_of_a_workflow_has_its_steps(
    app: Flask, ways: Ways, known: Caller, action: Action
) -> None:
    entry = {"action_conf": action.id, "name": "only"}
    stages = [{"stageName": "All", "actions": [entry]}]
    made = known.post("/dpe/v3/workflows", json={"display_name": "Night", "stages": stages})
    assert made.status_code == 201, made.text
    run = known.post(f"/dpe/v3/workflows/{made.json['id']}/start").json["execution_id"]
    quick, flask = both(app, ways, lambda: known.get(f"/dpe/v3/jobs/{run}"))
    assert len(quick.json["steps"]) == 1
    assert (quick.data, sorted(quick.headers)) == (flask.data, sorted(flask.headers))


def test_a_session_that_is_known_comes_in_the_address_too(
    ways: Ways, known: Caller, action: Action
) -> None:
    path = f"/dpe/v3/actions/{action.id}/start?type=cam&token={known.token}&app_id=5"
    accepted = known.client.post(path, data=ROWS, content_type="application/json; charset=UTF-8")
    assert accepted.status_code == 202
    path = f"/dpe/v3/jobs/{accepted.json['execution_id']}?token={known.token}"
    assert known.client.get(path).status_code == 200
    assert ways.by_flask == 0
    # As in Flask, what is in the header counts first.
    wrong = {"Authorization": "Bearer x"}
    assert known.client.get(path, headers=wrong).status_code == 401
    assert known.client.get(path, headers={"Authorization": known.token}).status_code == 200
    other_scheme = {"Authorization": f"Digest {known.token}"}
    assert known.client.get(path.partition("?")[0], headers=other_scheme).status_code == 401
    assert ways.by_flask == 3


def test_where_other_sites_may_call_their_caches_are_told(
    bounded: Callable[..., Flask],  # noqa: F811
    conn: psycopg.Connection,
    action: Action,
) -> None:
    app = bounded(cors_origins=("https://shop.example",))
    sender = caller_of(app, conn)
    start(sender, action)
    quick, flask = both(app, Ways(app), lambda: start(sender, action))
    assert quick.headers["Vary"] == "Origin"
    assert as_seen(quick) == as_seen(flask)


ALL = {"wsgi.input_terminated": True}  # as granian says


@pytest.mark.parametrize(
    ("query", "options", "status"),
    [
        ("", {"headers": {"Idempotency-Key": "a"}}, 202),
        ("", {"headers": {"Content-Encoding": "gzip"}, "data": gzip.compress(ROWS)}, 202),
        ("", {"headers": {"Content-Encoding": "br"}}, 415),
        ("", {"headers": {"Transfer-Encoding": "chunked"}, "environ_overrides": ALL}, 202),
        ("", {"headers": {"Origin": "https://shop.example"}}, 202),
        ("", {"content_type": "application/json; charset=latin-1"}, 400),
        ("", {"content_type": "application/json; charset=ascii"}, 202),
        ("", {"content_type": 'application/json; a="; charset=utf-8"'}, 202),
        ("", {"data": b"1" * 10_000_001}, 413),
        ("", {"environ_overrides": {"CONTENT_LENGTH": "50"}}, 400),  # less comes
        ("", {"environ_overrides": {"CONTENT_LENGTH": "+5"}}, 202),  # as if there were none
        ("", {"environ_overrides": {"CONTENT_LENGTH": ""}}, 202),
        ("", {"headers": {"Authorization": "Bearer x"}}, 401),
        ("", {"headers": {"Authorization": "Basic eDp5"}}, 401),
        ("?validate=strict", {}, 409),
        ("?dry_run=1", {}, 200),
        ("?priority=high", {}, 202),
        ("?priority=none", {}, 400),
        ("?%70riority=none", {}, 400),
        ("?delay=5", {}, 202),
        ("?event_type=manual", {}, 202),
        ("?expires=1h", {}, 202),
        ("?wait=31", {}, 400),
        ("?wait=-1", {}, 400),
        ("?wait=", {}, 400),
        ("?wait=0.1", {}, 202),
        ("?wait=0&wait=x", {}, 202),
        ("?wait=x&wait=0", {}, 400),
        ("?wait=%30", {}, 202),
        ("?wait=\u0660", {}, 202),
        ("?token=%20", {}, 202),
        ("?type=" + "x" * 600, {}, 202),
        ("?other=1", {}, 202),
        ("/", {}, 202),
    ],
)
def test_a_start_that_is_not_plain_is_flasks(
    ways: Ways, known: Caller, action: Action, query: str, options: dict[str, Any], status: int
) -> None:
    if options.get("headers", {}).get("Authorization", "").startswith("Basic"):
        query = "?token=x"
    answer = start(known, action, query, **options)
    assert answer.status_code == status, answer.text
    assert ways.by_flask == 1


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("HEAD", "", {}, 200),
        ("OPTIONS", "", {}, 200),
        ("PUT", "", {}, 405),
        ("GET", "?wait=1", {}, 202),
        ("GET", "?wait=31", {}, 400),
        ("GET", "?other=1", {}, 200),
        ("GET", "/", {}, 200),
        ("GET", "", {"headers": {"Origin": "https://shop.example"}}, 200),
        ("GET", "/logs", {}, 200),
        ("GET", "", {"headers": {"Authorization": "Bearer x"}}, 401),
    ],
)
def test_a_poll_that_is_not_plain_is_flasks(
    ways: Ways,
    known: Caller,
    action: Action,
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
) -> None:
    id = known.start(action.id)
    assert known.call(method, f"/dpe/v3/jobs/{id}{path}", **options).status_code == status
    assert ways.by_flask == 1


@pytest.mark.parametrize("digits", [lambda id_: id_[:7], str.upper, lambda id_: id_ + "%0a"])
def test_an_id_in_another_form_is_flasks(
    ways: Ways, known: Caller, action: Action, digits: Callable[[str], str]
) -> None:
    id = known.start(action.id)
    ways.by_flask = 0
    answer = known.get(f"/dpe/v3/jobs/{digits(id)}")
    assert answer.status_code == (404 if digits(id).endswith("%0a") else 200)
    assert known.post(f"/dpe/v3/actions/{digits(action.id)}/start").status_code == 404
    assert ways.by_flask == 2


def test_who_may_not_is_told_so_by_flask(
    ways: Ways,
    app: Flask,
    caller: Callable[[str], Caller],
    action: Action,
    conn: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = caller("DPE Viewer")
    assert [start(viewer, action).status_code for _ in range(2)] == [403, 403]
    bound = caller_of(app, conn, only_ids=["0" * 24])
    assert [start(bound, action).status_code for _ in range(2)] == [403, 403]
    elsewhere = caller_of(app, conn, networks=["192.0.2.0/24", "127.0.0.0/8"])
    assert [start(elsewhere, action).status_code for _ in range(2)] == [202, 202]
    from_there = {"REMOTE_ADDR": "198.51.100.1"}
    assert start(elsewhere, action, environ_overrides=from_there).status_code == 403
    assert ways.by_flask == 7 + 3  # and the logins
    starter = caller("DPE Starter")
    id = starter.start(action.id)
    monkeypatch.setitem(access.ROLES, "DPE Starter", ("dpe:action:start",))
    ways.by_flask = 0
    assert starter.get(f"/dpe/v3/jobs/{id}").status_code == 403
    assert ways.by_flask == 1


def test_the_permissions_are_those_of_the_views(app: Flask) -> None:
    assert vars(app.view_functions["starts.start"])["needs"] == starts.PERMISSION
    assert vars(app.view_functions["jobs.one"])["needs"] == jobs.READ


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[1,\n 2,\n  x]", "line 3, column 3"),
        (b"\xff", "byte 1 of 1"),
        (b"[" * 2000, "not JSON: line 1"),
    ],
)
def test_what_is_no_json_is_400_and_says_where(
    app: Flask,
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    body: bytes,
    words: str,
) -> None:
    before = count(conn)
    quick, flask = both(app, ways, lambda: start(known, action, data=body))
    assert (quick.status_code, words in quick.json["error"]) == (400, True), quick.text
    assert (quick.status, quick.data) == (flask.status, flask.data)
    assert sorted(quick.headers) == sorted(flask.headers)
    assert count(conn) == before


def test_a_body_that_breaks_off_stores_nothing(
    ways: Ways, known: Caller, action: Action, conn: psycopg.Connection
) -> None:
    before = count(conn)
    # As granian hands it on, and as other servers do.
    for ended in ({}, ALL):
        environ = {"CONTENT_LENGTH": str(len(ROWS) + 1), **ended}
        assert start(known, action, environ_overrides=environ).status_code == 400
    assert ways.by_flask == 2
    assert count(conn) == before


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
    conn.execute(ending)
    for _ in range(2):
        answer = start(known, action)
        assert (answer.status_code, answer.json["error"]) == (401, "Invalid token")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert known.get(f"/dpe/v3/jobs/{id}").status_code == 401
    assert count(conn) == before


def test_a_poll_of_an_ended_session_is_401_at_once(
    known: Caller, action: Action, conn: psycopg.Connection
) -> None:
    id = known.start(action.id)
    assert known.get(f"/dpe/v3/jobs/{id}").status_code == 200
    conn.execute("DELETE FROM dpe.sessions")
    assert known.get(f"/dpe/v3/jobs/{id}").status_code == 401


def test_what_there_is_not_is_404_as_by_flask(app: Flask, ways: Ways, known: Caller) -> None:
    path = f"/dpe/v3/actions/{'0' * 24}/start"
    quick, flask = both(app, ways, lambda: known.post(path, data=ROWS))
    assert quick.status_code == 404
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)
    assert known.get(f"/dpe/v3/jobs/{UUID(int=0)}").status_code == 404
    assert ways.by_flask == 1


def test_of_an_action_that_allows_one_open_job_a_second_is_409_as_by_flask(
    app: Flask, ways: Ways, known: Caller, conn: psycopg.Connection
) -> None:
    config = json.dumps({"allow_concurrent": False}).encode()
    alone = actions.push(conn, None, {"main.py": MAIN, "forepaas.json": config})
    assert start(known, alone).status_code == 202
    assert ways.by_flask == 0
    quick, flask = both(app, ways, lambda: start(known, alone))
    assert quick.status_code == 409
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)


def failing(error: Exception, after: Callable[..., Any] | None = None) -> tuple[list[Any], Any]:
    calls: list[Any] = []

    def accept(*given: Any, **_: Any) -> Any:
        calls.append(given)
        if after is not None:
            after(*given)
        raise error

    return calls, accept


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (psycopg.OperationalError("server closed the connection: host db user dpe"), 503),
        (RuntimeError("what nobody foresaw"), 500),
    ],
)
def test_a_commit_in_doubt_is_not_tried_again(
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    before = count(conn)
    calls, accept = failing(error, after=resources.Intake.accept)
    monkeypatch.setattr(resources.Intake, "accept", accept)
    answer = start(known, action, headers={"Accept": "application/problem+json"})
    assert (answer.status_code, len(calls), ways.by_flask) == (status, 1, 0)
    assert count(conn) == before + 1
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)
    assert str(error) not in answer.text


def test_an_error_after_the_acceptance_is_an_answer_too(
    app: Flask, ways: Ways, known: Caller, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = psycopg.OperationalError("the connection is lost")
    calls, until_ended = failing(error)
    monkeypatch.setattr(resources.Waits, "until_ended", until_ended)
    quick, flask = both(app, ways, lambda: start(known, action, "?wait=1"))
    assert (quick.status_code, len(calls)) == (503, 2)
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)


def test_a_poll_without_postgres_is_503(
    ways: Ways, known: Caller, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = known.start(action.id)
    _, ask = failing(psycopg.OperationalError("the connection is lost"))
    monkeypatch.setattr(resources.Together, "ask", ask)
    answer = known.get(f"/dpe/v3/jobs/{id}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.fixture
def full(
    bounded: Callable[..., Flask],  # noqa: F811
    conn: psycopg.Connection,
    action: Action,
) -> tuple[Flask, Caller]:
    """An application that takes two starts."""
    app = bounded(max_waiting=2)
    sender = caller_of(app, conn)
    assert start(sender, action).status_code == 202
    return app, sender


def test_what_is_too_much_is_429(
    full: tuple[Flask, Caller], action: Action, conn: psycopg.Connection
) -> None:
    app, sender = full
    assert start(sender, action).status_code == 202
    quick, flask = both(app, Ways(app), lambda: start(sender, action))
    assert (quick.status_code, quick.headers["Retry-After"]) == (429, "5")
    assert quick.data == flask.data
    assert sorted(quick.headers) == sorted(flask.headers)
    assert count(conn) == 2


def test_a_start_that_is_refused_counts_once(
    app: Flask, ways: Ways, known: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(resources.Limits, "check", lambda *given: checked.append(given))
    assert known.post(f"/dpe/v3/actions/{'0' * 24}/start", data=ROWS).status_code == 404
    assert (len(checked), ways.by_flask) == (1, 0)
