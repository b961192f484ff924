"""The engine's own processes under `dpe up`: each one is `dpe ROLE`, with a log of its own."""

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from errno import EADDRINUSE
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from app import stack_file
from app.child import Child, wait_for
from app.forked import fork
from worker.errors import DpeError
from worker.settings import Settings

ROLES = {"api", "worker", "flower"}
SHARED = ("app.server", "worker.broker")  # what several roles load: here once for all of them
ANSWER_TIMEOUT_S = 2.0
LEFTOVER_TIMEOUT_S = 3.0
NOTED_WITHIN_S = 5.0  # of the start that the kernel knows
PORTS_TRIED = 50
HTTP_OK = 200


class PortTaken(DpeError):
    """Somebody else listens where the API is to listen."""


class Role(Child):
    """`dpe api`, `dpe worker` or `dpe flower`."""

    when_orphaned = signal.SIGTERM

    def __init__(self, role: str, address: str, environ: Mapping[str, str], logs: Path) -> None:
        super().__init__(role, logs / f"{role}.log")
        self.address = address
        self._environ = environ

    def launch(self) -> None:
        """Start it and don't wait."""
        if sys.platform == "linux":  # elsewhere a library may not bear a fork
            self._fork()
            return
        # -P: modules of the folder that `dpe up` was typed in must not pass for the engine's own.
        command = [sys.executable, "-P", "-m", "app.cli", self.role]
        self.spawn(command, self._environ, when_orphaned=self.when_orphaned)

    def _fork(self) -> None:
        for name in SHARED:
            with contextlib.suppress(Exception):  # the role will fail to load it, and say so
                import_module(name)
        from app.cli import main  # noqa: PLC0415

        def run() -> None:
            sys.argv = ["dpe", self.role]
            main()

        with self._open_log() as log:
            self.since = datetime.now(UTC)
            title = f"dpe {self.role}"
            self.process = fork(run, title, self._environ, log.fileno(), self.when_orphaned)


def is_ready(settings: Settings) -> bool:
    """Whether the API accepts starts and a worker is there to run them."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    conn = http.client.HTTPConnection(host, settings.port, timeout=ANSWER_TIMEOUT_S)
    try:
        conn.request("GET", "/ready")
        answer = conn.getresponse()
        state: dict[str, Any] = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        conn.close()
    return answer.status == HTTP_OK and bool(state.get("workers"))


def check_port(settings: Settings) -> None:
    """Raise PortTaken where the API can't listen."""
    where = f"{settings.host}:{settings.port}"
    error = _bind_error(settings.host, settings.port)
    if error is None:
        return
    if error.errno == EADDRINUSE:
        hint = "choose another: `dpe up --port N`, or DPE_PORT=N"
        raise PortTaken(f"port {settings.port} is taken: the API can't listen on {where}", hint)
    raise PortTaken(f"the API can't listen on {where}: {error.strerror}", "see DPE_HOST, DPE_PORT")


def free_port(host: str, wish: int) -> int:
    """The port wished for, or the next one that is free."""
    for port in range(wish, min(wish + PORTS_TRIED, 65536)):
        if _bind_error(host, port) is None:
            return port
    raise PortTaken(
        f"Flower finds no free port on {host} from {wish} up", "set DPE_FLOWER_PORT, or --no-flower"
    )


def end_leftovers(home: Path) -> None:
    """End the roles of a `dpe up` that was killed and that live on, or are just dying."""
    left = _leftovers(home)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    if wait_for(lambda: not any(map(_lives, left)), LEFTOVER_TIMEOUT_S):
        return
    for process in filter(_lives, left):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(_lives, left)), LEFTOVER_TIMEOUT_S)


def _leftovers(home: Path) -> list[psutil.Process]:
    noted = []
    with contextlib.suppress(DpeError):  # a damaged file: it is written anew
        noted = stack_file.processes(home)
    found = []
    for entry in noted:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(entry["pid"])
            off_s = process.create_time() - datetime.fromisoformat(entry["since"]).timestamp()
            # A pid is given again after its process has ended.
            if entry["role"] in ROLES and abs(off_s) < NOTED_WITHIN_S and _lives(process):
                found.append(process)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _bind_error(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None
