"""One run a tick: however many workers there are, over kills, outages, and clocks set back."""

import json
import signal
import threading
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from app.embedded import Postgres
from tests.stack import Engine, until
from worker.errors import Invalid, NotFound
from worker.store import actions, trigger_ticks, triggers, workflows
from worker.store.triggers import Trigger

ECHO = "import time\ndef handle(event):\n    return [event.type, event.content]"
MINUTE = timedelta(minutes=1)


def trigger(engine: Engine, action: actions.Action, **words: Any) -> Trigger:
    return triggers.put(
        engine.conn, {"name": "t", "action": action.id, "cron": "* * * * *", **words}
    )


def due_since(engine: Engine, age: timedelta) -> datetime:
    """Make the first tick of the trigger the last full minute that is at least `age` ago."""
    row = engine.conn.execute(
        "UPDATE dpe.triggers SET next_at = date_trunc('minute', now() - %s) RETURNING next_at",
        [age],
    ).fetchone()
    assert row is not None
    return row[0]


def due_once(engine: Engine) -> datetime:
    """Make this minute the trigger's first tick, and the only one of the day."""
    engine.conn.execute(
        "UPDATE dpe.triggers SET cron = to_char(now() AT TIME ZONE 'UTC', 'MI HH24 * * *'),"
        " catch_up = 'last'"  # the minute may be nearly over
    )
    return due_since(engine, timedelta(0))


def runs(engine: Engine) -> list[dict[str, Any]]:
    rows = engine.rows("SELECT event FROM dpe.jobs WHERE event_type = 'cron' ORDER BY seq")
    return [json.loads(event) for (event,) in rows]


def outcomes(engine: Engine) -> list[str]:
    return [tick.outcome for tick in triggers.ticks(engine.conn, "t", 100)]


def test_a_tick_starts_one_run_that_says_so(engine: Engine) -> None:
    trigger(engine, engine.push(ECHO))
    tick = due_once(engine)
    engine.worker()
    until(lambda: outcomes(engine) == ["started"])
    (done,) = triggers.ticks(engine.conn, "t", 9)
    job = engine.ended(done.execution_id)
    at = tick.isoformat().replace("+00:00", "Z")
    assert job.result == ["cron", {"trigger": "t", "tick": at}]
    assert job.event_type == "cron"


def test_its_own_event_is_given_as_it_is(engine: Engine) -> None:
    trigger(engine, engine.push(ECHO), event=[{"id": 2**53 + 1}])
    due_since(engine, timedelta(0))
    trigger_ticks.start_due(engine.conn)
    assert runs(engine) == [[{"id": 2**53 + 1}]]


def test_a_workflow_is_started(engine: Engine) -> None:
    action = engine.push(ECHO)
    flow = workflows.push(
        engine.conn, None, {"stages": [{"actions": [{"action_conf": action.id}]}]}
    )
    triggers.put(engine.conn, {"name": "t", "workflow": flow.id, "cron": "* * * * *"})
    due_once(engine)
    engine.worker()
    until(lambda: outcomes(engine) == ["started"])
    (done,) = triggers.ticks(engine.conn, "t", 9)
    run = engine.ended(done.execution_id)
    assert (run.status, run.event_type) == ("SUCCESS", "cron")
    assert engine.rows("SELECT event_type FROM dpe.jobs WHERE run_id IS NOT NULL") == [
        ("workflow",)
    ]


