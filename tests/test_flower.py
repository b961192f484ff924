"""Flower: a window onto the record, that shows what is so, and changes nothing."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from flower.urls import handlers

from app.stack_file import environment
from tests.packages import slow_package
from tests.stack import until
from tests.up import DPE, Up, dpe, free_port, get

ACTION = "f1fef1fef1fef1fef1fef1fe"
# Of Flower's addresses: its style sheets, whether it lives, and what has nothing to tell.
OPEN = {"/static/x", "/healthcheck", "/login", "/logout", "/none/of/them"}


def open_to_all(url: str) -> set[str]:
    """Of all addresses that Flower serves, those that do not ask for the password."""
    found = set()
    for handler in handlers:
        pattern = handler[0] if isinstance(handler, tuple) else handler.matcher.regex.pattern
        path = "/none/of/them" if pattern == ".*" else re.sub(r"\(.*?\)", "x", pattern)
        path = path.rstrip("$").removesuffix("/?")
        answers = {get(url + path, method)[0] for method in ("GET", "POST")}
        found |= {path} if answers - {401, 405} else set()
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that the tests share; each leaves it running."""
    up = Up(tmp_path_factory.mktemp("up"), FLOWER_UNAUTHENTICATED_API="true").wait_until_up()
    yield up
    if up.process.poll() is None:
        up.end()


def test_flower_shows_names_and_ids_over_a_restart_and_changes_nothing(
    up: Up, tmp_path: Path
) -> None:
    flower = environment(up.home)["DPE_FLOWER_URL"]
    (tmp_path / "main.py").write_text("def customfunc(event): pass\n")
    (tmp_path / "forepaas.json").write_text('{"display_name": "Seen in Flower"}')
    assert up.run("action", "push", str(tmp_path), "--id", ACTION).returncode == 0
    done = up.run("start", "action", ACTION, "--wait", "--json")
    assert done.returncode == 0, done.stderr

    def seen() -> dict[str, str]:
        status, body = get(f"{flower}/api/tasks")
        tasks = json.loads(body) if status == 200 else {}
        return {id: task["name"] for id, task in tasks.items() if task["state"] == "SUCCESS"}

    def start_and_look() -> dict[str, str]:
        # Flower knows what happened while it looked: after its start that takes a moment.
        assert up.run("start", "action", ACTION).returncode == 0
        return seen()

    (first, *_) = until(start_and_look)
    assert seen()[first] == "Seen in Flower"
    assert [up.run("job", "show", first).returncode, up.run("job", "show", "0").returncode] == [
        0,
        1,
    ]
    status, body = get(f"{flower}/api/worker/shutdown/any", "POST")
    assert (status, body) == (403, "Read only mode is enabled")

    os.kill(up.role("flower")["pid"], signal.SIGTERM)
    until(lambda: get(f"{flower}/healthcheck")[0] == 0)
    until(lambda: get(f"{flower}/healthcheck")[0] == 200)
    assert seen()[first] == "Seen in Flower"


