"""Requests of one kind that come while one of them is under way are served together next.

A statement takes a round trip, and a commit the disk, whether for one request or for fifty.  So one
thread serves all that wait, and then all that came meanwhile.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from worker.errors import Unavailable

MAX_COUNT = 256
MAX_BYTES = 8_000_000  # of what is served together, beyond the first

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

Promise = Future[Answer] | asyncio.Future[Answer]  # of whoever asks from a thread, or on the loop
Settled = tuple[Promise[Answer], Answer | None, BaseException | None]


class Together(Generic[Asked, Answer]):
    """Serves what is asked in this process, by calls of `serve`, one after the other.

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
        self._waiting: list[tuple[Asked, Promise[Answer]]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, asked: Asked) -> Answer:
        """Wait for the answer, in a thread; raises what serving it raised."""
        promise: Future[Answer] = Future()
        self._add(asked, promise)
        return promise.result()

    async def answer(self, asked: Asked) -> Answer:
        """As `ask`, on the event loop."""
        promise: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._add(asked, promise)
        return await promise

    def close(self) -> None:
        """Serve what waits, then end the thread; who asks later gets Unavailable."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _add(self, asked: Asked, promise: Promise[Answer]) -> None:
        with self._changed:
            if self._closed:  # nobody would serve it
                raise Unavailable("this process ends", "send it again")
            self._waiting.append((asked, promise))
            if self._thread is None:  # not before the fork
                self._thread = threading.Thread(target=self._serve_all, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _serve_all(self) -> None:
        while taken := self._take():
            promises = [promise for _, promise in taken]
            try:
                answers = self._serve([asked for asked, _ in taken])
                settled = [(p, a, None) for p, a in zip(promises, answers, strict=True)]
            except BaseException as error:
                settled = [(promise, None, error) for promise in promises]
            _give(settled)

    def _take(self) -> list[tuple[Asked, Promise[Answer]]]:
        """What is to be served next; nothing when this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            count, size = 0, 0
            for asked, _ in self._waiting[:MAX_COUNT]:
                size += self._weigh(asked)
                if count and size > MAX_BYTES:
                    break
                count += 1
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken


def _give(settled: Iterable[Settled[Answer]]) -> None:
    """Settle each promise, those of a loop there, by one call for all."""
    of_loops: dict[asyncio.AbstractEventLoop, list[Settled[Answer]]] = {}
    for promise, answer, error in settled:
        if isinstance(promise, asyncio.Future):
            of_loops.setdefault(promise.get_loop(), []).append((promise, answer, error))
        else:
            _settle([(promise, answer, error)])
    for loop, ones in of_loops.items():
        with suppress(RuntimeError):  # it is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, ones)


def _settle(settled: Iterable[Settled[Answer]]) -> None:
    for promise, answer, error in settled:
        if promise.done():  # whoever asked has gone
            continue
        if error is None:
            promise.set_result(answer)  # pyright: ignore[reportArgumentType]
        else:
            promise.set_exception(error)
