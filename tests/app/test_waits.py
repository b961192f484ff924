"""`?wait=`: many requests, one thread, one statement."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app import resources
from app.waits import Waits, _Wait
from tests.app.conftest import Caller, Hand
from worker.store import acceptance, jobs
from worker.store.actions import Action


def test_a_job_that_ends_meanwhile_is_answered_soon(
    editor: Caller, action: Action, hand: Hand
) -> None:
    id = editor.start(action.id)
    began = time.monotonic()
    ending = hand.run_later(id, 0.2)
    answer = editor.get(f"/dpe/v3/jobs/{id}?wait=10")
    took = time.monotonic() - began
    ending.join()
    assert (answer.status_code, answer.json["status"]) == (200, "SUCCESS")
    assert 0.2 <= took < 0.5


def test_a_job_that_does_not_end_answers_202_when_the_time_is_over(
    editor: Caller, action: Action
) -> None:
    id = editor.start(action.id)
    began = time.monotonic()
    answer = editor.get(f"/dpe/v3/jobs/{id}?wait=0.2")
    assert 0.2 <= time.monotonic() - began < 1
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
    assert answer.json["status"] == "QUEUED"


def test_an_ended_job_is_answered_at_once(editor: Caller, action: Action, hand: Hand) -> None:
    id = editor.start(action.id)
    hand.run(id)
    began = time.monotonic()
    assert editor.get(f"/dpe/v3/jobs/{id}?wait=10").status_code == 200
    assert time.monotonic() - began < 1


def test_without_wait_a_job_is_200_whatever_its_status(editor: Caller, action: Action) -> None:
    id = editor.start(action.id)
    answer = editor.get(f"/dpe/v3/jobs/{id}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (200, "1")
    assert editor.get(f"/dpe/v3/jobs/{id}?wait=31").status_code == 400


def test_many_wait_on_few_connections_and_one_thread(
    app: Flask, editor: Caller, action: Action, hand: Hand
) -> None:
    ids = [editor.start(action.id, n) for n in range(40)]
    waits = resources.of(app).waits

    def wait(id: str) -> int:
        call = {"Authorization": f"Bearer {editor.token}"}
        return app.test_client().get(f"/dpe/v3/jobs/{id}?wait=20", headers=call).status_code

    with ThreadPoolExecutor(len(ids)) as pool:
        answers = [pool.submit(wait, id) for id in ids]
        while len(waits._waiting) < len(ids):
            time.sleep(0.001)
        assert [t.name for t in threading.enumerate()].count("waits") == 1
        # None of them holds a connection: others are served.
        assert editor.get("/dpe/v3/jobs?limit=1").status_code == 200
        for id in ids:
            hand.run(id)
        assert [answer.result(5) for answer in answers] == [200] * len(ids)
    assert not waits._waiting


@pytest.fixture
def waits(app: Flask) -> Iterator[Waits]:
    waits = Waits(resources.of(app).waits._connect)
    yield waits
    waits.close()
    if waits._thread is not None:
        waits._thread.join(5)
        assert not waits._thread.is_alive()


def test_many_wait_on_a_loop_and_each_gets_its_own(
    waits: Waits, editor: Caller, action: Action, hand: Hand
) -> None:
    ids = [UUID(editor.start(action.id, n)) for n in range(5)]

    async def wait_for_all() -> list[jobs.Job | None]:
        waiting = [asyncio.create_task(waits.ended(id, 20)) for id in ids * 10]
        while len(waits._waiting) < len(waiting):
            await asyncio.sleep(0.001)
        for id in ids:
            await asyncio.to_thread(hand.run, str(id), str(id))
        return await asyncio.gather(*waiting)

    found = asyncio.run(wait_for_all())
    assert [job and job.result for job in found] == [str(id) for id in ids * 10]
    assert not waits._waiting


def test_a_wait_on_a_loop_is_over_when_its_time_is(
    waits: Waits, editor: Caller, action: Action, hand: Hand
) -> None:
    id = UUID(editor.start(action.id))

    async def wait() -> None:
        began = time.monotonic()
        other = asyncio.create_task(waits.ended(id, 20))
        assert await waits.ended(id, 0.1) is None
        assert 0.1 <= time.monotonic() - began < 1
        assert len(waits._waiting) == 1  # it is left, and nobody else is
        await asyncio.to_thread(hand.run, str(id))
        job = await other
        assert job is not None
        assert job.status == "SUCCESS"

    asyncio.run(wait())


def test_who_is_cancelled_or_has_lost_its_loop_is_left(
    waits: Waits, editor: Caller, action: Action, hand: Hand
) -> None:
    id = UUID(editor.start(action.id))

    async def leave() -> None:
        waiting = asyncio.create_task(waits.ended(id, 20))
        asyncio.get_running_loop().create_task(waits.ended(id, 20))
        await asyncio.sleep(0.01)  # both wait; the end of this loop cancels the second
        assert len(waits._waiting) == 2
        waiting.cancel()

    asyncio.run(leave())
    assert not waits._waiting
    hand.run(str(id))
    assert waits.until_ended(id, 10) is not None


def test_closing_lets_those_of_a_loop_answer(waits: Waits, editor: Caller, action: Action) -> None:
    id = UUID(editor.start(action.id))

    async def wait() -> float:
        waiting = [asyncio.create_task(waits.ended(id, 30)) for _ in range(3)]
        while len(waits._waiting) < len(waiting):
            await asyncio.sleep(0.001)
        began = time.monotonic()
        await asyncio.to_thread(waits.close)
        assert await asyncio.gather(*waiting) == [None] * 3
        assert await waits.ended(id, 30) is None
        return time.monotonic() - began

    assert asyncio.run(wait()) < 1


def test_who_waits_for_nobody_costs_nothing(waits: Waits) -> None:
    assert waits._thread is None
    assert waits._conn is None


def test_the_end_of_a_job_is_told_to_who_started_it(
    waits: Waits, action: Action, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a notice the first look would come after this.
    monkeypatch.setattr("app.waits.FIRST_PAUSE_TOLD_S", 3.0)
    monkeypatch.setattr("app.waits.LONGEST_PAUSE_S", 3.0)

    def start(n: int) -> UUID:
        accepted = acceptance.accept(hand.conn, jobs.Start(action.id, str(n), waiter=waits.channel))
        assert accepted is not None
        return accepted.execution_id

    ids = [start(n) for n in range(8)]
    with ThreadPoolExecutor(len(ids)) as pool:
        answers = [pool.submit(waits.until_ended, id, 20, told=True) for id in ids]
        listens = "SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN dpe_%%' AND pid = %s"
        while (
            waits._conn is None
            or not hand.conn.execute(listens.encode(), [waits._conn.info.backend_pid]).fetchall()
        ):
            time.sleep(0.001)
        began = time.monotonic()
        for id in ids:
            hand.run(str(id), str(id))
        found = [answer.result(15) for answer in answers]
    assert time.monotonic() - began < 2.5
    assert [job and job.result for job in found] == [str(id) for id in ids]


def test_a_lost_connection_is_replaced(
    app: Flask, editor: Caller, action: Action, hand: Hand
) -> None:
    waits = resources.of(app).waits
    ids = [editor.start(action.id) for _ in range(2)]
    for id in ids:
        ending = hand.run_later(id, 0.3)
        assert editor.get(f"/dpe/v3/jobs/{id}?wait=10").status_code == 200
        ending.join()
        assert waits._conn is not None
        pid = waits._conn.info.backend_pid
        hand.conn.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_closing_lets_all_answer(waits: Waits, editor: Caller, action: Action) -> None:
    id = UUID(editor.start(action.id))
    thread = threading.Thread(target=lambda: waits.until_ended(id, 30))
    thread.start()
    while not waits._waiting:
        time.sleep(0.001)
    waits.close()
    thread.join(1)
    assert not thread.is_alive()
    assert waits._thread is not None
    waits._thread.join(1)
    assert not waits._thread.is_alive()
    began = time.monotonic()
    waits.until_ended(id, 30)
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize("age_s", [0.0, 0.05, 5.0])
@pytest.mark.parametrize(("told", "shortest"), [(False, 0.0007), (True, 0.02)])
def test_old_waits_are_looked_after_less_often(age_s: float, told: bool, shortest: float) -> None:
    now = time.monotonic()
    wait = _Wait(uuid4(), told, since=now - age_s)
    assert wait.pause_s(now) == pytest.approx(min(max(age_s / 10, shortest), 0.05))
