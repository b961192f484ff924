"""Datasets on a server of their own: exactly once there, through kills between the two commits."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest

from app.embedded import Postgres
from tests.stack import Engine, Worker, until
from worker.store import jobs, ledger

HANDLER = """
import os, signal, time
from forepaas.dwh import bulk_insert, connect
from worker.lakehouse import other_servers
from worker.store import ending
def handle(event):
    rows = event.content["rows"]
    far, near = connect("dwh/far/"), connect("dwh/data_prim/")
    if event.content.get("reads"):
        rows = near.query("SELECT n FROM t").to_dict("records")
    stats, error = bulk_insert(far, "t", rows)
    if event.content.get("both"):
        bulk_insert(near, "t", rows)
    time.sleep(event.content.get("sleep", 0))
    if event.content.get("raises"):
        raise ValueError("no")
    if event.attempt == 1 and event.content.get("dies") == "before":
        other_servers.store.enter = lambda *a: os._exit(1)
    if event.attempt == 1 and event.content.get("dies") == "between":
        ending.succeed = lambda *a: os._exit(1)
    if event.attempt == 1 and event.content.get("freezes"):
        hold = other_servers.store.hold_claim
        def freeze(*words):
            held = hold(*words)
            os.kill(os.getpid(), signal.SIGSTOP)
            return held
        other_servers.store.hold_claim = freeze
    return [event.attempt, far.query("SELECT count(*) FROM t").iloc[0, 0].item()]
