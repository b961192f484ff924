"""The quick way of starts and polls answers as Flask does."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import jobs, resources, starts
from tests.app.conftest import ROWS, Caller, Hand, start
from tests.app.serving import Ways, as_seen
from tests.app.test_limits import bounded, caller_of  # noqa: F401 -- bounded is a fixture
from tests.stack import until
from worker.store.actions import Action


@pytest.mark.parametrize("form", ["action", "actions"])
@pytest.mark.parametrize("body", [ROWS, b"", b" ", b"\xef\xbb\xbf[1]", b"12345678901234567890123"])
def test_a_start_is_answered_and_kept_as_by_flask(
    ways: Ways,
    known: Caller,
    action: Action,
    conn: psycopg.Connection,
    form: str,
    body: bytes,
) -> None:
    path = f"/dpe/v3/{form}/{action.id}/start?app_id=5%2B5&type=cam"
    length = {"CONTENT_LENGTH": str(len(body))}  # which the client leaves out where it is 0
    quick, flask = ways.both(lambda: known.post(path, data=body, environ_overrides=length))
    assert quick.status == "202 Accepted"
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
    ways: Ways, known: Caller, action: Action, hand: Hand
) -> None:
    answers = ways.both(lambda: start(known, action, "?wait=0"))
    assert as_seen(answers[0]) == as_seen(answers[1])

    def accepted() -> set[str]:
        found = hand.conn.execute("SELECT execution_id FROM dpe.jobs").fetchall()
        return {str(id) for (id,) in found}

    def start_and_run() -> TestResponse:
        before = accepted()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(start, known, action, "?wait=20")
            [id] = until(lambda: accepted() - before)
            hand.run_later(id, 0.1).join()
            return answer.result(10)

    answers = ways.both(start_and_run)
    assert answers[0].status == "200 OK"
    assert answers[0].json["status"] == "SUCCESS"
    assert as_seen(answers[0]) == as_seen(answers[1])


def test_a_wait_that_is_over_is_answered_as_by_flask(
    ways: Ways, known: Caller, action: Action
) -> None:
    answers = ways.both(lambda: start(known, action, "?wait=1"))
    assert answers[0].status == "202 Accepted"
    assert answers[0].json["status"] == "QUEUED"
    assert as_seen(answers[0]) == as_seen(answers[1])


@pytest.mark.parametrize("form", ["/dpe/v3/job/{}", "/dpe/v3/jobs/{}", "/dpe/v3/jobs/{}?wait=0"])
@pytest.mark.parametrize("digits", [str, lambda whole: UUID(whole).hex])
def test_a_poll_is_answered_as_by_flask(
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
        quick, flask = ways.both(lambda: known.get(path))
        assert quick.status == "200 OK"
        assert (quick.data, quick.status, sorted(quick.headers)) == (
            flask.data, flask.status, sorted(flask.headers))  # fmt: skip
        then()
    assert "Retry-After" not in quick.headers


def test_a_poll_that_finds_nothing_new_is_answered_with_what_was_made_before(
    app: Flask, ways: Ways, known: Caller, action: Action, hand: Hand
) -> None:
    kept: Any = resources.of(app).lookups._kept
    ids = [known.start(action.id) for _ in range(2)]

    def polled() -> list[dict[str, Any]]:
        return [known.get(f"/dpe/v3/jobs/{id}").json for id in ids]

    kept.cache_clear()
    for _ in range(3):
        assert [(one["execution_id"], one["status"]) for one in polled()] == [
            (id, "QUEUED") for id in ids
        ]
    assert (kept.cache_info().misses, kept.cache_info().hits) == (2, 4)
    for id in ids:
        hand.run(id, {"of": id})
    for _ in range(3):
        assert [(one["status"], one["result"]) for one in polled()] == [
            ("SUCCESS", {"of": id}) for id in ids
        ]
    assert (kept.cache_info().misses, kept.cache_info().hits) == (4, 8)
    large = known.start(action.id)
    hand.run(large, {"text": "x" * 5000})
    for _ in range(2):
        assert len(known.get(f"/dpe/v3/jobs/{large}").json["result"]["text"]) == 5000
    assert kept.cache_info().currsize == 4  # it is not kept
    assert ways.by_flask == 0


def test_a_poll_that_waits_is_answered_as_by_flask(
    ways: Ways, known: Caller, action: Action, hand: Hand
) -> None:
    ids = [known.start(action.id) for _ in range(2)]

    def poll() -> Any:
        hand.run_later(ids[-1], 0.2)
        return known.get(f"/dpe/v3/jobs/{ids.pop()}?wait=20")

    ended = ids[0]
    began = time.monotonic()
    answers = ways.both(poll)
    assert 0.4 <= time.monotonic() - began < 2
    assert [(a.status_code, a.json["status"]) for a in answers] == [(200, "SUCCESS")] * 2
    assert as_seen(answers[0]) == as_seen(answers[1])
    began = time.monotonic()
    quick, flask = ways.both(lambda: known.get(f"/dpe/v3/jobs/{ended}?wait=20"))
    assert time.monotonic() - began < 1
    assert (quick.status_code, quick.data) == (200, flask.data)
    assert sorted(quick.headers) == sorted(flask.headers)


def test_a_poll_whose_wait_is_over_is_answered_as_by_flask(
    ways: Ways, known: Caller, action: Action
) -> None:
    id = known.start(action.id)
    began = time.monotonic()
    quick, flask = ways.both(lambda: known.get(f"/dpe/v3/jobs/{id}?wait=1"))
    assert 2 <= time.monotonic() - began < 3
    assert (quick.status_code, quick.headers["Retry-After"]) == (202, "1")
    assert quick.json["status"] == "QUEUED"
    assert (quick.data, quick.status) == (flask.data, flask.status)
    assert sorted(quick.headers) == sorted(flask.headers)


@pytest.mark.parametrize("wait", ["", "?wait=1"])
def test_the_poll_of_a_run_of_a_workflow_has_its_steps(
    ways: Ways, known: Caller, action: Action, wait: str
) -> None:
    entry = {"action_conf": action.id, "name": "only"}
    stages = [{"stageName": "All", "actions": [entry]}]
    made = known.post("/dpe/v3/workflows", json={"display_name": "Night", "stages": stages})
    assert made.status_code == 201, made.text
    run = known.post(f"/dpe/v3/workflows/{made.json['id']}/start").json["execution_id"]
    quick, flask = ways.both(lambda: known.get(f"/dpe/v3/jobs/{run}{wait}"))
    assert quick.status_code == (202 if wait else 200)
    assert len(quick.json["steps"]) == 1
    assert (quick.data, quick.status) == (flask.data, flask.status)
    assert sorted(quick.headers) == sorted(flask.headers)


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
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
) -> None:
    app = bounded(cors_origins=("https://shop.example",))
    ways = serve(app)
    sender = caller_of(app, conn)
    start(sender, action)
    quick, flask = ways.both(lambda: start(sender, action))
    assert quick.headers["Vary"] == "Origin"
    assert as_seen(quick) == as_seen(flask)


def test_the_permissions_are_those_of_the_views(app: Flask) -> None:
    assert vars(app.view_functions["starts.start"])["needs"] == starts.PERMISSION
    assert vars(app.view_functions["jobs.one"])["needs"] == jobs.READ
