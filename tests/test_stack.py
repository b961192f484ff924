"""`dpe up`: whatever dies comes back, whatever ends it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.stack_file import environment, processes
from tests.stack import until
from tests.up import Up, alive, free_port, get

ROLES = ["api", "flower", "postgres", "valkey", "worker"]


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
    (tmp_path / "granian.py").write_text("raise RuntimeError('there is no granian today')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    started.append(up := Up(tmp_path / "home", "--no-flower", PYTHONPATH=path))
    assert up.process.wait(30) == 1
    assert "api does not start (exit code 1): " in up.said()
    assert "there is no granian today" in up.said()
    assert processes(tmp_path / "home") == []


def test_servers_that_settings_name_are_not_started(tmp_path: Path, started: list[Up]) -> None:
    named = {name: os.environ[name] for name in ("DPE_DATABASE_URL", "DPE_BROKER_URL")}
    started.append(up := Up(tmp_path, "--no-flower", **named).wait_until_up())
    assert [p["role"] for p in processes(tmp_path)] == ["up", "api", "worker"]
    assert up.end() == 0
