"""`dpe up` in a test's hands, and HTTP without any of the engine's code."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil

from app.stack_file import processes
from tests.stack import until

DPE = [sys.executable, "-m", "app.cli"]


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
