"""What the watch hands to the broker, and what it looks at to find it."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.stack import Engine
from worker.store import acceptance, jobs, publishing

MAIN = "def handle(event): pass"
GRACE_S = 2.0


def waiting(engine: Engine, count: int, priority: int = 1, *, age_s: float = 60) -> list[UUID]:
    """Jobs that are QUEUED, and were published so long ago."""
    action_id = engine.push(MAIN).id
    starts = [jobs.Start(action_id, None, priority=priority) for _ in range(count)]
    acceptance.accept_all(engine.conn, starts)
    ids = [start.execution_id for start in starts]
    engine.conn.execute(
        "UPDATE dpe.jobs SET published_at = now() - %s * interval '1 second'"
        " WHERE execution_id = ANY(%s)",
        [age_s, ids],
    )
    return ids


def overtaken(engine: Engine, *ages_s: float | None, limit: int = 10) -> list[UUID]:
    """Those found where the message that comes next, by priority, was published so long ago."""
    now = datetime.now(UTC)
    next_at = [None if age is None else now - timedelta(seconds=age) for age in ages_s]
    return [m.execution_id for m in publishing.take_overtaken(engine.conn, next_at, GRACE_S, limit)]


def test_what_was_published_before_the_next_of_its_priority_is_lost(engine: Engine) -> None:
    ids = [waiting(engine, 1, priority)[0] for priority in range(3)]
    assert overtaken(engine, 61, 61, 61) == []  # the next ones are older
    assert overtaken(engine, 59, 59, 59) == []  # within the grace
    assert overtaken(engine, 61, 30, 61) == ids[1:2]
    assert overtaken(engine, 61, 30, 61) == []  # it was published anew, just now
    assert overtaken(engine, 30, None, None) == [ids[0], ids[2]]
    assert overtaken(engine, None, None, None) == []


def test_the_oldest_lost_ones_come_first_and_no_more_than_asked_for(engine: Engine) -> None:
    young, old = waiting(engine, 3, age_s=60), waiting(engine, 3, age_s=90)
    assert sorted(overtaken(engine, None, None, None, limit=3)) == sorted(old)
    assert sorted(overtaken(engine, None, None, None, limit=3)) == sorted(young)


def test_a_round_looks_at_few_rows_however_many_wait(engine: Engine) -> None:
    waiting(engine, 3000)
    due = waiting(engine, 2)
    jobs.unpublished(engine.conn, due)
    engine.conn.execute("ANALYZE dpe.jobs")
    before = rows_read(engine)
    found = [message.execution_id for message in publishing.take_due(engine.conn, 500)]
    assert overtaken(engine, 3600, 3600, 3600) == []
    assert sorted(found) == sorted(due)
    assert rows_read(engine) - before < 50


def rows_read(engine: Engine) -> int:
    """How many rows of the jobs' table this session has read."""
    engine.conn.execute("SELECT pg_stat_force_next_flush()")  # with the end of this statement
    row = engine.conn.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables"
        " WHERE relid = 'dpe.jobs'::regclass"
    ).fetchone()
    assert row is not None
    return row[0]
