"""A shell in which `dpe` is typed, each command a process, and a `dpe up` beside it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.stack import until

ROOT = Path(__file__).resolve().parents[2]
DPE = str(Path(sys.executable).parent / "dpe")


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """A shell in which `dpe` is typed; nothing of the tests' own environment is in it."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def full_environ(self, **environ: str) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("DPE_")}
        return own | {"DPE_HOME": str(self.home)} | self.environ | environ

    def run(self, *words: str | Path, stdin: str = "", **environ: str) -> Ended:
        done = subprocess.run(
            [DPE, *map(str, words)],
            check=False,
            env=self.full_environ(**environ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str | Path, stdin: str = "", **environ: str) -> Ended:
        ended = self.run(*words, stdin=stdin, **environ)
        assert ended.code == 0, ended
        return ended

    def fails(self, *words: str | Path, code: int = 1, **environ: str) -> str:
        """Run what must fail: nothing on stdout, one line on stderr, which is returned."""
        ended = self.run(*words, **environ)
        assert (ended.code, ended.out) == (code, ""), ended
        assert ended.err.startswith("dpe: ")
        assert ended.err.count("\n") == 1, ended.err
        return ended.err


def start_stack(shell: Shell, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """`dpe up` until /ready says yes; returns it and the API's address."""
    port = free_port()
    log = shell.home / "up.log"
    with log.open("wb") as out:
        up = subprocess.Popen(
            [DPE, "up", "--port", str(port), *words],
            env=shell.full_environ(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert up.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    until(ready, 60)
    return up, url


def end_stack(up: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, as a terminal sends it: to the whole group."""
    os.killpg(up.pid, signal.SIGINT)
    assert up.wait(30) in {0, 130}
    until(lambda: not _of_group(up.pid), 5)


def _of_group(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