"""


@pytest.fixture(scope="module")
def far_server(home: Path) -> Iterator[Postgres]:
    server = Postgres(home / "far")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def far(far_server: Postgres) -> Iterator[psycopg.Connection]:
    """The other server, with one empty table in dataset `far`."""
    with psycopg.connect(far_server.url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA IF EXISTS far, dpe CASCADE")
        conn.execute("CREATE SCHEMA far CREATE TABLE t (n int)")
        yield conn


@pytest.fixture
def work(engine: Engine, far_server: Postgres, far: psycopg.Connection) -> Callable[..., Worker]:
    """Start a worker that knows where `far` is."""
    engine.conn.execute("CREATE SCHEMA data_prim CREATE TABLE t (n int)")
    engine.conn.execute("DELETE FROM dpe.commits_elsewhere")  # of tests before

    def start(children: int = 1) -> Worker:
        return engine.worker(children, DPE_DATASET_FAR_URL=far_server.url)

    return start


def start(engine: Engine, *numbers: int, **how: Any) -> UUID:
    content = {"rows": [{"n": n} for n in numbers]} | how
    return engine.start(engine.push(HANDLER), content)


def there(conn: psycopg.Connection, dataset: str = "far") -> list[int]:
    return [n for (n,) in conn.execute(f"SELECT n FROM {dataset}.t ORDER BY n".encode())]


def notes(engine: Engine) -> list[Any]:
    return engine.rows("SELECT * FROM dpe.commits_elsewhere")


def test_rows_and_status_stand_together(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection
) -> None:
    work()
    job = engine.ended(start(engine, 1, 2))
    assert (job.status, job.result) == ("SUCCESS", [1, 2])
    assert job.stats is not None
    assert job.stats[0]["inserts"] == 2
    failed = engine.ended(start(engine, 3, raises=True))
    assert failed.status == "FAILED"
    refused = engine.ended(start(engine, 2**40))
    assert refused.status == "FAILED"
    assert 'column "n" is integer' in str(refused.error)
    assert there(far) == [1, 2]
    assert (there(engine.conn, "data_prim"), notes(engine)) == ([], [])


def test_one_dataset_is_read_and_the_other_written(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection
) -> None:
    work()
    engine.conn.execute("INSERT INTO data_prim.t VALUES (7), (8)")
    assert engine.ended(start(engine, reads=True)).status == "SUCCESS"
    assert there(far) == [7, 8]


def test_a_job_that_writes_to_two_servers_is_refused_and_leaves_nothing(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection
) -> None:
    work()
    job = engine.ended(start(engine, 1, both=True))
    assert job.status == "FAILED"
    assert "two servers have no commit in common" in str(job.error)
    assert (there(far), there(engine.conn, "data_prim")) == ([], [])


@pytest.mark.parametrize("dies", ["before", "between"])
def test_a_kill_around_the_first_commit_doubles_no_row_and_loses_none(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection, dies: str
) -> None:
    work()
    job = engine.ended(start(engine, 1, 2, dies=dies))
    # Killed behind the commit, the handler has not run again: its first result is the job's.
    result = [2, 2] if dies == "before" else [1, 2]
    assert (job.status, job.attempt, job.result) == ("SUCCESS", 2, result)
    assert there(far) == [1, 2]
    assert job.stats is not None
    assert job.stats[0]["inserts"] == 2
    assert notes(engine) == []
    assert engine.ended(start(engine, 3)).status == "SUCCESS"


@pytest.mark.slow
def test_a_worker_frozen_with_rows_there_commits_nothing_when_it_wakes(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection
) -> None:
    frozen = work()
    id = start(engine, 1, sleep=1)
    engine.running(id)
    until(lambda: far.execute(
        "SELECT FROM pg_stat_activity WHERE application_name LIKE 'dpe-job %% 1'"
    ).rowcount)  # fmt: skip
    processes = [*frozen.children(), psutil.Process(frozen.pid)]
    for process in processes:
        process.suspend()
    work()
    job = engine.ended(id, 20)
    assert (job.status, job.attempt) == ("SUCCESS", 2)
    for process in processes:
        process.resume()
    time.sleep(2)  # long enough for the woken handler to end its sleep and try to commit
    assert (there(far), engine.job(id)) == ([1], job)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["run again", "stopped"])
def test_a_worker_frozen_right_before_the_commit_holds_up_nobody(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection, then: str
) -> None:
    frozen = work()
    id = start(engine, 1, freezes=True)
    (child,) = frozen.children()
    until(lambda: child.status() == psutil.STATUS_STOPPED, every_s=0.005)
    os.kill(frozen.pid, signal.SIGSTOP)  # its supervisor would replace the child
    if then == "stopped":
        assert jobs.stop(engine.conn, id, "test")
    else:
        work()
        assert engine.ended(id, 20).attempt == 2
    ended = engine.job(id)
    for process in (child, psutil.Process(frozen.pid)):
        process.resume()
    time.sleep(1.5)  # long enough for the woken child to try its commit
    assert engine.job(id) == ended
    assert there(far) == ([] if then == "stopped" else [1])


@pytest.mark.slow
def test_a_server_that_is_away_is_waited_for(
    engine: Engine, work: Callable[..., Worker], far_server: Postgres, far: psycopg.Connection
) -> None:
    work()
    assert engine.ended(start(engine, 1)).status == "SUCCESS"
    far.close()
    far_server.stop()
    id = start(engine, 2)
    until(lambda: engine.job(id).error)
    assert engine.job(id).status == "SUBMITTED"
    assert "its server does not answer" in str(engine.job(id).error)
    far_server.start()
    assert engine.ended(id, 30).status == "SUCCESS"
    with psycopg.connect(far_server.url) as conn:
        assert there(conn) == [1, 2]


def test_bad_rows_are_kept_where_their_dataset_is(
    engine: Engine, work: Callable[..., Worker], far: psycopg.Connection
) -> None:
    work()
    config = {"params": {"on_insert_error": "quarantine"}}
    action = engine.push(HANDLER, config=config)
    job = engine.run(action, {"rows": [{"n": 1}, {"n": "two"}]})
    assert job.status == "SUCCESS", job.error
    assert far.execute("SELECT data FROM dpe.quarantine").fetchall() == [({"n": "two"},)]
    assert engine.rows("SELECT * FROM dpe.quarantine") == []


def test_an_older_attempt_is_ended_before_a_newer_one_begins(
    far_server: Postgres, far: psycopg.Connection
) -> None:
    id = UUID(int=7)
    with (
        ledger.open_server(far_server.url, "old") as old,
        ledger.open_server(far_server.url, "new") as new,
    ):
        old.autocommit = new.autocommit = False
        ledger.begin(old, id, 1)
        old.execute("INSERT INTO far.t VALUES (1)")
        ledger.enter(old, id, 1, None, [])
        ledger.begin(new, id, 2)
        assert ledger.entry(new, id) is None
        with pytest.raises(psycopg.OperationalError):
            old.commit()
    assert there(far) == []
