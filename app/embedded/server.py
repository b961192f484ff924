"""What both embedded servers have in common."""

import contextlib
import hashlib
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import psutil

from app.child import Child, wait_for
from worker.errors import DpeError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LEFTOVER_TIMEOUT_S = 10.0


class ServerFailed(DpeError):
    """An embedded server does not start; the message holds the end of its log."""

    title = "An embedded server does not start"


class Server(Child):
    """What both have in common: a folder, a log, an earlier start to clear away, a first answer."""

    when_orphaned = signal.SIGTERM

    def __init__(self, home: Path, role: str) -> None:
        self.home = home.absolute()
        super().__init__(role, self.home / "log" / f"{role}.log")
        self.data = self.home / role
        # Stands in the title of each of its processes, where the next start finds it.
        self.tag = f"dpe-{hashlib.sha256(bytes(self.data)).hexdigest()[:16]}"

    def start(self) -> None:
        """Start it and wait until it answers; raises ServerFailed."""
        self.launch()
        if not wait_for(self.ready, START_TIMEOUT_S):
            self.fail(f"no answer within {START_TIMEOUT_S:g} s")

    def launch(self) -> None:
        """Start it, making what is missing, and don't wait; raises ServerFailed."""
        raise NotImplementedError

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in order; after `timeout_s` seconds kill it."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where it listens, credentials included; FileNotFoundError before its first start."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers; raises ServerFailed where it has ended."""
        if self.end_code is not None:
            self.fail(self.how_it_ended())
        return self._answers()

    def _answers(self) -> bool:
        raise NotImplementedError

    def fail(self, how: str) -> NoReturn:
        """Raise ServerFailed with the end of the log."""
        raise ServerFailed(f"{self.role}: {how}: {self.log_tail()}", f"its log: {self.log}")

    def end_leftovers(self) -> None:
        """End what an earlier start left working on this folder, or is just dying.

        A second server on the same files would destroy them.
        """
        for process in (left := self._leftovers()):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.ppid() not in {other.pid for other in left}:
                    process.send_signal(self.when_orphaned)
        if wait_for(lambda: not self._leftovers(), LEFTOVER_TIMEOUT_S):
            return
        for process in self._leftovers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not wait_for(lambda: not self._leftovers(), LEFTOVER_TIMEOUT_S):
            self.fail(f"processes of an earlier start do not end: {self._leftovers()}")

    def _leftovers(self) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if (words := process.info["cmdline"])
            and self.role in words[0]
            and any(self.tag in word for word in words)
        ]


def package_folder(name: str) -> Path:
    """Where a wheel is installed; raises ServerFailed."""
    # Looked up and not imported: the Postgres wheel's helper takes a lock on the whole machine.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ServerFailed(
            f"the package {name} is missing",
            "install open-dpe anew, or name servers with DPE_DATABASE_URL and DPE_BROKER_URL",
        )
    return Path(spec.origin).resolve().parent


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
