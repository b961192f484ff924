"""Requests of one kind that come while one of them is under way are served together next.

A statement takes a round trip, and a commit the disk, whether for one request or for fifty.  So
whoever has the turn serves all that wait, and gives the turn to the first that came meanwhile.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

MAX_COUNT = 256
MAX_BYTES = 8_000_000  # of what is served together, beyond the first

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Asked, Answer]):
    asked: Asked
    answers: list[Answer] = field(default_factory=list)  # one, when it is served
    error: BaseException | None = None
    told: threading.Lock = field(default_factory=_held)  # let go when served, or to take the turn


class Together(Generic[Asked, Answer]):
    """Serves what all threads of this process ask, by calls of `serve`, one after the other.

    `serve` gives an answer for each that it is given, in their order; what it raises, each of them
    gets.  `weigh` gives the bytes of one.
    """

    def __init__(
        self,
        serve: Callable[[list[Asked]], list[Answer]],
        weigh: Callable[[Asked], int] = lambda _: 0,
    ) -> None:
        self._serve = serve
        self._weigh = weigh
        self._guard = threading.Lock()
        self._taken = False  # somebody has the turn
        self._waiting: list[_Waiting[Asked, Answer]] = []

    def ask(self, asked: Asked) -> Answer:
        """Wait for the answer; raises what serving it raised."""
        mine: _Waiting[Asked, Answer] = _Waiting(asked)
        with self._guard:
            self._waiting.append(mine)
            my_turn, self._taken = not self._taken, True
        if not my_turn:
            mine.told.acquire()
        if not mine.answers and mine.error is None:  # then it is the first of those that wait
            self._take_turn()
        if mine.error is not None:
            raise mine.error
        return mine.answers[0]

    def _take_turn(self) -> None:
        taken = self._take()
        try:
            answers = self._serve([waiting.asked for waiting in taken])
            for waiting, answer in zip(taken, answers, strict=True):
                waiting.answers.append(answer)
        except BaseException as error:
            for waiting in taken:
                waiting.error = error
        finally:
            with self._guard:
                following = self._waiting[:1]
                self._taken = bool(following)
            for waiting in following + taken[1:]:
                waiting.told.release()

    def _take(self) -> list[_Waiting[Asked, Answer]]:
        with self._guard:
            count, size = 0, 0
            for waiting in self._waiting[:MAX_COUNT]:
                size += self._weigh(waiting.asked)
                if count and size > MAX_BYTES:
                    break
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
