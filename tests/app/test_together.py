"""Requests that are served together, and what each of them gets."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest

from app.together import MAX_BYTES, MAX_COUNT, Together
from tests.app.conftest import Caller
from tests.stack import until
from worker.errors import Unavailable
from worker.store.actions import Action

Ask = Callable[[Any], Future[Any]]


class Served(Together[Any, Any]):
    """Doubles what it is asked, once it is let; and knows what it was asked together."""

    def __init__(self, weight: int = 0) -> None:
        super().__init__(self._double, lambda _: weight)
        self.rounds: list[list[Any]] = []
        self.go_on = Event()

    def _double(self, several: list[Any]) -> list[Any]:
        self.rounds.append(several)
        assert self.go_on.wait(10)
        if "bad" in several:
            raise ValueError("one of them is bad")
        return [one * 2 for one in several]

    def serve_while_one_is_under_way(self, ask: Ask, asked: list[Any]) -> dict[Any, Any]:
        """What each gets, by what it asked."""
        promises = {1: ask(1)}
        until(lambda: self.rounds == [[1]])
        promises |= {one: ask(one) for one in asked}
        until(lambda: len(self._waiting) == len(asked))
        self.go_on.set()
        return {one: promise.exception(10) or promise.result() for one, promise in promises.items()}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """It runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(params=["threads", "a loop"])
def asking(
    request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop
) -> Iterator[Callable[[Together[Any, Any]], Ask]]:
    """Ask from threads, or from a loop."""
    with ThreadPoolExecutor(MAX_COUNT * 2) as pool:

        def of(together: Together[Any, Any]) -> Ask:
            if request.param == "threads":
                return lambda one: pool.submit(together.ask, one)
            return lambda one: asyncio.run_coroutine_threadsafe(together.answer(one), loop)

        yield of


Asking = Callable[[Together[Any, Any]], Ask]


def test_those_that_come_meanwhile_are_served_together_and_get_each_their_own(
    asking: Asking,
) -> None:
    served = Served()
    got = served.serve_while_one_is_under_way(asking(served), [2, 3, 4])
    assert [sorted(several) for several in served.rounds] == [[1], [2, 3, 4]]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}
    served.close()


def test_those_of_threads_and_of_a_loop_are_served_together(
    loop: asyncio.AbstractEventLoop,
) -> None:
    served = Served()
    with ThreadPoolExecutor(2) as pool:

        def ask(one: int) -> Future[Any]:
            if one % 2:
                return pool.submit(served.ask, one)
            return asyncio.run_coroutine_threadsafe(served.answer(one), loop)

        got = served.serve_while_one_is_under_way(ask, [2, 3])
    assert [sorted(several) for several in served.rounds] == [[1], [2, 3]]
    assert got == {1: 2, 2: 4, 3: 6}
    served.close()


def test_an_error_reaches_those_that_were_served_together_and_no_others(asking: Asking) -> None:
    served = Served()
    ask = asking(served)
    got = served.serve_while_one_is_under_way(ask, ["bad", "good"])
    assert len(served.rounds) == 2
    assert got[1] == 2
    assert isinstance(got["bad"], ValueError)
    assert isinstance(got["good"], ValueError)
    assert ask("good").result(10) == "goodgood"
    served.close()


def test_an_answer_that_is_missing_is_an_error(asking: Asking) -> None:
    together: Together[Any, Any] = Together(lambda several: several[1:])
    assert isinstance(asking(together)(1).exception(10), ValueError)
    together.close()


def test_large_ones_are_served_in_turn(asking: Asking) -> None:
    served = Served(weight=MAX_BYTES)
    got = served.serve_while_one_is_under_way(asking(served), [2, 3, 4])
    assert [len(several) for several in served.rounds] == [1, 1, 1, 1]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}
    served.close()


def test_so_many_are_served_at_once_and_no_more(asking: Asking) -> None:
    served = Served()
    asked = list(range(2, MAX_COUNT + 5))
    got = served.serve_while_one_is_under_way(asking(served), asked)
    assert [len(several) for several in served.rounds] == [1, MAX_COUNT, 3]
    assert got == {one: one * 2 for one in [1, *asked]}
    served.close()


def test_who_is_closed_serves_what_waits_and_no_more(asking: Asking) -> None:
    served = Served()
    ask = asking(served)
    first = ask(1)
    until(lambda: served.rounds == [[1]])
    second = ask(2)
    until(lambda: served._waiting)
    served.close()
    served.go_on.set()
    assert [first.result(10), second.result(10)] == [2, 4]
    assert served._thread is not None
    served._thread.join(10)
    assert not served._thread.is_alive()
    assert isinstance(ask(3).exception(10), Unavailable)


def test_who_is_not_asked_has_no_thread() -> None:
    served = Served()
    assert served._thread is None
    served.close()
    with pytest.raises(Unavailable):
        served.ask(1)


def test_who_has_gone_is_left_and_the_others_are_answered(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Cancelled, or with its whole loop."""
    served = Served()

    async def leave() -> None:
        asyncio.get_running_loop().create_task(served.answer(2))
        await asyncio.sleep(0)  # it asks; the end of this loop cancels it

    first = asyncio.run_coroutine_threadsafe(served.answer(1), loop)
    until(lambda: served.rounds == [[1]])
    asyncio.run(leave())
    cancelled = asyncio.run_coroutine_threadsafe(served.answer(3), loop)
    other = asyncio.run_coroutine_threadsafe(served.answer(4), loop)
    until(lambda: len(served._waiting) == 3)
    cancelled.cancel()
    served.go_on.set()
    assert [first.result(10), other.result(10)] == [2, 8]
    assert served.rounds == [[1], [2, 3, 4]]
    assert served.ask(5) == 10
    served.close()


def test_a_poll_is_refused_when_its_session_has_ended_elsewhere(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    path = f"/dpe/v3/jobs/{editor.start(action.id)}"
    assert editor.get(path).status_code == 200
    assert editor.get(f"/dpe/v3/jobs/{UUID(int=0)}").status_code == 404
    conn.execute("DELETE FROM dpe.sessions")
    assert editor.get(path).status_code == 401
