"""`dpe ps`: which processes of the stack are alive, and whether its workers make progress."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from app.stack_file import environment, processes
from worker.errors import DpeError
from worker.settings import Settings

NOTED_WITHIN_S = 30.0  # of the start that the kernel knows; a loaded machine takes its time


def running(home: Path) -> list[dict[str, Any]]:
    """The living processes of the stack under `home`: role, pid, since (ISO 8601, UTC).

    A worker's has its state (see `WorkerState`), the jobs that it runs, and its last progress.
    """
    found: list[dict[str, Any]] = []
    progress = _progress(home)
    for noted in processes(home):
        try:
            process = psutil.Process(noted["pid"])
            if not _is_the_one(process, noted["since"]):
                continue
            one = {"role": noted["role"], "pid": process.pid, "since": _since(process)}
            found.append(one | progress.get(process.pid, {}))
            if noted["role"] in {"api", "worker"}:
                found += [
                    {"role": f"{noted['role']} child", "pid": child.pid, "since": _since(child)}
                    for child in process.children()
                ]
        except psutil.NoSuchProcess:
            continue
    return found


def _progress(home: Path) -> dict[int, dict[str, Any]]:
    """What Postgres knows of this host's workers, by pid; empty where it does not answer."""
    import psycopg  # noqa: PLC0415 -- the other commands start quicker without it

    from worker.store import workers  # noqa: PLC0415
    from worker.store.database import connect  # noqa: PLC0415

    settings = Settings.from_environ(environment(home) | os.environ)
    try:
        with connect(settings.database(), "dpe-ps") as conn:
            found = workers.states(conn, settings.heartbeat_timeout_s, socket.gethostname())
    except (psycopg.Error, DpeError):
        return {}
    return {
        worker.pid: {
            "state": worker.state,
            "running": worker.running,
            "progress_at": _iso(worker.progress_at),
        }
        for worker in found
    }


def _is_the_one(process: psutil.Process, since: str) -> bool:
    # A pid is given again after its process has ended; a role notes its start just before.
    started = datetime.fromisoformat(since).timestamp()
    alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return alive and abs(process.create_time() - started) < NOTED_WITHIN_S


def _since(process: psutil.Process) -> str:
    return _iso(datetime.fromtimestamp(process.create_time(), UTC))


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
