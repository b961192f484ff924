"""Requests that are served together, and what each of them gets."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest

from app.together import MAX_BYTES, MAX_COUNT, Together
from tests.app.conftest import Caller
from worker.store.actions import Action

T = TypeVar("T")


class Served(Together[Any, Any]):
    """Doubles what it is asked, once it is let; and knows what it was asked together."""

    def __init__(self, weight: int = 0) -> None:
        super().__init__(self._double, lambda _: weight)
        self.rounds: list[list[Any]] = []
        self.go_on = asyncio.Event()

    async def _double(self, several: list[Any]) -> list[Any]:
        self.rounds.append(several)
        await self.go_on.wait()
        if "bad" in several:
            raise ValueError("one of them is bad")
        return [one * 2 for one in several]

    async def ask_while_one_is_under_way(
        self, asked: Iterable[Any]
    ) -> dict[Any, asyncio.Task[Any]]:
        """Who asks for 1, which is under way, and for the others, which wait; by what they ask."""
        asking = {1: asyncio.create_task(self.ask(1))}
        await meanwhile(lambda: self.rounds == [[1]])
        asking |= {one: asyncio.create_task(self.ask(one)) for one in asked}
        await meanwhile(lambda: len(self._waiting) == len(asking) - 1)
        return asking

    async def serve_while_one_is_under_way(self, asked: Iterable[Any]) -> dict[Any, Any]:
        """What each gets, by what it asked."""
        asking = await self.ask_while_one_is_under_way(asked)
        self.go_on.set()
        got = await asyncio.gather(*asking.values(), return_exceptions=True)
        assert self._serving is None
        return dict(zip(asking, got, strict=True))


async def meanwhile(what: Callable[[], bool]) -> None:
    """Let the others of this loop go on, until it is so."""
    while not what():
        await asyncio.sleep(0)


def run(asking: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(asking, 10))


def test_those_that_come_meanwhile_are_served_together_and_get_each_their_own() -> None:
    served = Served()
    got = run(served.serve_while_one_is_under_way([2, 3, 4]))
    assert served.rounds == [[1], [2, 3, 4]]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}


def test_who_comes_alone_is_served_at_once() -> None:
    async def ask_one_after_the_other() -> list[int]:
        served = Served()
        served.go_on.set()
        got = [await served.ask(one) for one in (1, 2)]
        assert served.rounds == [[1], [2]]
        return got

    assert run(ask_one_after_the_other()) == [2, 4]


def test_an_error_reaches_those_that_were_served_together_and_no_others() -> None:
    served = Served()

    async def ask() -> None:
        got = await served.serve_while_one_is_under_way(["bad", "good"])
        assert served.rounds == [[1], ["bad", "good"]]
        assert got[1] == 2
        assert isinstance(got["bad"], ValueError)
        assert isinstance(got["good"], ValueError)
        assert await served.ask("good") == "goodgood"

    run(ask())


def test_those_that_wait_while_others_fail_are_served_next() -> None:
    served = Served()

    async def ask() -> None:
        bad = asyncio.create_task(served.ask("bad"))
        await meanwhile(lambda: served.rounds == [["bad"]])
        good = asyncio.create_task(served.ask("good"))
        await meanwhile(lambda: len(served._waiting) == 1)
        served.go_on.set()
        with pytest.raises(ValueError, match="one of them is bad"):
            await bad
        assert await good == "goodgood"

    run(ask())


@pytest.mark.parametrize("answers", [[], [1, 2], [1, 2, 3, 4]], ids=["none", "fewer", "more"])
def test_another_number_of_answers_is_an_error_of_all(answers: list[int]) -> None:
    """Whose answer is missing, nobody knows."""

    async def serve(several: list[int]) -> list[int]:
        return answers if len(several) == 3 else several

    async def ask() -> None:
        together = Together(serve)
        asking = [asyncio.create_task(together.ask(one)) for one in range(3)]
        got = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(one) for one in got] == [ValueError] * 3
        assert await together.ask(7) == 7

    run(ask())


def test_large_ones_are_served_in_turn() -> None:
    served = Served(weight=MAX_BYTES)
    got = run(served.serve_while_one_is_under_way([2, 3, 4]))
    assert served.rounds == [[1], [2], [3], [4]]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}


def test_so_much_is_served_at_once_and_no_more() -> None:
    served = Served(weight=MAX_BYTES // 2)
    got = run(served.serve_while_one_is_under_way([2, 3, 4]))
    assert served.rounds == [[1], [2, 3], [4]]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}


def test_one_that_is_larger_than_all_together_may_be_is_served() -> None:
    served = Served(weight=MAX_BYTES + 1)
    assert run(served.serve_while_one_is_under_way([2])) == {1: 2, 2: 4}


def test_so_many_are_served_at_once_and_no_more() -> None:
    served = Served()
    asked = list(range(2, MAX_COUNT + 5))
    got = run(served.serve_while_one_is_under_way(asked))
    assert [len(several) for several in served.rounds] == [1, MAX_COUNT, 3]
    assert [one for several in served.rounds for one in several] == [1, *asked]
    assert got == {one: one * 2 for one in [1, *asked]}


def test_who_is_not_asked_does_nothing() -> None:
    served = Served()
    assert served._serving is None
    assert not served.rounds


@pytest.mark.parametrize("asked", [[2, 4], ["bad", "good"]])
def test_who_has_gone_is_left_and_the_others_are_answered(asked: list[Any]) -> None:
    """Gone while it waited for its turn, or while it was served, well or not."""
    served = Served()

    async def leave() -> None:
        asking = await served.ask_while_one_is_under_way([*asked, 3])
        asking[1].cancel()
        asking[asked[0]].cancel()
        await asyncio.sleep(0)
        assert [asking[1].cancelled(), asking[asked[0]].cancelled()] == [True, True]
        served.go_on.set()
        got = await asyncio.gather(*asking.values(), return_exceptions=True)
        assert served.rounds == [[1], [*asked, 3]]
        failed = "bad" in asked
        assert [isinstance(one, ValueError) for one in got] == [False, False, failed, failed]
        assert failed or got[2:] == [8, 6]
        assert served._serving is None
        assert await served.ask(5) == 10

    run(leave())


def test_where_all_have_gone_the_next_is_served() -> None:
    served = Served()

    async def leave() -> None:
        for asking in (await served.ask_while_one_is_under_way([2, 3])).values():
            asking.cancel()
        other = asyncio.create_task(served.ask(4))
        await meanwhile(lambda: len(served._waiting) == 3)
        served.go_on.set()
        assert await other == 8
        assert served.rounds == [[1], [2, 3, 4]]

    run(leave())


def test_a_poll_is_refused_when_its_session_has_ended_elsewhere(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    path = f"/dpe/v3/jobs/{editor.start(action.id)}"
    assert editor.get(path).status_code == 200
    assert editor.get(f"/dpe/v3/jobs/{UUID(int=0)}").status_code == 404
    conn.execute("DELETE FROM dpe.sessions")
    assert editor.get(path).status_code == 401
