"""Following one job from outside: the statuses it passes through, and its log as it grows."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

import click

from app import terminal
from app.client import Client
from worker.errors import DpeError

ENDED = {"SUCCESS", "FAILED", "TIMEOUT", "STOPPED"}
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5


class Unfinished(DpeError):
    """A job took longer than somebody was ready to wait; it goes on."""

    hint = "does the worker run? `dpe ps`, and its log: DPE_HOME/log/worker.log"


def status_changes(
    client: Client, execution_id: str, limit_s: float = math.inf
) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Yield (status, seconds since it was accepted, the job) as the job goes, until it has ended.

    Times are the engine's own, so that a status that passed between two looks is told as well.
    Raises Unfinished where `limit_s` seconds were not enough.
    """
    deadline = time.monotonic() + limit_s
    told: set[tuple[str, str]] = set()
    pause = FIRST_PAUSE_S
    while True:
        job = client.get(f"/dpe/v3/jobs/{execution_id}").data
        for status, at in _passed(job):
            if (status, at) not in told:
                told.add((status, at))
                yield status, _seconds_between(job["submitted_at"], at), job
                pause = FIRST_PAUSE_S
        if job["status"] in ENDED:
            return
        if time.monotonic() > deadline:
            raise Unfinished(f"job {execution_id} is still {job['status']} after {limit_s:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_S)


def _passed(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    waiting = "SUBMITTED" if job["status"] == "SUBMITTED" else "QUEUED"
    yield waiting, job["submitted_at"]
    if job.get("started_at"):
        # Its time begins anew when its packages are there.
        building = job["status"] == "BUILDING"
        yield "BUILDING" if building else "PROCESSING", job["started_at"]
    if job.get("ended_at"):
        yield job["status"], job["ended_at"]


def _seconds_between(first: str, last: str) -> float:
    gap = datetime.fromisoformat(last) - datetime.fromisoformat(first)
    return max(gap.total_seconds(), 0.0)


def wait_for(client: Client, execution_id: str, *, quiet: bool) -> dict[str, Any]:
    """Follow a job to its end, telling each status on stderr unless quiet; return the job."""
    job: dict[str, Any] = {}
    with _spinner(quiet) as show:
        for status, elapsed_s, job in status_changes(client, execution_id):  # noqa: B007
            if not quiet:
                show(f"{elapsed_s:9.3f} s  {status}")
    return job


def _spinner(quiet: bool) -> AbstractContextManager[Callable[[str], None]]:
    """A way to print lines, with a moving sign below them where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        return nullcontext(terminal.note)
    return _Moving()


class _Moving(AbstractContextManager[Callable[[str], None]]):
    def __enter__(self) -> Callable[[str], None]:
        from rich.console import Console  # noqa: PLC0415

        console = Console(stderr=True, highlight=False)
        self._status = console.status("waiting for the job's end (Ctrl-C: it runs on)")
        self._status.start()
        return console.print

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def end_with(job: dict[str, Any]) -> None:
    """Leave with exit code 1, and the job's error in a line, where it did not succeed."""
    if job["status"] == "SUCCESS":
        return
    error = job.get("error") or {}
    words = f"{error.get('type')}: {error.get('message')}" if error else "no error is recorded"
    terminal.fail(
        f"job {job['execution_id']} ended {job['status']}: {words}",
        f"dpe job logs {job['execution_id']}",
    )
    raise click.exceptions.Exit(1)


def log_lines(client: Client, execution_id: str, *, follow: bool) -> Iterator[dict[str, Any]]:
    """The lines of a job's log in order; with `follow`, as they come, until the job has ended."""
    after: str | None = None
    pause = LONGEST_PAUSE_S / 2
    while True:
        # Asked before the log: lines of a job that has ended are all stored.
        ended = not follow or _has_ended(client, execution_id)
        while True:
            answer = client.get(f"/dpe/v3/jobs/{execution_id}/logs", after=after)
            yield from answer.data
            after = answer.headers.get("x-next-after", after)
            if not answer.data:
                break
        if ended:
            return
        time.sleep(pause)


def _has_ended(client: Client, execution_id: str) -> bool:
    return client.get(f"/dpe/v3/jobs/{execution_id}").data["status"] in ENDED
