"""Wrong credentials slow down who sends them: beyond some in a minute, an address is answered 429.

Counted in the broker, for all processes together; where that is away, by each for itself.  Right
credentials from another address pass at any time, and whether a key exists is not told.
"""

import logging
import threading
import time

from redis import RedisError

from worker import broker
from worker.errors import SettingError, TooMany

MOST = 20  # wrong ones of an address in a window
WINDOW_S = 60
KNOWN = 10_000  # addresses that a process remembers as slowed down
BROKER_TIMEOUT_S = 0.15

logger = logging.getLogger("app")


class Failures:
    """What one process knows of addresses that sent wrong credentials."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._slowed: dict[str, float] = {}  # until when, of time.time()
        self._counts: dict[str, int] = {}  # of this window, while the broker is away
        self._window = 0

    def check(self, address: str) -> None:
        """Raise TooMany where the address has sent too many."""
        until = self._slowed.get(address)
        now = time.time()
        if until is not None and now < until:
            raise TooMany(
                f"more than {MOST} wrong credentials came from {address} within a minute",
                "try again after Retry-After seconds, with the right ones",
                until - now,
            )

    def note(self, address: str) -> None:
        """Count wrong credentials of an address."""
        window = int(time.time()) // WINDOW_S
        if self._count(address, window) >= MOST:
            with self._guard:
                if len(self._slowed) >= KNOWN:
                    self._slowed.clear()
                self._slowed[address] = float((window + 1) * WINDOW_S)

    def _count(self, address: str, window: int) -> int:
        name = f"dpe:failures:{address}:{window}"
        try:
            asked = broker.queue_client(BROKER_TIMEOUT_S).pipeline(transaction=False)
            asked.incr(name)
            asked.expire(name, WINDOW_S + 1)
            return int(asked.execute()[0])
        except (RedisError, OSError, SettingError) as error:
            logger.warning("wrong credentials are counted by each process: %s", error)
        with self._guard:
            if window != self._window or len(self._counts) >= KNOWN:
                self._window, self._counts = window, {}
            self._counts[address] = self._counts.get(address, 0) + 1
            return self._counts[address]
