"""`dpe ps`: which processes of the stack are alive, the worker's children among them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from app.stack_file import processes

NOTED_WITHIN_S = 30.0  # of the start that the kernel knows; a loaded machine takes its time


def running(home: Path) -> list[dict[str, Any]]:
    """The living processes of the stack under `home`: role, pid, since (ISO 8601, UTC)."""
    found: list[dict[str, Any]] = []
    for noted in processes(home):
        try:
            process = psutil.Process(noted["pid"])
            if not _is_the_one(process, noted["since"]):
                continue
            found.append({"role": noted["role"], "pid": process.pid, "since": _since(process)})
            if noted["role"] in {"api", "worker"}:
                found += [
                    {"role": f"{noted['role']} child", "pid": child.pid, "since": _since(child)}
                    for child in process.children()
                ]
        except psutil.NoSuchProcess:
            continue
    return found


def _is_the_one(process: psutil.Process, since: str) -> bool:
    # A pid is given again after its process has ended; a role notes its start just before.
    started = datetime.fromisoformat(since).timestamp()
    alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return alive and abs(process.create_time() - started) < NOTED_WITHIN_S


def _since(process: psutil.Process) -> str:
    at = datetime.fromtimestamp(process.create_time(), UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
