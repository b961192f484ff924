"""What tests do with the engine: push, start, wait; and real worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import psutil
import psycopg
from redis import Redis

from worker import broker
from worker.store import acceptance, actions, jobs
from worker.store.publishing import Message

T = TypeVar("T")


def until(what: Callable[[], T], timeout_s: float = 15.0, every_s: float = 0.02) -> T:
    """Wait for something true and return it; fail with the last value when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s; the last value: {value!r}"
        time.sleep(every_s)


@dataclass(slots=True)
class Worker:
    """One `dpe worker`, as a process group of its own."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 15) -> int:
        # A frozen process takes no signal but these.
        for process in [*self.children(), psutil.Process(self.pid)] if self.alive() else []:
            process.resume()
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def alive(self) -> bool:
        return self.process.poll() is None


def start_worker(children: int, **environ: str) -> Worker:
    """Start a worker and wait until its children are there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "worker"],
        env=os.environ | {"DPE_WORKERS": str(children)} | environ,
        start_new_session=True,
    )
    worker = Worker(process)
    until(lambda: len(worker.children()) == children)
    return worker


def message_of(job: jobs.Accepted) -> Message:
    """The message that the API sends for an accepted job."""
    return Message(job.execution_id, job.name, job.published_at, job.priority)


class Engine:
    """The engine's record and broker in a test's hands."""

    def __init__(self, conn: psycopg.Connection, broker_url: str) -> None:
        self.conn = conn
        self.redis = Redis.from_url(broker_url)
        self.redis.flushall()
        self.workers: list[Worker] = []

    def push(self, main: str, action_id: str | None = None, **files: Any) -> actions.Action:
        """Push an action; `config` is its forepaas.json, further words are modules."""
        config = {"function_name": "handle", "display_name": "Test"} | files.pop("config", {})
        sources = {"main.py": main.encode(), "forepaas.json": json.dumps(config).encode()}
        sources |= {f"{name}.py": text.encode() for name, text in files.items()}
        return actions.push(self.conn, action_id, sources)

    def accept(
        self, action: actions.Action, content: Any = None, *, in_line: bool = False
    ) -> jobs.Accepted:
        """Accept a start and not publish it, as an API that dies in between."""
        start = jobs.Start(action.id, json.dumps(content), in_line=in_line)
        accepted = acceptance.accept(self.conn, start)
        assert accepted is not None
        return accepted

    def start(self, action: actions.Action, content: Any = None) -> UUID:
        accepted = self.accept(action, content)
        broker.publish([message_of(accepted)])
        return accepted.execution_id

    def job(self, execution_id: UUID) -> jobs.Job:
        job = jobs.get(self.conn, execution_id)
        assert job is not None
        return job

    def ended(self, execution_id: UUID, timeout_s: float = 15.0) -> jobs.Job:
        until(lambda: self.job(execution_id).ended, timeout_s)
        return self.job(execution_id)

    def running(self, execution_id: UUID) -> jobs.Job:
        until(lambda: self.job(execution_id).status == "PROCESSING")
        return self.job(execution_id)

    def run(self, action: actions.Action, content: Any = None) -> jobs.Job:
        return self.ended(self.start(action, content))

    def log(self, execution_id: UUID) -> list[dict[str, str]]:
        parts = jobs.log_parts(self.conn, execution_id)
        return [line for _, _, lines in parts for line in json.loads(lines)]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(query.encode()).fetchall()

    def worker(self, children: int = 2, **environ: str) -> Worker:
        """Start a worker and wait until it beats."""
        worker = start_worker(children, **environ)
        self.workers.append(worker)
        known = "SELECT count(*) FROM dpe.workers WHERE pid = %s"
        until(lambda: self.conn.execute(known.encode(), [worker.pid]).fetchone() == (1,))
        return worker

    def end(self) -> None:
        for worker in self.workers:
            if worker.alive():
                worker.end()
        self.redis.close()
