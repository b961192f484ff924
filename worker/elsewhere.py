"""A job that needs another Python: this child keeps the claim, a process of its own runs it.

The process is the child's, and ends with it: stop, timeout, a kill, a worker that shuts down take
the one they know, and the kernel takes the other.  Should that come late, the fence holds, as for
any process that lost its claim.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from worker import environment_upkeep, environments
from worker.child import Child
from worker.logs import NOTICE, JobLog
from worker.store import building
from worker.store.claims import Claim

logger = logging.getLogger("worker.elsewhere")

SHOW_S = 0.5  # for the process to write down where it is
# What a claim was made with; the connection is its process' own.
FIELDS = [f.name for f in fields(Claim) if f.default is f.default_factory and f.name != "conn"]


@dataclass(slots=True)
class _Inside:
    """The process that runs this child's jobs of one environment, one after the other."""

    requirements: tuple[str, ...]
    made: int  # which making of the environment it has
    process: subprocess.Popen[bytes]


_inside: _Inside | None = None  # one at a time: each has the memory of a child


def carry_out(
    this: Child, job: Claim, requirements: tuple[str, ...], log: JobLog
) -> tuple[str | None, str]:
    """Run the attempt where these packages are; return its end (None: lost) and its error.

    Raises EnvironmentFailed, or ClaimLost where the job was stopped while they were installed.
    """
    if not environments.place(requirements).exists():
        _build(this, job, requirements, log)
    with environments.used(requirements):
        return _ask(this, job, requirements, log)


def _ask(
    this: Child, job: Claim, requirements: tuple[str, ...], log: JobLog
) -> tuple[str | None, str]:
    log.flush_live()
    part, _ = log.last_part()
    process = _start(this, requirements)
    asked = {name: getattr(job, name) for name in FIELDS} | {"part": part}
    try:
        assert process.stdin is not None  # noqa: S101 -- both are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(json.dumps(asked, default=str).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        # Its claim stays without a process: the supervisor puts the job back in line.
        logger.warning("the process of job %s ended", job.execution_id)
        end()
        return None, ""
    answer = orjson.loads(line)
    if answer["worn"]:
        end()
    return answer["status"], answer["error"]


def _build(this: Child, job: Claim, requirements: tuple[str, ...], log: JobLog) -> None:
    record, _ = this.connections()
    building.begin(record, job)
    this.events.building()
    log.add(NOTICE, "dpe", f'"{job.name}" BUILDING with {", ".join(requirements)}')
    log.flush_live()
    environment_upkeep.sweep()
    environments.build(requirements)
    record, _ = this.connections()
    building.end(record, job)
    this.events.built()


def _start(this: Child, requirements: tuple[str, ...]) -> subprocess.Popen[bytes]:
    global _inside  # noqa: PLW0603 -- a child has one at most
    if (
        _inside is not None
        and _inside.requirements == requirements
        and _inside.made == environments.made(requirements)
        and _inside.process.poll() is None
    ):
        return _inside.process
    end()
    words, environ = environments.command(requirements, "worker.inside")
    process = subprocess.Popen(  # noqa: S603 -- our own module
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    assert process.stdin is not None  # noqa: S101 -- a pipe
    process.stdin.write(orjson.dumps(_hello(this, requirements)) + b"\n")
    _inside = _Inside(requirements, environments.made(requirements), process)
    return process


def _hello(this: Child, requirements: tuple[str, ...]) -> dict[str, Any]:
    return {
        "parent": os.getpid(),
        "worker_id": this.worker_id,
        "folder": str(Path(this.folder)),
        "requirements": requirements,
    }


def end() -> None:
    """End this child's other process, where it has one."""
    global _inside  # noqa: PLW0603
    if _inside is not None:
        _inside.process.kill()
        _inside.process.communicate()
        _inside = None


def show_where() -> None:
    """Have the other process note in the job's log where its handler is, and end."""
    if _inside is not None:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            _inside.process.send_signal(signal.SIGUSR1)
            _inside.process.wait(SHOW_S)
