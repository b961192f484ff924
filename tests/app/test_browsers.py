"""Headers that guard, on every kind of answer; and which sites may call."""

from collections.abc import Callable

import pytest
from flask import Flask

from tests.app.conftest import Caller
from tests.app.test_limits import bounded  # noqa: F401 -- a fixture

SITE = "https://shop.example"


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/dpe/v3/jobs", "/openapi.json"])
def test_every_answer_has_the_guards(app: Flask, path: str) -> None:
    headers = app.test_client().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Server" not in headers


def test_no_other_site_may_call_unless_it_is_named(editor: Caller) -> None:
    headers = editor.get("/dpe/v3/jobs", headers={"Origin": SITE}).headers
    assert not [name for name, _ in headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(("origin", "allowed"), [(SITE, True), ("https://evil.example", False)])
def test_a_site_that_is_named_may_call(
    bounded: Callable[..., Flask],  # noqa: F811
    origin: str,
    allowed: bool,
) -> None:
    client = bounded(cors_origins=(SITE,)).test_client()
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for answer in (client.options(f"/dpe/v3/actions/{'0' * 24}/start", headers=asked),
                   client.get("/health", headers=asked)):  # fmt: skip
        assert answer.status_code == 200
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
        assert answer.headers["Vary"] == "Origin"
