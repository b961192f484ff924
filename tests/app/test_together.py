"""Requests that are served together, and what each of them gets."""

from threading import Event, Thread
from typing import Any
from uuid import UUID

import psycopg

from app.together import MAX_BYTES, Together
from tests.app.conftest import Caller
from tests.stack import until
from worker.store.actions import Action


def asking(together: Together[Any, Any], *asked: Any) -> tuple[list[Thread], dict[Any, Any]]:
    got: dict[Any, Any] = {}

    def ask(one: Any) -> None:
        try:
            got[one] = together.ask(one)
        except ValueError as error:
            got[one] = error

    threads = [Thread(target=ask, args=(one,)) for one in asked]
    for thread in threads:
        thread.start()
    return threads, got


def served_while_one_is_under_way(
    asked: list[Any], weight: int = 0
) -> tuple[list[list[Any]], dict[Any, Any]]:
    rounds: list[list[Any]] = []
    go_on = Event()

    def serve(several: list[Any]) -> list[Any]:
        rounds.append(several)
        assert go_on.wait(10)
        if "bad" in several:
            raise ValueError("one of them is bad")
        return [one * 2 for one in several]

    together: Together[Any, Any] = Together(serve, lambda _: weight)
    first, got_first = asking(together, 1)
    until(lambda: rounds == [[1]])
    others, got = asking(together, *asked)
    until(lambda: len(together._waiting) == len(asked))
    go_on.set()
    for thread in first + others:
        thread.join(10)
    return rounds, got_first | got


def test_those_that_come_meanwhile_are_served_together_and_get_each_their_own() -> None:
    rounds, got = served_while_one_is_under_way([2, 3, 4])
    assert [sorted(several) for several in rounds] == [[1], [2, 3, 4]]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}


def test_an_error_reaches_those_that_were_served_together_and_no_others() -> None:
    rounds, got = served_while_one_is_under_way(["bad", "good"])
    assert len(rounds) == 2
    assert got[1] == 2
    assert isinstance(got["bad"], ValueError)
    assert isinstance(got["good"], ValueError)


def test_large_ones_are_served_in_turn() -> None:
    rounds, got = served_while_one_is_under_way([2, 3, 4], weight=MAX_BYTES)
    assert [len(several) for several in rounds] == [1, 1, 1, 1]
    assert got == {1: 2, 2: 4, 3: 6, 4: 8}


def test_a_poll_is_refused_when_its_session_has_ended_elsewhere(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    path = f"/dpe/v3/jobs/{editor.start(action.id)}"
    assert editor.get(path).status_code == 200
    assert editor.get(f"/dpe/v3/jobs/{UUID(int=0)}").status_code == 404
    conn.execute("DELETE FROM dpe.sessions")
    assert editor.get(path).status_code == 401
