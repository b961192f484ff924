"""A child process: in a group of its own, with a log file, ended by the kernel when we are gone."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from worker.die_with_parent import die_with_parent

MAX_LOG_BYTES = 20_000_000  # then a start begins a new log, and keeps the old one as `.old`
LOG_TAIL_BYTES = 2000
LOG_TAIL_LINES = 4
POLL_S = 0.02


class Process(Protocol):
    """What is asked of a running process, by `subprocess.Popen` and others."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


class Child:
    """One process at a time, that can be spawned again after its end.

    Spawn it from the main thread: the kernel takes the end of the *thread* that spawned a process
    for the end of its parent (PR_SET_PDEATHSIG in prctl(2)).
    """

    def __init__(self, role: str, log: Path) -> None:
        self.role = role
        self.log = log
        self.since = datetime.now(UTC)
        self.process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process and self.process.poll() is None else None

    @property
    def end_code(self) -> int | None:
        """Exit code, or minus the signal's number; None while it runs or before its first start."""
        return self.process.poll() if self.process else None

    def how_it_ended(self) -> str:
        """`exit code 1`, `killed by SIGKILL`, for people."""
        code = self.end_code or 0
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    def spawn(
        self,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        *,
        as_user: Mapping[str, Any] | None = None,
        when_orphaned: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start it; `as_user` are Popen's `user`, `group`, `extra_groups`; raises OSError."""
        with self._open_log() as log:
            self.since = datetime.now(UTC)
            self.process = subprocess.Popen[bytes](
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C in the terminal is for us, who end all in order
                # After the change of user, which would clear it.
                preexec_fn=die_with_parent(when_orphaned),
                **(as_user or {}),
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal where it still runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def ended_within(self, timeout_s: float) -> bool:
        """Wait for its end; False where it still runs after `timeout_s` seconds."""
        if self.process is None:
            return True
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End the process at once, as a crash would, and no other of its group."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def kill_group(self) -> None:
        """End at once whatever lives of its group: the process, and what it left behind."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def log_tail(self) -> str:
        """The log's last words, in one line."""
        if not self.log.exists():
            return "it said nothing"
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-LOG_TAIL_LINES:]) or "it said nothing"

    def _open_log(self) -> Any:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old"))
        return self.log.open("ab")


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
