"""Jobs that a child takes together: each has its own end, and none waits for another."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from app.embedded import Postgres
from tests.stack import Engine, message_of, until
from worker import broker
from worker.store import claims, ending, workers
from worker.store.ending import JobConnection
from worker.store.publishing import Message

MAIN = """
import os, time
from forepaas.dwh import bulk_insert, connect

def handle(event):
    asked = event.content
    if "row" in asked:
        bulk_insert(connect("dwh/data_prim/"), "t", [{"n": asked["row"]}])
    if "query" in asked:
        connect("dwh/data_prim/").query(f"INSERT INTO t VALUES ({asked['query']})")
    if asked.get("sleep"):
        time.sleep(asked["sleep"])
    if asked.get("die") and event.attempt == 1:
        os._exit(1)
    if "fail" in asked:
        raise ValueError(asked["fail"])
    return asked
"""


@pytest.fixture
def engine(engine: Engine) -> Engine:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute(
        "CREATE TABLE data_prim.t (n int, CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)"
    )
    return engine


def publish(engine: Engine, contents: list[dict[str, Any]]) -> list[UUID]:
    """Accept jobs and publish them in this order, before a worker starts.

    A first one is put before them: Celery takes it, and the child takes the others itself.
    """
    action = engine.push(MAIN)
    accepted = [engine.accept(action, content) for content in [{}, *contents]]
    for job in accepted:
        broker.publish([message_of(job)])
    return [job.execution_id for job in accepted[1:]]


def rows(engine: Engine) -> list[int]:
    return [n for (n,) in engine.rows("SELECT n FROM data_prim.t ORDER BY n")]


def test_each_has_its_own_end_its_rows_and_its_log(engine: Engine) -> None:
    contents: list[dict[str, Any]] = [{"row": n} for n in range(60)]
    contents[7] |= {"fail": "the eighth"}
    contents[20] = {"query": 20}
    contents[30] = {}  # asks Postgres nothing
    contents[40] = {"query": 40, "row": 400}
    ids = publish(engine, contents)
    engine.worker(children=1)
    jobs = [engine.ended(id) for id in ids]
    assert [at for at, job in enumerate(jobs) if job.status != "SUCCESS"] == [7]
    assert jobs[7].error is not None
    assert jobs[7].error["message"] == "the eighth"
    assert rows(engine) == sorted({*range(60), 400} - {7, 30})
    for id, job in zip(ids, jobs, strict=True):
        said = [line["message"] for line in engine.log(id)]
        assert said[0] == '"Test" BEGIN (custom) action.'
        assert said[-1].startswith('"Test" END (custom) action.')
        assert (job.attempt, job.losses) == (1, 0)
        assert job.started_at is not None
        assert job.ended_at is not None
        assert job.submitted_at < job.started_at <= job.ended_at


def test_a_slow_one_holds_up_none(engine: Engine) -> None:
    slow, *quick = publish(engine, [{"sleep": 20}, *[{"row": n} for n in range(40)]])
    engine.worker(children=2)
    for id in quick:
        job = engine.ended(id, 4)
        assert (job.status, job.losses) == ("SUCCESS", 0)
    assert engine.job(slow).status == "PROCESSING"
    assert rows(engine) == list(range(40))


def test_an_end_waits_for_no_slow_one(engine: Engine) -> None:
    before, slow = publish(engine, [{"row": 1}, {"sleep": 20}, *[{}] * 30])[:2]
    engine.worker(children=1)
    assert engine.ended(before, 4).status == "SUCCESS"
    assert engine.job(slow).status in {"QUEUED", "PROCESSING"}
    assert rows(engine) == [1]


def test_a_commit_that_is_refused_fails_its_job_alone(engine: Engine) -> None:
    ids = publish(engine, [{"row": n} for n in (1, 2, 2, *range(3, 40))])
    engine.worker(children=1)
    jobs = [engine.ended(id) for id in ids]
    assert [at for at, job in enumerate(jobs) if job.status != "SUCCESS"] == [2]
    assert jobs[2].error is not None
    assert 'duplicate key value violates unique constraint "once"' in jobs[2].error["message"]
    assert rows(engine) == list(range(1, 40))


def test_those_in_hand_of_a_process_that_dies_are_run_once(engine: Engine) -> None:
    contents: list[dict[str, Any]] = [{"row": n} for n in range(40)]
    contents[5] |= {"die": True}
    ids = publish(engine, contents)
    engine.worker(children=1)
    for id in ids:
        job = engine.ended(id)
        assert job.status == "SUCCESS"
        assert job.losses <= 1
    assert rows(engine) == list(range(40))


def test_those_in_hand_outlive_the_connection(engine: Engine) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    main = MAIN.replace(
        'if "fail" in asked',
        f'if asked.get("cut"): connect("dwh/data_prim/").query("{cut}")\n    if "fail" in asked',
    )
    action = engine.push(main)
    contents: list[dict[str, Any]] = [{}, *[{"row": n} for n in range(40)]]
    contents[3] |= {"cut": True}
    accepted = [engine.accept(action, content) for content in contents]
    for job in accepted:
        broker.publish([message_of(job)])
    engine.worker(children=1, DPE_MAX_LOSSES="2")
    ended = [engine.ended(job.execution_id) for job in accepted]
    # The one that cuts its own connection is lost each time, and no other with it.
    assert [at for at, job in enumerate(ended) if job.status != "SUCCESS"] == [3]
    assert [job.losses for job in ended if job.status == "SUCCESS"] == [0] * 40
    assert rows(engine) == [n for n in range(40) if n != 2]


def test_a_message_that_came_twice_is_one_job(engine: Engine) -> None:
    action = engine.push(MAIN)
    accepted = [engine.accept(action, {"row": n}) for n in range(20)]
    for job in accepted:
        broker.publish([message_of(job)] * 2)
    engine.worker(children=1)
    for job in accepted:
        assert engine.ended(job.execution_id).attempt == 1
    assert rows(engine) == list(range(20))


# By hand, in this process: what a child does between two jobs, at the moment that a test chooses.


class Hand:
    def __init__(self, engine: Engine, url: str) -> None:
        self.engine, self.worker_id = engine, uuid4()
        workers.register(engine.conn, self.worker_id, "here", 1, 1)
        self.conn = JobConnection.connect(url)
        self.told: list[psycopg.Error | None] = []

    def claim(self, *accepted: Any) -> list[claims.Claim]:
        ids = [job.execution_id for job in accepted]
        found = claims.claim_ahead(self.engine.conn, self.conn, ids, self.worker_id, 1)
        return sorted(found, key=lambda claim: ids.index(claim.execution_id))

    def end_later(self, job: claims.Claim) -> bool:
        return ending.succeed_later(job, b"null", (1, b"[]"), self.told.append)


@pytest.fixture
def hand(engine: Engine, postgres: Postgres) -> Iterator[Hand]:
    made = Hand(engine, postgres.url)
    yield made
    made.conn.close()


def test_whatever_comes_next_sends_the_end_first(engine: Engine, hand: Hand) -> None:
    action = engine.push(MAIN)
    nexts: list[Callable[[], object]] = [
        lambda: hand.conn.execute("SELECT 1"),
        hand.conn.rollback,
        hand.conn.commit,
        lambda: hand.conn.cursor().copy("COPY (SELECT 1) TO STDOUT").__enter__(),
        lambda: ending.query(hand.conn, b"SELECT 1"),
        hand.conn.send_end,
    ]
    for n, ask in enumerate(nexts):
        (job,) = hand.claim(engine.accept(action))
        hand.conn.execute("INSERT INTO data_prim.t VALUES (%s)", [n])
        assert hand.end_later(job)
        assert engine.job(job.execution_id).status == "PROCESSING"
        ask()
        assert engine.job(job.execution_id).status == "SUCCESS"
        hand.conn.rollback()
        assert rows(engine) == list(range(n + 1))
    assert hand.told == [None] * len(nexts)


def test_who_lost_the_claim_meanwhile_commits_nothing(engine: Engine, hand: Hand) -> None:
    action = engine.push(MAIN)
    lost, other = hand.claim(engine.accept(action), engine.accept(action))
    hand.conn.execute("INSERT INTO data_prim.t VALUES (1)")
    assert hand.end_later(lost)
    engine.conn.execute(
        "UPDATE dpe.jobs SET attempt = attempt + 1 WHERE execution_id = %s", [lost.execution_id]
    )
    # The next job's statement was sent with the end, and stands all the same.
    ending.query(hand.conn, b"BEGIN;INSERT INTO data_prim.t VALUES (2)")
    assert [error.sqlstate for error in hand.told if error] == [ending.NO_OWNER]
    ending.succeed(other, None, (1, b"[]"))
    assert rows(engine) == [2]
    assert engine.job(lost.execution_id).status == "PROCESSING"
    assert engine.job(other.execution_id).status == "SUCCESS"


def test_an_error_of_the_next_statement_leaves_the_end_alone(engine: Engine, hand: Hand) -> None:
    (job,) = hand.claim(engine.accept(engine.push(MAIN)))
    hand.conn.execute("INSERT INTO data_prim.t VALUES (1)")
    assert hand.end_later(job)
    results = ending.query(hand.conn, b"BEGIN;INSERT INTO data_prim.none VALUES (2)")
    assert isinstance(ending.failure(results), psycopg.errors.UndefinedTable)
    hand.conn.rollback()
    assert (hand.told, rows(engine)) == ([None], [1])


def test_a_connection_that_is_lost_tells_so(engine: Engine, hand: Hand) -> None:
    (job,) = hand.claim(engine.accept(engine.push(MAIN)))
    hand.conn.execute("INSERT INTO data_prim.t VALUES (1)")
    assert hand.end_later(job)
    engine.conn.execute("SELECT pg_terminate_backend(%s)", [hand.conn.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        hand.conn.execute("SELECT 1")
    assert isinstance(hand.told[0], psycopg.OperationalError)
    assert (rows(engine), engine.job(job.execution_id).status) == ([], "PROCESSING")


def test_only_first_attempts_without_bounds_are_claimed_ahead(engine: Engine, hand: Hand) -> None:
    action = engine.push(MAIN)
    plain, tried, expires, limited = [engine.accept(action) for _ in range(4)]
    for change, job in (
        ("attempt = 1", tried),
        ("deadline = now() + interval '1 hour'", expires),
        ("max_running = 2", limited),
    ):
        engine.conn.execute(
            f"UPDATE dpe.jobs SET {change} WHERE execution_id = %s".encode(), [job.execution_id]
        )
    found = hand.claim(plain, tried, expires, limited)
    assert [claim.execution_id for claim in found] == [plain.execution_id]


def test_what_is_withdrawn_is_claimed_anew_under_another_number(engine: Engine, hand: Hand) -> None:
    accepted = engine.accept(engine.push(MAIN))
    (job,) = hand.claim(accepted)
    (message,) = claims.withdraw(engine.conn, [job])
    assert (message.execution_id, message.name) == (job.execution_id, job.name)
    assert engine.job(job.execution_id).status == "QUEUED"
    again = claims.claim(engine.conn, hand.conn, job.execution_id, hand.worker_id, 1)
    assert again is not None
    assert again.attempt == 2
    assert claims.withdraw(engine.conn, [job]) == []  # it is another's by now


def test_few_that_wait_are_shared_and_many_are_taken_together(engine: Engine) -> None:
    def wait(count: int, priority: int = 1) -> None:
        at = datetime.now(UTC)
        broker.publish(Message(uuid4(), "Test", at, priority) for _ in range(count))

    broker.queue_client.cache_clear()
    broker._taking.cache_clear()
    try:
        wait(7)
        taken = [broker.take() for _ in range(8)]
        assert [(len(jobs), left) for jobs, left in taken] == [(1, True)] * 6 + [
            (1, False),
            (0, False),
        ]
        wait(24)
        assert len(broker.take()[0]) == 4
        wait(1000)
        assert len(broker.take()[0]) == broker.MOST_TAKEN
        wait(1, priority=0)
        assert [job.priority for job in broker.take()[0]] == [0]  # the most urgent, alone
        engine.redis.flushall()
        wait(100, priority=2)
        assert len(broker.take()[0]) == 1
    finally:
        broker.queue_client().close()
        broker.queue_client.cache_clear()
        broker._taking.cache_clear()


def test_the_order_is_that_of_publishing(engine: Engine) -> None:
    ids = publish(engine, [{"query": n} for n in range(30)])
    engine.worker(children=1)
    until(lambda: engine.job(ids[-1]).ended)
    found = engine.rows("SELECT execution_id FROM dpe.jobs ORDER BY ended_at OFFSET 1")
    assert [id for (id,) in found] == ids
