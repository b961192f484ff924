"""Liveness is progress: what is said of workers that run, wait, hang, or are gone."""

import os
import signal
import socket

import pytest

from tests.stack import Engine, Worker, until
from worker.store import workers

SLEEPS = "import time\ndef handle(event): time.sleep(event.content)"


def state(engine: Engine, worker: Worker) -> str:
    found = workers.states(engine.conn, silent_s=2)
    return next(one.state for one in found if one.pid == worker.pid)


def test_a_worker_is_idle_or_busy(engine: Engine) -> None:
    worker = engine.worker()
    assert state(engine, worker) == "idle"
    engine.running(engine.start(engine.push(SLEEPS), 30))
    assert state(engine, worker) == "busy"


def test_a_frozen_worker_is_silent_until_it_wakes_up(engine: Engine) -> None:
    worker = engine.worker()
    os.kill(worker.pid, signal.SIGSTOP)
    until(lambda: state(engine, worker) == "silent")
    os.kill(worker.pid, signal.SIGCONT)
    until(lambda: state(engine, worker) == "idle")


def test_a_worker_that_takes_nothing_though_jobs_wait_is_stuck(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STUCK_S", 1.0)
    with socket.socket() as nobody:  # bound, and never listens
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        worker = engine.worker(DPE_BROKER_URL=f"redis://127.0.0.1:{port}/0")
        engine.start(engine.push(SLEEPS), 0)
        until(lambda: state(engine, worker) == "stuck")
        host = socket.gethostname()
        until(lambda: "jobs wait" in (workers.unhealthy(engine.conn, host, 2) or ""))
