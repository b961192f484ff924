"""Flower asks for an API key and looks at its role, on every page."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flower.urls import handlers

from app.stack_file import environment
from tests.stack import until
from tests.up import Up, get

# Style sheets, whether it lives, and addresses that have nothing to tell.
OPEN = {"/static/x", "/healthcheck", "/login", "/logout", "/none/of/them"}


def addresses() -> set[str]:
    """One address for each of Flower's handlers."""
    found = set()
    for handler in handlers:
        pattern = handler[0] if isinstance(handler, tuple) else handler.matcher.regex.pattern
        path = "/none/of/them" if pattern == ".*" else re.sub(r"\(.*?\)", "x", pattern)
        found.add(path.rstrip("$").removesuffix("/?"))
    return found


def started(home: Path) -> Up:
    up = Up(home, DPE_FLOWER_LOGIN="keys").wait_until_up()
    url = environment(up.home)["DPE_FLOWER_URL"]
    until(lambda: get(f"{url}/healthcheck")[0] == 200)
    return up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = started(tmp_path_factory.mktemp("up"))
    yield up
    up.end()


@pytest.fixture
def url(up: Up) -> str:
    return environment(up.home)["DPE_FLOWER_URL"]


def key(up: Up, role: str, *words: str) -> tuple[str, str]:
    """A new key of a role: its id, and the header that it logs in with."""
    done = up.run("key", "create", "--name", "test", "--role", role, "--json", *words)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    return made["apikey"], basic(made["apikey"], made["secretkey"])


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_every_page_asks_for_a_key_whose_role_may_look(up: Up, url: str) -> None:
    _, starter = key(up, "DPE Starter")
    _, viewer = key(up, "DPE Viewer")
    closed = addresses() - OPEN
    assert len(closed) > 25
    for path in sorted(closed):
        for method in ("GET", "POST"):
            status, _ = get(url + path, method, Authorization=starter)
            assert status in {403, 405}, (method, path, status)
        told = {get(url + path, m, Authorization=viewer) for m in ("GET", "POST")}
        for status, text in told:
            # What would change something is refused for everybody.
            assert status not in {401, 429}, (path, text)
            assert status != 403 or "Read only" in text, (path, text)
    for path in sorted(closed):
        assert get(url + path, "HEAD")[0] in {401, 405}, path


def test_a_revoked_key_sees_nothing_more(up: Up, url: str) -> None:
    id, header = key(up, "DPE Editor")
    assert get(f"{url}/api/tasks", Authorization=header)[0] == 200
    assert up.run("key", "revoke", id).returncode == 0
    assert get(f"{url}/api/tasks", Authorization=header)[0] == 401


def test_a_key_may_be_used_from_its_networks_only(up: Up, url: str) -> None:
    _, far = key(up, "DPE Admin", "--from", "10.0.0.0/8")
    assert get(f"{url}/api/tasks", Authorization=far)[0] == 403
    _, near = key(up, "DPE Admin", "--from", "127.0.0.0/8")
    assert get(f"{url}/api/tasks", Authorization=near)[0] == 200


def test_what_is_no_key_is_refused_and_slowed_down(tmp_path: Path) -> None:
    up = started(tmp_path)
    try:
        page = environment(up.home)["DPE_FLOWER_URL"] + "/api/tasks"
        id, header = key(up, "DPE Viewer")
        assert get(page, Authorization=header)[0] == 200
        tried = ("Basic", "Basic ???", "Bearer x", "Basic eA==", basic(id, "x"), basic("", ""))
        assert {get(page, Authorization=wrong)[0] for wrong in tried} == {401}
        until(lambda: get(page, Authorization=basic(id, "wrong"))[0] == 429)
        assert get(page, Authorization=header)[0] == 429
    finally:
        up.end()
