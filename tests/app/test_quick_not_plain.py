"""The quick way is for the plain form of starts and polls alone: all else is Flask's."""

import gzip
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from app.quick import _MAX_BODY_BYTES
from tests.app.conftest import ROWS, Caller, start
from tests.app.serving import Ways
from tests.app.test_limits import caller_of
from worker.store import access
from worker.store.actions import Action


@pytest.mark.parametrize(
    ("query", "options", "status"),
    [
        ("", {"headers": {"Idempotency-Key": "a"}}, 202),
        ("", {"headers": {"Content-Encoding": "gzip"}, "data": gzip.compress(ROWS)}, 202),
        ("", {"headers": {"Content-Encoding": "br"}}, 415),
        ("", {"headers": {"Transfer-Encoding": "chunked"}}, 202),
        ("", {"headers": {"Origin": "https://shop.example"}}, 202),
        ("", {"content_type": "application/json; charset=latin-1"}, 400),
        ("", {"content_type": "application/json; charset=ascii"}, 202),
        ("", {"content_type": 'application/json; a="; charset=utf-8"'}, 202),
        ("", {"data": b" " * _MAX_BODY_BYTES + b"1"}, 202),
        ("", {"data": b"1" * 10_000_001}, 413),
        ("", {"data": None}, 202),  # nor a Content-Length
        ("", {"headers": {"Authorization": "Bearer x"}}, 401),
        ("?token=x", {"headers": {"Authorization": "Basic eDp5"}}, 401),
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
        ("?wait=%D9%A0", {}, 202),
        ("?token=%20", {}, 202),
        ("?type=" + "x" * 600, {}, 202),
        ("?other=1", {}, 202),
        ("/", {}, 202),
    ],
)
def test_a_start_that_is_not_plain_is_flasks(
    ways: Ways, known: Caller, action: Action, query: str, options: dict[str, Any], status: int
) -> None:
    answer = start(known, action, query, **options)
    assert answer.status_code == status, answer.text
    assert ways.by_flask == 1


def test_a_start_as_large_as_may_be_is_answered_without_flask(
    ways: Ways, known: Caller, action: Action
) -> None:
    assert start(known, action, data=b"1".rjust(_MAX_BODY_BYTES)).status_code == 202
    assert ways.by_flask == 0


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("HEAD", "", {}, 200),
        ("OPTIONS", "", {}, 200),
        ("PUT", "", {}, 405),
        ("GET", "?wait=0.1", {}, 202),
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
    here = caller_of(app, conn, networks=["192.0.2.0/24", "127.0.0.0/8"])
    assert [start(here, action).status_code for _ in range(2)] == [202, 202]
    elsewhere = caller_of(app, conn, networks=["192.0.2.0/24"])
    assert [start(elsewhere, action).status_code for _ in range(2)] == [403, 403]
    assert ways.by_flask == 8 + 4  # and the logins
    starter = caller("DPE Starter")
    id = starter.start(action.id)
    monkeypatch.setitem(access.ROLES, "DPE Starter", ("dpe:action:start",))
    ways.by_flask = 0
    assert starter.get(f"/dpe/v3/jobs/{id}").status_code == 403
    assert ways.by_flask == 1
