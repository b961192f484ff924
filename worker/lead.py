"""Which child of a worker waits at the broker: one, and more where it is behind.

The broker serves who has waited longest.  If all children waited, each job would meet the one that
has rested longest, whose memory has left the processor's caches: an idle start takes a sixth longer
then.  So one leads (the pattern is known as leader/followers), and takes one message after the
other while its jobs are short.  It wakes a follower where jobs are left waiting, and lets one lead
where its own take long.  Followers look by themselves now and then: a leader that is frozen holds
up nobody for longer than that.
"""

import fcntl
import multiprocessing
import tempfile
from contextlib import suppress
from pathlib import Path


class Lead:
    """The lead among the children of one supervisor; made before the fork."""

    def __init__(self) -> None:
        # The system takes the lock back from a process that has ended, however that was.
        self._file, path = tempfile.mkstemp(prefix="dpe-lead-")
        Path(path).unlink()
        self._calls = multiprocessing.get_context("fork").BoundedSemaphore(1)
        self._calls.acquire()
        self._is_mine = False

    def take(self) -> bool:
        """Lead from now on, unless another does; whether this process leads."""
        if not self._is_mine:
            with suppress(BlockingIOError, PermissionError):  # either of them: lockf(3)
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._is_mine = True
        return self._is_mine

    def hand_on(self) -> None:
        """Where this process leads, let a follower."""
        if self._is_mine:
            # In this order, or who takes it in between, a thread, leads without a lock.
            fcntl.lockf(self._file, fcntl.LOCK_UN)
            self._is_mine = False
            self.call()

    def call(self) -> None:
        """Wake a follower, or have the next one not rest."""
        with suppress(ValueError):  # one is called already
            self._calls.release()

    def follow(self, timeout_s: float) -> None:
        """Rest until called, and no longer than so many seconds."""
        self._calls.acquire(timeout=timeout_s)
