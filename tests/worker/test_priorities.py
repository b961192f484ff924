"""Jobs of high priority before those of default, those before low ones (F9)."""

import pytest

from tests.stack import Engine, message_of, until
from worker import broker
from worker.errors import Invalid
from worker.store import acceptance, jobs

NOTES = "import time\ndef handle(event): time.sleep(0.02)"


def push(engine: Engine, priority: str) -> str:
    return engine.push(NOTES, config={"priority": priority}).id


def wait_in_line(engine: Engine, action_id: str, count: int) -> list[jobs.Accepted]:
    found = acceptance.accept_all(engine.conn, [jobs.Start(action_id, None) for _ in range(count)])
    accepted = [job for job in found if job is not None]
    broker.publish([message_of(job) for job in accepted])
    return accepted


def in_order_of_start(engine: Engine) -> list[str]:
    rows = engine.rows(
        "SELECT v.config->>'priority' FROM dpe.jobs j JOIN dpe.action_versions v"
        " USING (action_id, version) ORDER BY j.started_at"
    )
    return [priority for (priority,) in rows]


def test_f09_of_those_that_wait_the_high_one_is_next(engine: Engine) -> None:
    low, default, high = (push(engine, name) for name in ("low", "default", "high"))
    waiting = wait_in_line(engine, low, 100)
    waiting += wait_in_line(engine, default, 1)
    waiting += wait_in_line(engine, high, 1)
    engine.worker(children=1)
    for job in waiting:
        engine.ended(job.execution_id)
    assert in_order_of_start(engine) == ["high", "default"] + ["low"] * 100


def test_f09_a_child_that_helps_itself_keeps_to_the_order(engine: Engine) -> None:
    for name in ("low", "default", "high"):
        wait_in_line(engine, push(engine, name), 1)
    taken = [broker.take() for _ in range(4)]
    assert [[job.priority for job in jobs] for jobs, _ in taken] == [[0], [1], [2], []]
    assert [left for _, left in taken] == [True, True, False, False]  # of all priorities


def test_f09_a_high_one_that_comes_later_overtakes(engine: Engine) -> None:
    low, high = push(engine, "low"), push(engine, "high")
    waiting = wait_in_line(engine, low, 100)
    engine.worker(children=1)
    until(lambda: engine.job(waiting[5].execution_id).ended)
    late = wait_in_line(engine, high, 1)[0]
    engine.ended(late.execution_id)
    assert engine.rows("SELECT count(*) FROM dpe.jobs WHERE status = 'SUCCESS'")[0][0] < 50


def test_a_start_may_say_another_priority_than_its_action(engine: Engine) -> None:
    action = engine.push(NOTES)
    found = acceptance.accept_all(
        engine.conn, [jobs.Start(action.id, None, priority=2), jobs.Start(action.id, None)]
    )
    assert [job.priority for job in found if job] == [2, 1]


def test_lost_messages_are_found_in_the_line_of_their_priority(engine: Engine) -> None:
    low, default = push(engine, "low"), push(engine, "default")
    waiting = wait_in_line(engine, low, 2)
    assert engine.redis.delete(broker.LISTS[2])
    waiting += wait_in_line(engine, default, 1)
    engine.worker(children=1)
    for job in waiting:
        assert engine.ended(job.execution_id).status == "SUCCESS"


@pytest.mark.parametrize("priority", ["urgent", 1, ["high"]])
def test_an_unknown_priority_is_refused_at_the_push(engine: Engine, priority: object) -> None:
    with pytest.raises(Invalid, match='"priority" must be one of high, default, low, got'):
        engine.push(NOTES, config={"priority": priority})
