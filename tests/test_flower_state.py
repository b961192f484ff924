"""What Flower keeps of events, as its own state would; and of ends that no event told."""

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import flower.app
import psycopg
import pytest
from celery import Celery
from flower.events import EventsState, get_prometheus_metrics
from flower.options import default_options
from prometheus_client import REGISTRY

from app.flower_catch_up import RecordedFlower
from app.flower_state import JobsEvents, JobsState

NOW = time.time()
SHORT = {
    "name": "Keep orders",
    "args": "()",
    "kwargs": {},
    "retries": 0,
    "received": NOW,
    "started": NOW,
}


def event(kind: str, id: str, at: float, **fields: Any) -> dict[str, Any]:
    of_all = {"type": kind, "uuid": id, "hostname": "child1@here", "root_id": id, "clock": 1}
    return of_all | {"timestamp": at, "local_received": at} | fields


def ended(id: str, at: float = NOW + 0.05, **fields: Any) -> dict[str, Any]:
    return event("task-succeeded", id, at, **SHORT, result="None", runtime=0.05) | fields


def counted(name: str, **labels: str) -> float:
    own = {"worker": "child1@here", "task": "Keep orders"}
    return REGISTRY.get_sample_value(name, own | labels) or 0.0


@pytest.fixture
def state() -> Iterator[JobsState]:
    yield JobsState(max_tasks_in_memory=3)
    get_prometheus_metrics().remove_workers({"child1@here", "record"})


def found(kept: EventsState, query: str, **filters: Any) -> list[str]:
    return kept.search_engine.search(kept.tasks, query, **filters).task_ids


def test_one_event_shows_what_three_did(state: JobsState) -> None:
    id = str(uuid4())
    usual, told = EventsState(max_tasks_in_memory=3), {**SHORT, "pid": 1}
    del told["received"], told["started"]
    usual.event(event("task-received", id, NOW, **told))
    usual.event(event("task-started", id, NOW))
    usual.event(event("task-succeeded", id, NOW + 0.05, result="None", runtime=0.05))
    state.event(ended(id))

    def shown(state: EventsState) -> dict[str, Any]:
        return {**state.tasks[id].as_dict(), "worker": state.tasks[id].worker.hostname}

    assert shown(state) == {**shown(usual), "children": ()}
    assert shown(state)["state"] == "SUCCESS"
    assert state.task_types() == usual.task_types() == ["Keep orders"]
    assert state.workers["child1@here"].heartbeats == usual.workers["child1@here"].heartbeats[-1:]
    # The columns "Processed" and "Succeeded" of the page of workers.
    assert state.counter["child1@here"] == {"task-received": 1, "task-succeeded": 1}


def test_the_metrics_count_a_short_job_as_received_and_ended(state: JobsState) -> None:
    for _ in range(2):
        state.event(ended(str(uuid4())))
    for kind in ("task-received", "task-succeeded"):
        assert counted("flower_events_total", type=kind) == 2
    assert counted("flower_task_runtime_seconds_count") == 2
    assert counted("flower_task_runtime_seconds_sum") == pytest.approx(0.1)
    assert counted("flower_task_prefetch_time_seconds") == 0
    assert counted("flower_worker_prefetched_tasks") == 0
    assert state.metrics.remove_workers({"child1@here"}) == 1
    state.event(ended(str(uuid4())))
    assert counted("flower_events_total", type="task-succeeded") == 1


def test_a_second_attempt_is_shown_with_its_own_times(state: JobsState) -> None:
    id = str(uuid4())
    state.event(ended(id) | {"type": "task-retried", "exception": "JobFailed('no')"})
    assert state.tasks[id].state == "RETRY"
    state.event(ended(id, NOW + 9, received=NOW + 8, started=NOW + 8))
    task = state.tasks[id]
    assert (task.state, task.received, task.started) == ("SUCCESS", NOW + 8, NOW + 8)
    assert state.counter["child1@here"]["task-received"] == 2


def test_searches_find_what_is_so_now(state: JobsState) -> None:
    first, second = str(uuid4()), str(uuid4())
    state.event(event("task-received", first, NOW, name="Long one"))
    assert found(state, "long") == found(state, "", state="RECEIVED") == [first]
    state.event(event("task-succeeded", first, NOW))
    state.event(ended(second))
    assert found(state, "", state="RECEIVED") == []
    assert found(state, "", task_type="Long one") == found(state, first) == [first]
    assert set(found(state, "state:success worker:child1")) == {first, second}
    for _ in range(2):
        state.event(ended(str(uuid4())))
    assert len(found(state, "")) == 3
    assert found(state, first) == []


def test_a_saved_state_is_found_again(state: JobsState) -> None:
    id = str(uuid4())
    state.event(ended(id))
    again = pickle.loads(pickle.dumps(state))
    assert found(again, "orders") == [id]
    assert again.tasks[id].as_dict() | {"worker": ""} == state.tasks[id].as_dict() | {"worker": ""}


