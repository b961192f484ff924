"""Jobs that a child has taken together, run one after the other; a slow one holds up none of them.

Where workers are behind, a child takes several at once, and claims them by one statement.  The end
of each goes to Postgres with the first statement of the next (`worker.store.ending`).  So a short
job costs one round trip and not three.  A thread looks from time to time: what waits behind a job
that takes long goes back in line, and an end that waits is sent.
"""

import contextlib
import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator

import psycopg

from worker.attempt import execute
from worker.child import Child
from worker.hand_back import hand_back
from worker.store import claims
from worker.store.claims import Claim
from worker.store.ending import JobConnection
from worker.store.publishing import Message

HOLD_UP_S = 0.1  # what is taken together shares no more than this, see `claims.AHEAD_S`
END_WAITS_S = 0.02
LOOK_S = 0.05

logger = logging.getLogger("worker.bundle")

Rest = deque[tuple[Message, Claim | None]]


def run_all(this: Child, messages: list[Message]) -> None:
    """Run these jobs; when this returns, none of them waits here for anything."""
    rest = _claimed(this, messages)
    with _look_out().watching(this, rest):
        while (first := _pop(rest)) is not None:
            message, claim = first
            this.has_next = bool(rest)
            execute(this, message.execution_id, claim)


def _claimed(this: Child, messages: list[Message]) -> Rest:
    """The jobs with their claims; of those that are claimed one by one, or not at all, without."""
    found: dict[object, Claim] = {}
    if len(messages) > 1:
        ids = [message.execution_id for message in messages]
        try:
            record, conn = this.connections()
            ahead = claims.claim_ahead(record, conn, ids, this.worker_id, os.getpid())
            found = {claim.execution_id: claim for claim in ahead}
        except psycopg.OperationalError as error:
            logger.warning("no claims for several jobs at once: %s", str(error).strip())
            this.disconnect()
    # Each claim once, though a message may have come twice.
    return deque((message, found.pop(message.execution_id, None)) for message in messages)


def _pop(rest: Rest) -> tuple[Message, Claim | None] | None:
    try:
        return rest.popleft()
    except IndexError:  # the other thread may have been quicker
        return None


class _LookOut:
    """One thread for good: to wake one each time takes a twentieth of a short job's time."""

    def __init__(self) -> None:
        self._watched: tuple[float, Child, Rest] | None = None
        threading.Thread(target=self._look_for_ever, name="look-out", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, this: Child, rest: Rest) -> Iterator[None]:
        """Look after these as long as this lasts, and leave none of them at its end."""
        self._watched = time.monotonic(), this, rest
        try:
            yield
        finally:
            self._watched = None
            _hand_back(this, rest)
            _send_end(this, 0.0)

    def _look_for_ever(self) -> None:
        while True:
            time.sleep(LOOK_S)
            watched = self._watched
            if watched is None:
                continue
            began, this, rest = watched
            _send_end(this, END_WAITS_S)
            if time.monotonic() > began + LOOK_S:
                this.lead.hand_on()
            if time.monotonic() > began + HOLD_UP_S:
                _hand_back(this, rest)


_look_out = functools.cache(_LookOut)  # made by the first message, after the fork (F20)


def _send_end(this: Child, at_least_s: float) -> None:
    conn = this.conn
    if isinstance(conn, JobConnection) and conn.has_end:
        conn.send_end(at_least_s)


def _hand_back(this: Child, rest: Rest) -> None:
    claimed: list[Claim] = []
    unclaimed: list[Message] = []
    while (first := _pop(rest)) is not None:
        message, claim = first
        if claim is None:
            unclaimed.append(message)
        else:
            claimed.append(claim)
    if claimed or unclaimed:
        hand_back(this, claimed, unclaimed)