def test_flower_says_of_a_jobs_end_what_the_record_says(up: Up, tmp_path: Path) -> None:
    flower = environment(up.home)["DPE_FLOWER_URL"]
    (tmp_path / "main.py").write_text(
        "import os, time\n"
        "def customfunc(event):\n"
        "    if event.content == 'fail': raise ValueError('no')\n"
        "    if event.content == 'kill': os.kill(os.getpid(), 9)\n"
        "    time.sleep(60)\n"
    )
    config = {"display_name": "Ends", "params": {"timeout": "3s"}}
    (tmp_path / "forepaas.json").write_text(json.dumps(config))
    pushed = up.run("action", "push", str(tmp_path), "--json")
    id = json.loads(pushed.stdout)["id"]

    def start(content: str) -> str:
        done = up.run("start", "action", id, "--data", json.dumps(content), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["execution_id"]

    def states() -> dict[str, str]:
        status, body = get(f"{flower}/api/tasks")
        tasks = json.loads(body) if status == 200 else {}
        return {id: task["state"] for id, task in tasks.items()}

    failed, late, killer = start("fail"), start("wait"), start("kill")
    stopped = start("stop")
    assert up.run("job", "stop", stopped).returncode == 0
    expected = {failed: "FAILURE", late: "FAILURE", killer: "FAILURE", stopped: "REVOKED"}
    until(lambda: {id: states().get(id) for id in expected} == expected, 60)


def test_flower_shows_a_worker_online_during_a_long_job(up: Up, tmp_path: Path) -> None:
    flower = environment(up.home)["DPE_FLOWER_URL"]
    (tmp_path / "main.py").write_text(
        f"import pathlib, time\ndef customfunc(event):\n"
        f"    while not pathlib.Path({str(tmp_path / 'end')!r}).exists(): time.sleep(0.05)\n"
    )
    (tmp_path / "forepaas.json").write_text('{"display_name": "Long"}')
    id = json.loads(up.run("action", "push", str(tmp_path), "--json").stdout)["id"]
    started = json.loads(up.run("start", "action", id, "--json").stdout)["execution_id"]

    def shown() -> tuple[int, str]:
        status, body = get(f"{flower}/api/task/info/{started}")
        return status, json.loads(body)["state"] if status == 200 else body

    until(lambda: shown() == (200, "STARTED"), 30)  # while it runs, not when it is over
    began = time.monotonic()

    def all_online() -> bool:
        _, page = get(f"{flower}/workers?json=1")
        pid = up.role("worker")["pid"]  # earlier ones are shown for a minute, offline
        told = [w for w in json.loads(page)["data"] if f".{pid}@" in w["hostname"]]
        return bool(told) and all(worker["status"] for worker in told)

    until(lambda: time.monotonic() - began > 4.5, 8)  # two heartbeats would be missing by now
    assert all_online()
    (tmp_path / "end").touch()


def test_flower_shows_that_packages_are_being_built_and_then_that_it_started(
    up: Up, tmp_path: Path
) -> None:
    flower = environment(up.home)["DPE_FLOWER_URL"]
    packages, folder = tmp_path / "packages", tmp_path / "action"
    config = {"display_name": "Builds", "dependencies": {"python": {slow_package(packages): None}}}
    folder.mkdir()
    (folder / "forepaas.json").write_text(json.dumps(config))
    (folder / "main.py").write_text(
        f"import pathlib, time\ndef customfunc(event):\n"
        f"    while not pathlib.Path({str(folder / 'end')!r}).exists(): time.sleep(0.05)\n"
    )
    id = json.loads(up.run("action", "push", str(folder), "--json").stdout)["id"]
    job = json.loads(up.run("start", "action", id, "--json").stdout)["execution_id"]

    def states() -> tuple[str, str]:
        status, body = get(f"{flower}/api/task/info/{job}")
        shown = json.loads(up.run("job", "show", job, "--json").stdout)["status"]
        return shown, json.loads(body)["state"] if status == 200 else body

    until(lambda: states() == ("BUILDING", "BUILDING"), 30)
    listed = json.loads(up.run("job", "list", "--status", "building", "--json").stdout)
    assert [one["execution_id"] for one in listed] == [job]
    (packages / "go").touch()
    until(lambda: states() == ("PROCESSING", "STARTED"), 30)
    (folder / "end").touch()
    until(lambda: states() == ("SUCCESS", "SUCCESS"))


def test_flower_asks_for_the_password_and_does_not_show_it(tmp_path: Path, up: Up) -> None:
    port = free_port()
    own = {"DPE_FLOWER_PORT": str(port), "DPE_FLOWER_BASIC_AUTH": "me:s3cret"}
    broker = {"DPE_BROKER_URL": environment(up.home)["DPE_BROKER_URL"], "DPE_HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        flower = subprocess.Popen(
            [*DPE, "flower"], env=up.environ | broker | own, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{url}/healthcheck")[0] == 200)
        assert get(f"{url}/api/tasks")[0] == 401
        assert open_to_all(url) == OPEN
        wrong = base64.b64encode(b"me:s3cre").decode()
        assert get(f"{url}/api/tasks", Authorization=f"Basic {wrong}")[0] == 401
        right = base64.b64encode(b"me:s3cret").decode()
        assert get(f"{url}/metrics", Authorization=f"Basic {right}")[0] == 200
        assert get(f"{url}/api/tasks", Authorization=f"Basic {right}")[0] == 200
        assert "s3cret" not in " ".join(psutil.Process(flower.pid).cmdline())
    finally:
        flower.terminate()
        assert flower.wait(10) == 0


@pytest.mark.parametrize("command", ["flower", "up"])
def test_flower_does_not_stand_open_to_others(up: Up, tmp_path: Path, command: str) -> None:
    open_to_all = {"DPE_FLOWER_HOST": "0.0.0.0", "DPE_HOME": str(tmp_path), "DPE_BROKER_URL": ""}
    done = dpe(up.environ | open_to_all, command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "Flower on 0.0.0.0 needs DPE_FLOWER_BASIC_AUTH=user:password" in done.stderr
