"""Requests of one kind that come while one of them is under way are served together next.

A statement takes a round trip, and a commit the disk, whether for one request or for fifty.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

MAX_COUNT = 256
MAX_BYTES = 8_000_000  # of what is served together, beyond the first

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Asked, Answer]):
    """Serves what is asked on one event loop, by calls of `serve`, one after the other.

    `serve` gives an answer for each that it is given, in their order; what it raises, each of them
    gets.  `weigh` gives the bytes of one.
    """

    def __init__(
        self,
        serve: Callable[[list[Asked]], Awaitable[list[Answer]]],
        weigh: Callable[[Asked], int] = lambda _: 0,
    ) -> None:
        self._serve = serve
        self._weigh = weigh
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._serving: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answer:
        """Wait for the answer; raises what serving it raised."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve_all())
        return await answer

    async def _serve_all(self) -> None:
        while taken := self._take():
            promised = [answer for _, answer in taken]
            try:
                answers = await self._serve([asked for asked, _ in taken])
                for promise, answer in list(zip(promised, answers, strict=True)):
                    if not promise.done():  # else whoever asked has gone
                        promise.set_result(answer)
            except Exception as error:
                for promise in promised:
                    if not promise.done():
                        promise.set_exception(error)
        self._serving = None

    def _take(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        count, size = 0, 0
        for asked, _ in self._waiting[:MAX_COUNT]:
            size += self._weigh(asked)
            if count and size > MAX_BYTES:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
