"""`dpe up`: whatever dies comes back, whatever ends it leaves nothing behind."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest

from app.stack_file import environment, processes
from tests.stack import until

DPE = [sys.executable, "-m", "app.cli"]
ACTION = "f1fef1fef1fef1fef1fef1fe"
ROLES = ["api", "flower", "postgres", "valkey", "worker"]


class Up:
    """One `dpe up` in a process of its own, as a terminal starts it."""

    def __init__(self, home: Path, *words: str, **environ: str) -> None:
        self.home, self.port = home, free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DPE_")}
        defaults = {"DPE_HOME": str(home), "DPE_PORT": str(self.port), "DPE_WORKERS": "1"}
        self.environ = kept | defaults | {"DPE_FLOWER_PORT": str(free_port())} | environ
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*DPE, "up", *words], env=self.environ, stdout=log, stderr=log
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_up(self) -> "Up":
        until(lambda: self.process.poll() is not None or "is up" in self.said(), 60)
        assert self.process.poll() is None, self.said()
        return self

    def role(self, name: str) -> dict[str, Any]:
        return next((p for p in processes(self.home) if p["role"] == name), {})

    def pids(self) -> list[int]:
        """Of the stack and of all that they started."""
        mine = [psutil.Process(self.process.pid)]
        return [p.pid for p in (*mine, *mine[0].children(recursive=True))]

    def ready(self) -> bool:
        status, body = get(f"http://127.0.0.1:{self.port}/ready")
        return status == 200 and json.loads(body)["workers"] > 0

    def end(self, number: int = signal.SIGINT, timeout_s: float = 20) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return dpe(self.environ, *words)


def dpe(environ: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*DPE, *words], check=False, env=environ, capture_output=True, text=True, timeout=60
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (OSError, HTTPException):
        return 0, ""


def alive(pids: list[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that the tests share; each leaves it running."""
    up = Up(tmp_path_factory.mktemp("up"), FLOWER_UNAUTHENTICATED_API="true").wait_until_up()
    yield up
    if up.process.poll() is None:
        up.end()


@pytest.fixture
def started() -> Iterator[list[Up]]:
    """Whatever a test puts in here is ended with it."""
    stacks: list[Up] = []
    yield stacks
    for stack in stacks:
        if stack.process.poll() is None:
            stack.process.kill()
            stack.process.wait()


@pytest.mark.parametrize("role", ROLES)
def test_what_is_killed_comes_back_at_its_address(up: Up, role: str) -> None:
    before = until(lambda: up.role(role))
    os.kill(before["pid"], signal.SIGKILL)
    after = until(lambda: up.role(role).get("pid") not in {None, before["pid"]} and up.role(role))
    assert after["address"] == before["address"]
    assert after["restarts"] == before["restarts"] + 1
    until(up.ready)
    assert f"{role}  died (killed by SIGKILL)" in up.said()


def test_a_second_one_in_the_same_home_is_told_of_the_first(up: Up) -> None:
    second = up.run("up", "--port", str(free_port()))
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"a stack is up in {up.home} already, pid {up.process.pid}" in second.stderr
    assert up.ready()


def test_what_others_need_to_know_is_written_for_the_owner_alone(up: Up) -> None:
    names = {"HOME", "DATABASE_URL", "BROKER_URL", "URL", "FLOWER_URL", "APIKEY", "SECRETKEY"}
    assert set(environment(up.home)) == {f"DPE_{name}" for name in names}
    assert environment(up.home)["DPE_URL"] == f"http://127.0.0.1:{up.port}"
    for name in ("stack.json", "credentials.json"):
        assert not (up.home / name).stat().st_mode & 0o077


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
    until(lambda: {id: states().get(id) for id in expected} == expected, 20)


def test_flower_shows_a_worker_online_during_a_long_job(up: Up, tmp_path: Path) -> None:
    flower = environment(up.home)["DPE_FLOWER_URL"]
    (tmp_path / "main.py").write_text("import time\ndef customfunc(event): time.sleep(7)\n")
    (tmp_path / "forepaas.json").write_text('{"display_name": "Long"}')
    id = json.loads(up.run("action", "push", str(tmp_path), "--json").stdout)["id"]
    began = time.monotonic()
    up.run("start", "action", id)

    def all_online() -> bool:
        _, page = get(f"{flower}/workers?json=1")
        pid = up.role("worker")["pid"]  # earlier ones are shown for a minute, offline
        told = [w for w in json.loads(page)["data"] if f".{pid}@" in w["hostname"]]
        return bool(told) and all(worker["status"] for worker in told)

    until(lambda: time.monotonic() - began > 5.5, 8)  # two heartbeats would be missing by now
    assert all_online()


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
        right = base64.b64encode(b"me:s3cret").decode()
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