class Loop:
    """Flower's loop, turned by hand; like that one it goes on after an error."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.wakes = 0

    def add_callback(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def turn(self) -> list[Exception]:
        errors = []
        while self.waiting:
            self.wakes += 1
            try:
                self.waiting.pop(0)()
            except KeyError as error:
                errors.append(error)
        return errors


def test_what_is_no_event_holds_up_no_others(state: JobsState) -> None:
    loop, first, second = Loop(), str(uuid4()), str(uuid4())
    events = JobsEvents(Celery(), loop, max_tasks_in_memory=3)
    events.state = state
    events.on_event(ended(first))
    events.on_event({"type": "task-succeeded"})
    events.on_event(ended(second))
    assert len(loop.turn()) == 1
    assert set(state.tasks) == {first, second}
    assert loop.wakes == 2  # not one for each


@pytest.fixture
def recorded(
    state: JobsState, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Have a Flower look into the record once."""

    async def look() -> None:
        monkeypatch.setattr(flower.app, "Events", JobsEvents)
        seeing = RecordedFlower(options=default_options, capp=Celery())
        seeing.events.state, seeing._since = state, time.time() - 60
        await seeing.catch_up()
        seeing.executor.shutdown()
        assert seeing._conn
        seeing._conn.close()

    return lambda: asyncio.run(look())


def end_in_record(conn: psycopg.Connection, age_s: float, status: str = "SUCCESS") -> str:
    id = str(uuid4())
    conn.execute(
        "INSERT INTO dpe.jobs"
        " (execution_id, action_id, version, name, status, event_type, submitted_at, ended_at)"
        " VALUES (%s, 'aa', 1, 'Keep orders', %s, 'x',"
        " now() - interval '9 s', now() - %s * interval '1 s')",
        (id, status, age_s),
    )
    return id


def test_ends_that_no_event_told_are_taken_from_the_record(
    state: JobsState, conn: psycopg.Connection, recorded: Callable[[], None]
) -> None:
    unheard, running = end_in_record(conn, 5), end_in_record(conn, 6, "TIMEOUT")
    fresh = end_in_record(conn, 0)
    state.event(event("task-started", running, NOW, name="Keep orders"))
    recorded()
    shown = {id: (task.state, task.worker.hostname) for id, task in state.tasks.items()}
    assert shown == {unheard: ("SUCCESS", "record"), running: ("FAILURE", "child1@here")}
    assert state.tasks[unheard].received < state.tasks[unheard].succeeded
    recorded()
    assert fresh not in state.tasks  # its event may be on its way
    assert state.counter["record"] == {"task-received": 1, "task-succeeded": 1}


def run_in_record(conn: psycopg.Connection, age_s: float, building: int | None = None) -> str:
    id = str(uuid4())
    conn.execute(
        "INSERT INTO dpe.jobs"
        " (execution_id, action_id, version, name, status, event_type, attempt, building,"
        " submitted_at, started_at)"
        " VALUES (%s, 'aa', 1, 'Keep orders', 'PROCESSING', 'x', 1, %s,"
        " now() - interval '99 s', now() - %s * interval '1 s')",
        (id, building, age_s),
    )
    return id


def test_jobs_that_began_while_it_was_away_are_shown_while_they_run(
    state: JobsState,
    conn: psycopg.Connection,
    recorded: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    state.max_tasks_in_memory = 9
    unheard, built, again = (run_in_record(conn, 9) for _ in range(3))
    building = run_in_record(conn, 9, building=1)
    fresh, elsewhere, now = run_in_record(conn, 1), str(uuid4()), time.time()
    state.event(event("task-building", built, now - 20, name="Keep orders"))
    state.event(event("task-retried", again, now - 20, name="Keep orders", exception="no"))
    state.event(event("task-started", elsewhere, now - 20, name="Keep orders"))
    recorded()
    shown = {id: (task.state, task.name, task.worker.hostname) for id, task in state.tasks.items()}
    assert shown == {
        unheard: ("STARTED", "Keep orders", "record"),
        building: ("BUILDING", "Keep orders", "record"),
        built: ("STARTED", "Keep orders", "child1@here"),
        again: ("STARTED", "Keep orders", "child1@here"),
        elsewhere: ("STARTED", "Keep orders", "child1@here"),
    }
    assert fresh not in state.tasks  # its event may be on its way
    told = dict(state.counter["record"])
    recorded()
    assert state.counter["record"] == told
    # What came since is newer than the look.
    for id, kind in ((unheard, "task-succeeded"), (built, "task-retried")):
        state.event(event(kind, id, time.time()))
    recorded()
    assert (state.tasks[unheard].state, state.tasks[built].state) == ("SUCCESS", "RETRY")
    assert not caplog.records  # none of clocks that differ


def test_what_made_room_for_newer_ones_is_not_told_again(
    state: JobsState, conn: psycopg.Connection, recorded: Callable[[], None]
) -> None:
    ids = [end_in_record(conn, age_s) for age_s in (7, 6, 5, 4, 3)]
    for id, age_s in zip(ids, (7, 6, 5, 4, 3), strict=True):
        state.event(ended(id, time.time() - age_s))
    recorded()
    assert list(state.tasks) == ids[2:]
    assert "record" not in state.counter
    unheard = end_in_record(conn, 2.5)
    recorded()
    assert list(state.tasks) == [*ids[3:], unheard]