def test_many_who_keep_the_watch_at_once_start_one_run_a_tick(
    engine: Engine, postgres: Postgres
) -> None:
    trigger(engine, engine.push(ECHO), catch_up="all", catch_up_limit=30)
    due_since(engine, 20 * MINUTE)
    gate = threading.Barrier(6)

    def watch() -> None:
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            gate.wait()
            for _ in range(5):
                trigger_ticks.start_due(conn)

    threads = [threading.Thread(target=watch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ticks = [run["tick"] for run in runs(engine)]
    assert len(ticks) == len(set(ticks)) == 21
    assert ticks == sorted(ticks)


def test_a_watch_that_dies_before_its_commit_has_started_nothing(
    engine: Engine, postgres: Postgres
) -> None:
    trigger(engine, engine.push(ECHO))
    due_since(engine, timedelta(0))
    with psycopg.connect(postgres.url) as dying:
        dying.execute("SELECT 1")  # opens the transaction that is not to be committed
        trigger_ticks.start_due(dying)
        dying.rollback()
    assert (runs(engine), outcomes(engine)) == ([], [])
    trigger_ticks.start_due(engine.conn)
    assert (len(runs(engine)), outcomes(engine)) == (1, ["started"])


@pytest.mark.slow
def test_workers_that_are_killed_start_each_tick_once(engine: Engine) -> None:
    trigger(engine, engine.push(ECHO), catch_up="all")
    due_since(engine, 3 * MINUTE)
    for _ in range(3):
        worker = engine.worker(1)
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
    engine.worker(1)
    until(lambda: len(outcomes(engine)) >= 4, 20)
    until(
        lambda: all(engine.job(t.execution_id).ended for t in triggers.ticks(engine.conn, "t", 9))
    )
    ticks = [run["tick"] for run in runs(engine)]
    assert len(ticks) == len(set(ticks)) == len(outcomes(engine))


def test_a_tick_that_comes_again_because_the_clock_was_set_back_starts_nothing(
    engine: Engine,
) -> None:
    trigger(engine, engine.push(ECHO))
    tick = due_since(engine, timedelta(0))
    trigger_ticks.start_due(engine.conn)
    engine.conn.execute("UPDATE dpe.triggers SET next_at = %s", [tick])
    trigger_ticks.start_due(engine.conn)
    assert len(runs(engine)) == 1


def test_a_clock_that_was_a_year_ahead_does_not_silence_a_trigger(engine: Engine) -> None:
    trigger(engine, engine.push(ECHO))
    engine.conn.execute("UPDATE dpe.triggers SET next_at = now() + interval '1 year'")
    trigger_ticks.rearm(engine.conn)
    found = triggers.get(engine.conn, "t")
    assert found is not None
    assert found.next_at is not None
    assert found.next_at - triggers.now(engine.conn) <= MINUTE


@pytest.mark.parametrize(
    ("words", "started", "outcome"),
    [
        ({"catch_up": "none"}, 0, ["missed"]),
        ({"catch_up": "last"}, 1, ["started"]),
        ({"catch_up": "all"}, 13, ["started"] * 13),
        ({"catch_up": "all", "catch_up_limit": 3}, 3, ["started"] * 3),
    ],
)
def test_what_was_missed_is_caught_up_as_set(
    engine: Engine, words: dict[str, Any], started: int, outcome: list[str]
) -> None:
    trigger(engine, engine.push(ECHO), cron="*/5 * * * *", **words)
    engine.conn.execute(
        # An hour ago on the five minutes, and the last tick two minutes old at least.
        "UPDATE dpe.triggers SET cron = format('%s-59/5 * * * *', minute % 5),"
        " next_at = date_trunc('minute', now()) - interval '62 minutes'"
        " FROM (SELECT extract(minute FROM now() - interval '2 minutes')::int AS minute) AS two"
    )
    trigger_ticks.start_due(engine.conn)
    assert len(runs(engine)) == started
    assert outcomes(engine) == outcome
    trigger_ticks.start_due(engine.conn)
    assert len(runs(engine)) == started  # and it is done with


def test_a_tick_is_skipped_while_the_run_before_goes_on(engine: Engine) -> None:
    trigger(engine, engine.push(ECHO), overlap="skip")
    tick = due_once(engine)
    trigger_ticks.start_due(engine.conn)
    before = triggers.ticks(engine.conn, "t", 1)[0]
    engine.conn.execute(
        "UPDATE dpe.trigger_ticks SET tick = tick - interval '1 day'"  # and now it is the next day
    )
    engine.conn.execute("UPDATE dpe.triggers SET next_at = %s", [tick])
    trigger_ticks.start_due(engine.conn)
    assert (len(runs(engine)), outcomes(engine)) == (1, ["skipped", "started"])
    engine.worker()
    engine.ended(before.execution_id)
    engine.conn.execute("DELETE FROM dpe.trigger_ticks WHERE outcome = 'skipped'")
    engine.conn.execute("UPDATE dpe.triggers SET next_at = %s", [tick])
    until(lambda: len(runs(engine)) == 2)


def test_a_tick_of_an_action_that_runs_alone_gets_in_line(engine: Engine) -> None:
    trigger(engine, engine.push(ECHO, config={"allow_concurrent": False}), catch_up="all")
    due_since(engine, MINUTE)
    trigger_ticks.start_due(engine.conn)
    assert outcomes(engine) == ["started", "started"]
    engine.worker()
    for tick in triggers.ticks(engine.conn, "t", 9):
        assert engine.ended(tick.execution_id).status == "SUCCESS"


def test_what_can_t_be_started_is_told_and_the_others_go_on(engine: Engine) -> None:
    gone, there = engine.push(ECHO), engine.push(ECHO, "a" * 24)
    trigger(engine, gone)
    triggers.put(engine.conn, {"name": "other", "action": there.id, "cron": "* * * * *"})
    actions.delete(engine.conn, gone.id)
    due_since(engine, timedelta(0))
    trigger_ticks.start_due(engine.conn)
    (tick,) = triggers.ticks(engine.conn, "t", 9)
    assert (tick.outcome, tick.execution_id) == ("failed", None)
    assert tick.error == f"action {gone.id} not found"
    assert [run["trigger"] for run in runs(engine)] == ["other"]


def test_a_pause_is_not_caught_up(engine: Engine) -> None:
    made = trigger(engine, engine.push(ECHO), catch_up="all")
    triggers.pause(engine.conn, "t")
    due_since(engine, 20 * MINUTE)
    trigger_ticks.start_due(engine.conn)
    triggers.resume(engine.conn, made)
    trigger_ticks.start_due(engine.conn)
    assert runs(engine) == []
    found = triggers.get(engine.conn, "t")
    assert found is not None
    assert found.next_at is not None
    assert found.next_at > triggers.now(engine.conn)


def test_the_same_definition_again_changes_nothing(engine: Engine) -> None:
    made = trigger(engine, engine.push(ECHO), event=None, catch_up="last")
    assert triggers.put(engine.conn, made.definition()) == made
    triggers.pause(engine.conn, "t")
    paused = triggers.put(engine.conn, made.definition() | {"cron": "0 0 * * *"})
    assert paused.paused_at is None
    assert paused.cron == "0 0 * * *"


def test_what_is_wrong_in_a_definition_is_named(engine: Engine) -> None:
    action = engine.push(ECHO)
    for words, told in [
        ({"cron": "nope"}, "five fields"),
        ({"name": "a b"}, "name"),
        ({"catch_up": "some"}, "catch_up"),
        ({"catch_up": "all", "overlap": "skip"}, "contradict"),
        ({"catch_up_limit": 0}, "catch_up_limit"),
        ({"every": "day"}, "every"),
        ({"workflow": "x"}, "one of them"),
    ]:
        with pytest.raises(Invalid, match=told):
            trigger(engine, action, **words)
    with pytest.raises(NotFound, match="action nobody not found"):
        triggers.put(engine.conn, {"name": "t", "action": "nobody", "cron": "* * * * *"})
