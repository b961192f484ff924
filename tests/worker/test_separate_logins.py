"""The engine and the datasets under logins of their own: who can't reach what."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import errors

from app import create_app, resources
from app.embedded import Postgres
from tests.app.conftest import Caller
from tests.stack import Engine, Worker, until
from tests.worker.workflows import stages, start
from worker.errors import SettingError
from worker.settings import Settings, current_settings
from worker.store import access, logins, migrate
from worker.store.database import connect

TABLE = {
    "dataset": "sales",
    "name": "orders",
    "attributes": [
        {"name": "id", "type": "Number", "format": "integer"},
        {"name": "item", "type": "String"},
    ],
    "primary_key": ["id"],
}
KEEP = """
import os
from forepaas.dwh import bulk_insert, connect
from worker.store import ending
def handle(event):
    sales = connect("dwh/sales/")
    stats, error = bulk_insert(sales, "orders", event.content["rows"])
    if "file" in event.content:
        bucket = connect("data_store/reports")
        bucket.put(event.content["file"], f"attempt {event.attempt}")
        bucket.delete("old.txt")
    if event.content.get("dies") and event.attempt == 1:
        ending.succeed = lambda *a: os._exit(1)
    count = sales.query("SELECT count(*) FROM orders").iloc[0, 0].item()
    return [stats["inserts"], count]
"""
REACH = """
from forepaas.dwh import bulk_insert, connect
def handle(event):
    sales = connect("dwh/sales/")
    bulk_insert(sales, "orders", [{"id": 99, "item": "with it"}])
    sales.query(event.content)
"""


@dataclass
class Separate:
    """Both addresses; the conn is the engine's own."""

    engine_url: str
    datasets_url: str
    caller: Caller


def url(server: Postgres, user: str, database: str) -> str:
    parts = urlsplit(server.url)
    return f"postgresql://{user}:{quote('a b/c', safe='')}@/{database}?{parts.query}"


@pytest.fixture
def separate(postgres: Postgres, conn: psycopg.Connection) -> Iterator[Separate]:
    """Two new logins, made as `dpe migrate --admin` makes them, and an API that has them."""
    names = (("apart_engine", "apart"), ("apart_datasets", "apart_rows"))
    urls = [url(postgres, *name) for name in names]
    made = logins.make(conn, [logins.Login.of("URL", one) for one in urls])
    assert len(made) == 4
    with connect(urls[0], "test") as own:
        migrate.migrate(own)
        key = access.create_key(own, "test", "DPE Editor")
    given = {"DPE_DATABASE_URL": urls[0], "DPE_DATASETS_URL": urls[1]}
    app = create_app(Settings.from_environ({**os.environ, **given}))
    body = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    client = app.test_client()
    yield Separate(*urls, Caller(client, client.post("/iam/v4/login", json=body).json["token"]))
    resources.of(app).close()
    for user, database in names:
        conn.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())
        conn.execute(f"DROP ROLE {user}".encode())


@pytest.fixture
def apart(separate: Separate, engine: Engine) -> Iterator[Engine]:
    """An engine whose record is in the database of its own login, with the table built."""
    built = separate.caller.post("/dwh/v4/tables", json=TABLE)
    assert built.status_code == 201, built.text
    with connect(separate.engine_url, "test") as own:
        there, engine.conn = engine.conn, own
        yield engine
        engine.conn = there


@pytest.fixture
def work(apart: Engine, separate: Separate) -> Callable[[], Worker]:
    return lambda: apart.worker(
        2, DPE_DATABASE_URL=separate.engine_url, DPE_DATASETS_URL=separate.datasets_url
    )


def orders(separate: Separate) -> list[Any]:
    with psycopg.connect(separate.datasets_url) as conn:
        return conn.execute("SELECT id, item FROM sales.orders ORDER BY id").fetchall()


def test_neither_login_can_open_the_others_database(separate: Separate) -> None:
    crossed = [
        separate.engine_url.replace("/apart?", "/apart_rows?"),
        separate.datasets_url.replace("/apart_rows?", "/apart?"),
    ]
    for address in crossed:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(address)
    for address in (separate.engine_url, separate.datasets_url):
        with psycopg.connect(address) as conn:
            row = conn.execute(
                "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone()
            assert row == (False,)
            with pytest.raises(errors.InsufficientPrivilege):
                conn.execute("COPY (SELECT 1) TO PROGRAM 'true'")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT * FROM dpe.jobs", 'relation "dpe.jobs" does not exist'),
        ("UPDATE dpe.keys SET role = 'DPE Admin'", 'relation "dpe.keys" does not exist'),
        ("SET ROLE apart_engine", "permission denied"),
        ("RESET ROLE; SELECT * FROM dpe.jobs", 'relation "dpe.jobs" does not exist'),
        ("CREATE ROLE another", "permission denied"),
        ("SELECT pg_read_file('/etc/hostname')", "permission denied"),
    ],
)
def test_what_a_handlers_sql_cannot_reach(
    apart: Engine, separate: Separate, work: Callable[[], Worker], statement: str, words: str
) -> None:
    work()
    job = apart.run(apart.push(REACH), statement)
    assert job.status == "FAILED"
    assert words in str(job.error), job.error
    assert orders(separate) == []


