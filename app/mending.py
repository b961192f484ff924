"""Starting a process again when it has died, later each time that it does not last."""

import sys
import time
from dataclasses import dataclass
from typing import Any

import click

from app.embedded.server import Server
from app.roles import Role
from worker.errors import DpeError

BACKOFF_S, MAX_BACKOFF_S = 0.2, 10.0
STEADY_S = 10.0  # a process that lived so long is not in a crash loop


@dataclass(slots=True)
class Mended:
    """One process of the stack, and how often it had to be started again."""

    child: Server | Role
    restarts: int = 0
    backoff_s: float = BACKOFF_S
    start_at: float | None = None  # of time.monotonic(); None: it runs
    born: float = 0.0

    def launch(self) -> None:
        """Start it; raises what its start raises."""
        self.start_at, self.born = None, time.monotonic()
        self.child.launch()

    def mend(self) -> bool:
        """See whether it has died, start it again when it is time; return whether all is as it was
        not before.
        """
        if self.child.pid is not None:
            return False
        now = time.monotonic()
        if self.start_at is None:
            self._note_death(now)
            return True
        if now < self.start_at:
            return False
        self.restarts += 1
        try:
            self.launch()
        except (DpeError, OSError) as error:
            say(self.child.role, f"can't be started: {error}", bad=True)
        return True

    def due_in_s(self) -> float:
        """Seconds until `mend` has something to do, as far as is known."""
        return float("inf") if self.start_at is None else max(0.0, self.start_at - time.monotonic())

    def entry(self) -> dict[str, Any]:
        """What others may know of it."""
        return {
            "role": self.child.role,
            "pid": self.child.pid,
            "since": self.child.since.isoformat(),
            "address": self.child.address,
            "restarts": self.restarts,
        }

    def _note_death(self, now: float) -> None:
        if now - self.born > STEADY_S:
            self.backoff_s = BACKOFF_S
        wait_s, self.backoff_s = self.backoff_s, min(self.backoff_s * 2, MAX_BACKOFF_S)
        self.start_at = now + wait_s
        words = f"died ({self.child.how_it_ended()}), starts again in {wait_s:.1f} s"
        say(self.child.role, f"{words}; its log: {self.child.log}", bad=True)
        self.child.kill_group()  # what it left behind would keep its port


def say(role: str, what: str, *, bad: bool = False) -> None:
    """One line on what happens to a role; what went wrong goes to stderr."""
    colour = "red" if bad else "cyan"
    click.echo(f"{click.style(f'{role:>9}', fg=colour)}  {what}", err=bad)
    sys.stdout.flush()
