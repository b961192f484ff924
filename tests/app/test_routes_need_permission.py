"""Every route of the URL map, and every method of it: 401 without a token, 403 without permission.

Read off the application, so a route that is new is asked as well; so is Flower's, see test_flower.
"""

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from app.auth import ANY_SESSION, NOBODY
from tests.app.conftest import Caller
from worker.store import access

OPEN = {"/health", "/ready", "/iam/login", "/iam/v4/login", "/openapi.json"}
ID = "5eaf0db7f6f51d5255974217"
# These ask for a signature instead, see test_webhooks.
OPEN |= {f"/dpe/v3/{actions}/{ID}/webhook" for actions in ("action", "actions")}


def routes(app: Flask) -> Iterator[tuple[str, str, str | None]]:
    """(method, address, what it needs) of each."""
    for rule in app.url_map.iter_rules():
        need = getattr(app.view_functions[rule.endpoint], "needs", None)
        for method in (rule.methods or set()) - {"OPTIONS"}:
            yield method, re.sub("<[^>]+>", ID, rule.rule), need


def test_every_route_declares_what_it_needs(app: Flask) -> None:
    found = list(routes(app))
    assert len(found) > 50
    assert [path for _, path, need in found if need is None] == []
    assert {path for _, path, need in found if need == NOBODY} == OPEN
    named = {need for _, _, need in found} - {NOBODY, ANY_SESSION}
    assert [need for need in named if not re.fullmatch(r"[a-z]+:[a-z]+:[a-z]+", need or "")] == []


def test_no_route_answers_without_a_token(app: Flask) -> None:
    client = app.test_client()
    for method, path, need in routes(app):
        if need == NOBODY:
            continue
        answer = client.open(path, method=method)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        if method != "HEAD":
            assert answer.json["error"] == "Invalid token"
        # What a method is not declared for is not let in by the back door either.
        assert client.options(path).data == b""


def test_no_route_answers_a_session_that_has_every_permission_but_its_own(
    app: Flask, editor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_needs = {need for _, _, need in routes(app)} - {NOBODY, ANY_SESSION, None}
    for method, path, need in routes(app):
        if need in {NOBODY, ANY_SESSION}:
            continue
        # What its session may do is its role's: changed here from call to call.
        monkeypatch.setitem(access.ROLES, "DPE Editor", tuple(sorted(all_needs - {need})))
        answer = editor.call(method, path)
        assert answer.status_code == 403, (method, path)
        if method != "HEAD":
            assert answer.json["error"] == "No permission for this user"
            assert f"has no {need}" in answer.json["hint"]
        monkeypatch.setitem(access.ROLES, "DPE Editor", (need,))
        assert editor.call(method, path).status_code not in {401, 403}, (method, path)


@pytest.mark.parametrize("only_its", ["service", "resource", "action"])
def test_a_star_stands_for_one_part_and_no_more(
    editor: Caller, monkeypatch: pytest.MonkeyPatch, only_its: str
) -> None:
    other = {"service": "dwh:*:*", "resource": "dpe:action:*", "action": "dpe:job:re"}[only_its]
    monkeypatch.setitem(access.ROLES, "DPE Editor", (other,))
    assert editor.get("/dpe/v3/jobs").status_code == 403
    fits = {"service": "*:job:read", "resource": "dpe:*:read", "action": "dpe:job:*"}[only_its]
    monkeypatch.setitem(access.ROLES, "DPE Editor", (fits,))
    assert editor.get("/dpe/v3/jobs").status_code == 200