def test_rows_and_status_stand_together(
    apart: Engine, separate: Separate, work: Callable[[], Worker]
) -> None:
    work()
    action = apart.push(KEEP, config={"params": {"feeds": "sales/orders"}})
    job = apart.run(action, {"rows": [{"id": 1, "item": "a"}, {"id": 2, "item": "b"}]})
    assert (job.status, job.result) == ("SUCCESS", [2, 2]), job.error
    refused = apart.run(action, {"rows": [{"id": "x", "item": "a"}]})
    assert refused.status == "FAILED"
    assert 'column "id" is bigint' in str(refused.error)
    assert orders(separate) == [(1, "a"), (2, "b")]


def test_a_kill_between_the_two_commits_doubles_and_loses_nothing(
    apart: Engine, separate: Separate, work: Callable[[], Worker]
) -> None:
    work()
    job = apart.run(apart.push(KEEP), {"rows": [{"id": 1, "item": "a"}], "dies": True})
    assert (job.status, job.attempt, job.result) == ("SUCCESS", 2, [1, 1])
    assert orders(separate) == [(1, "a")]


@pytest.mark.parametrize("dies", [False, True])
def test_rows_and_files_of_a_job_come_together(
    apart: Engine, separate: Separate, work: Callable[[], Worker], dies: bool
) -> None:
    store = current_settings().home / "data_store" / "reports"
    store.mkdir(parents=True, exist_ok=True)
    (store / "old.txt").write_text("old")
    work()
    content = {"rows": [{"id": 1, "item": "a"}], "file": f"{dies}.txt", "dies": dies}
    job = apart.run(apart.push(KEEP), content)
    assert (job.status, job.attempt, job.result) == ("SUCCESS", 1 + dies, [1, 1]), job.error
    assert orders(separate) == [(1, "a")]
    file = store / f"{dies}.txt"
    # Of a job that was taken over, the watch brings the files.
    until(lambda: file.exists() and not (store / "old.txt").exists())
    assert file.read_text() == "attempt 1"  # the handler has not run again
    failed = apart.run(apart.push(KEEP), content | {"rows": [{"id": "x"}], "file": "none.txt"})
    assert failed.status == "FAILED"
    assert sorted(path.name for path in store.iterdir() if path.name == "none.txt") == []


def test_a_killed_worker_leaves_nothing_behind(
    apart: Engine, separate: Separate, work: Callable[[], Worker]
) -> None:
    worker = work()
    slow = KEEP.replace("    count =", "    __import__('time').sleep(3)\n    count =")
    id = apart.start(apart.push(slow), {"rows": [{"id": 1, "item": "a"}]})
    apart.running(id)
    worker.end(signal.SIGKILL)
    work()
    job = apart.ended(id, 40)
    assert (job.status, job.result) == ("SUCCESS", [1, 1])
    assert orders(separate) == [(1, "a")]


def test_bad_rows_go_into_quarantine_and_workflows_go_on(
    apart: Engine, separate: Separate, work: Callable[[], Worker]
) -> None:
    work()
    config = {"display_name": "keep", "params": {"on_insert_error": "quarantine"}}
    apart.push(KEEP, config=config)
    flow = stages([{"action_conf": "keep", "name": "a"}], [{"action_conf": "keep", "name": "b"}])
    run = start(apart, flow, {"rows": [{"id": 1, "item": "a"}, {"id": "x"}]})
    assert apart.ended(run).status == "SUCCESS"
    assert orders(separate) == [(1, "a")]
    path = "/dwh/v4/tables/sales/orders/quarantine"
    assert [row["data"]["id"] for row in separate.caller.get(path).json] == ["x", "x"]


def test_the_api_goes_to_the_rows_by_the_datasets_login_alone(
    apart: Engine, separate: Separate, work: Callable[[], Worker]
) -> None:
    work()
    action = apart.push(KEEP, config={"params": {"feeds": "sales/orders"}})
    caller = separate.caller
    strict = f"/dpe/v3/actions/{action.id}/start?validate=strict"
    assert caller.post(strict, json=[{"id": "x", "item": "a"}]).status_code == 422
    apart.run(action, {"rows": [{"id": 7, "item": "a"}]})
    rows = "/dwh/v4/tables/sales/orders"
    assert caller.get(f"{rows}/rows").json == [{"id": 7, "item": "a"}]
    assert caller.get(f"{rows}/export", buffered=True).text == "id,item\n7,a\n"
    assert [table["name"] for table in caller.get("/dwh/v4/tables").json] == ["orders"]
    (listed,) = caller.get("/dwh/v4/datasets").json
    assert (listed["name"], listed["tables"]) == ("sales", 1)
    exported = caller.get("/dpe/v3/configuration/export", buffered=True)
    assert exported.status_code == 200
    assert apart.conn.execute("SELECT to_regclass('sales.orders')").fetchone() == (None,)


def test_what_would_not_separate_is_refused(
    postgres: Postgres, conn: psycopg.Connection, separate: Separate
) -> None:
    engine = logins.Login.of("URL", separate.engine_url)
    rows = logins.Login.of("URL", separate.datasets_url)
    assert logins.make(conn, [engine, rows]) == []  # all is there: nothing is made
    for wrong, words in (
        ([engine, engine], "the same login"),
        ([engine, logins.Login(rows.user, "x", engine.database)], "the same database"),
        ([logins.Login("dpe", "x", "dpe")], "administrator's own"),
        ([logins.Login("somebody", "x", "dpe")], "belongs to dpe"),
    ):
        with pytest.raises(SettingError, match=words):
            logins.make(conn, wrong)
    conn.execute("DROP ROLE somebody")
    with pytest.raises(SettingError, match="DPE_DATASETS_URL must have"):
        logins.Login.of("DPE_DATASETS_URL", "postgresql://host/db")
