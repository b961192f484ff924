"""What `dpe up` leaves for others to see, and what its demo shows."""

import http.client
import shlex
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.cli.shell import DPE, Shell, end_stack, start_stack
from tests.stack import until


def test_env_lines_make_a_shell_know_the_stack(shell: Shell, tmp_path: Path) -> None:
    left = shell.ok("env", "--json").data
    lines = shell.ok("env").out
    assert {"DPE_DATABASE_URL", "DPE_BROKER_URL", "DPE_URL", "DPE_APIKEY", "DPE_SECRETKEY"} <= set(
        left
    )
    # The lines alone are enough: another folder, an empty DPE_HOME.
    script = f"{lines}\nexport DPE_HOME={shlex.quote(str(tmp_path))}\n{shlex.quote(DPE)} token"
    done = subprocess.run(
        ["sh", "-c", script],
        env=shell.full_environ(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) == 1


def test_ps_lists_the_roles_and_the_workers_children(shell: Shell) -> None:
    def roles() -> list[str]:
        return [process["role"] for process in shell.ok("ps", "--json").data]

    until(lambda: roles().count("worker child") == 2)  # forked a moment after the stack is up
    found = shell.ok("ps", "--json").data
    assert {"up", "postgres", "valkey", "api", "worker"} <= set(roles()), found
    assert all(psutil.pid_exists(process["pid"]) for process in found)
    assert all(process["since"].startswith("20") for process in found)
    (worker,) = [process for process in found if process["role"] == "worker"]
    assert (worker["state"], worker["running"]) == ("idle", 0)
    assert "LAST PROGRESS" in shell.ok("ps").out


def test_migrate_has_nothing_left_to_do(shell: Shell) -> None:
    assert shell.ok("migrate", "--json").data == {"made": [], "applied": []}


@pytest.mark.slow
def test_a_callers_open_connection_does_not_hold_up_the_end(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    up, url = start_stack(shell, "--no-flower", "--workers", "1")
    caller = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        caller.request("GET", "/health")
        assert caller.getresponse().read()
    finally:
        end_stack(up)
        caller.close()
    assert "killed" not in (shell.home / "up.log").read_text()


@pytest.mark.slow
def test_the_demo_shows_five_rows_and_finds_them_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for count, key in ((5, "secretkey"), (10, "from a run before")):
        up, url = start_stack(shell, "--demo", "--no-flower", "--workers", "1")
        try:
            text = until(lambda: _demo_told(shell.home / "up.log"), 30)
        finally:
            end_stack(up)
        assert f"now has {count} rows" in text
        assert key in text
        assert "90071992547409931" in text
        assert "SUCCESS" in text
        assert f"{url}/dpe/v3/actions/" in text.partition("Now you")[2]


def _demo_told(log: Path) -> str:
    text = log.read_text()
    assert "broke off" not in text, text
    return text if "Ctrl-C; the data stay" in text else ""