def test_a_taken_port_is_named_for_the_api_and_avoided_for_flower(
    tmp_path: Path, started: list[Up]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started.append(Up(tmp_path, DPE_PORT=str(port)))
        assert started[-1].process.wait(20) == 1
        assert started[-1].said().count("\n") == 1
        assert f"port {port} is taken" in started[-1].said()
        assert "dpe up --port N" in started[-1].said()
        assert not (tmp_path / "postgres").exists()

        started.append(Up(tmp_path, DPE_FLOWER_PORT=str(port)).wait_until_up())
        address = environment(tmp_path)["DPE_FLOWER_URL"]
        assert f"port {port} is taken: {address.rpartition(':')[2]} serves" in started[-1].said()
        until(lambda: get(f"{address}/healthcheck")[0] == 200)
        assert started[-1].end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_in_order_and_leaves_nothing(
    tmp_path: Path, started: list[Up], number: int
) -> None:
    started.append(up := Up(tmp_path, "--no-flower").wait_until_up())
    pids, broker = up.pids(), up.role("valkey")["address"].split(":")
    assert len(pids) > 4
    began = time.monotonic()
    assert up.end(number) == 0
    assert time.monotonic() - began < 10
    assert not alive(pids)
    assert processes(tmp_path) == []
    for port in (up.port, int(broker[1])):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
    assert "killed" not in up.said()


def test_killed_it_leaves_nothing_and_starts_again_on_its_data(
    tmp_path: Path, started: list[Up]
) -> None:
    started.append(up := Up(tmp_path, "--no-flower").wait_until_up())
    pids, key = up.pids(), environment(tmp_path)["DPE_APIKEY"]
    up.end(signal.SIGKILL)
    started.append(again := Up(tmp_path, "--no-flower", DPE_PORT=str(up.port)).wait_until_up())
    until(lambda: not alive(pids))
    assert environment(tmp_path)["DPE_APIKEY"] == key
    assert again.run("action", "list").returncode == 0
    assert again.end() == 0


def test_told_again_it_waits_for_nobody(tmp_path: Path, started: list[Up]) -> None:
    up = Up(tmp_path, "--no-flower", DPE_SHUTDOWN_GRACE_S="60").wait_until_up()
    started.append(up)
    pids = up.pids()
    os.kill(up.role("worker")["pid"], signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    until(lambda: not alive([up.role("api")["pid"]]))
    with pytest.raises(subprocess.TimeoutExpired):
        up.process.wait(0.5)
    assert up.end(timeout_s=5) == 0
    until(lambda: not alive(pids), 5)


@pytest.mark.parametrize("after", ["makes its data folder", "postgres  /", "applied"])
def test_told_while_it_starts_it_ends_in_order(
    tmp_path: Path, started: list[Up], after: str
) -> None:
    started.append(up := Up(tmp_path, "--no-flower"))
    until(lambda: after in up.said(), every_s=0.001)
    pids = up.pids()
    assert up.end() == 0
    assert not alive(pids)
    assert "is up" not in up.said()


def test_a_role_that_does_not_start_says_why(tmp_path: Path, started: list[Up]) -> None:
    (tmp_path / "gunicorn.py").write_text("raise RuntimeError('there is no gunicorn today')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    started.append(up := Up(tmp_path / "home", "--no-flower", PYTHONPATH=path))
    assert up.process.wait(30) == 1
    assert "api does not start (exit code 1): " in up.said()
    assert "there is no gunicorn today" in up.said()
    assert processes(tmp_path / "home") == []


def test_servers_that_settings_name_are_not_started(tmp_path: Path, started: list[Up]) -> None:
    named = {name: os.environ[name] for name in ("DPE_DATABASE_URL", "DPE_BROKER_URL")}
    started.append(up := Up(tmp_path, "--no-flower", **named).wait_until_up())
    assert [p["role"] for p in processes(tmp_path)] == ["up", "api", "worker"]
    assert up.end() == 0
