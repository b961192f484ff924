"""Tables of a dataset on another server: planned, built, shown, looked at, dropped there."""

import os
from collections.abc import Iterator

import psycopg
import pytest

from app import create_app, resources
from app.embedded import Postgres
from tests.app.conftest import Caller
from tests.app.test_validation import push
from worker.settings import Settings
from worker.store import access

TABLES = "/dwh/v4/tables"
TABLE = f"{TABLES}/far/event"
DESCRIBED = {
    "dataset": "far",
    "name": "event",
    "attributes": [{"name": "id", "type": "Number", "format": "integer"}],
    "primary_key": ["id"],
}


@pytest.fixture
def far(postgres: Postgres, conn: psycopg.Connection) -> Iterator[str]:
    """The address of a database without anything in it."""
    conn.execute("DROP DATABASE IF EXISTS far WITH (FORCE)")
    conn.execute("CREATE DATABASE far")
    yield postgres.url.replace("/dpe?", "/far?")
    conn.execute("DROP DATABASE far WITH (FORCE)")


@pytest.fixture
def caller(far: str, conn: psycopg.Connection) -> Iterator[Caller]:
    app = create_app(Settings.from_environ({**os.environ, "DPE_DATASET_FAR_URL": far}))
    key = access.create_key(conn, "test", "DPE Editor")
    body = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    client = app.test_client()
    yield Caller(client, client.post("/iam/v4/login", json=body).json["token"])
    resources.of(app).close()


def test_tables_are_built_and_looked_at_there(
    caller: Caller, far: str, conn: psycopg.Connection
) -> None:
    assert len(caller.post(f"{TABLES}/plan", json=DESCRIBED).json["steps"]) == 1
    assert caller.post(TABLES, json=DESCRIBED).status_code == 201
    with psycopg.connect(far, autocommit=True) as there:
        there.execute("INSERT INTO far.event VALUES (7)")
        there.execute("ALTER TABLE far.event ADD more int")
    assert conn.execute("SELECT to_regclass('far.event')").fetchone() == (None,)
    assert conn.execute("SELECT count(*) FROM dpe.tables").fetchone() == (0,)
    assert caller.get(TABLE).json["primary_key"] == ["id"]
    assert [step["what"] for step in caller.get(f"{TABLE}/diff").json["steps"]] == [
        "more (integer)"
    ]
    assert caller.get(f"{TABLE}/rows").json == [{"id": 7, "more": None}]
    assert caller.get(f"{TABLE}/export", buffered=True).text == "id,more\n7,\n"
    assert caller.get(f"{TABLE}/quarantine").json == []
    assert [table["name"] for table in caller.get(TABLES).json] == ["event"]
    assert [table["name"] for table in caller.get(f"{TABLES}?dataset=far").json] == ["event"]
    assert caller.get(f"{TABLES}?dataset=data_prim").json == []
    assert caller.delete(f"{TABLE}?allow_data_loss=true").status_code == 200
    assert caller.get(TABLE).status_code == 404


def test_starts_are_checked_against_it(caller: Caller, conn: psycopg.Connection) -> None:
    caller.post(TABLES, json=DESCRIBED)
    path = f"/dpe/v3/actions/{push(conn, 'far/event')}/start?validate=strict"
    assert caller.post(path, json=[{"id": "x"}]).status_code == 422
    assert caller.post(path, json=[{"id": 1}]).status_code == 202


def test_its_address_is_shown_without_what_is_secret(caller: Caller) -> None:
    (shown,) = caller.get("/dwh/v4/datasets").json
    assert (shown["name"], shown["url"], shown["tables"]) == ("far", "postgresql:///far", None)
    put = caller.call("PUT", "/dwh/v4/datasets/far", json={"dialect": "trino"}).json
    assert (put["dialect"], put["url"]) == ("trino", "postgresql:///far")


def test_an_address_that_is_none_is_named() -> None:
    from worker.errors import SettingError

    with pytest.raises(SettingError, match="DPE_DATASET_FAR_URL must start with"):
        Settings.from_environ({"DPE_DATASET_FAR_URL": "mysql://far"})
    settings = Settings.from_environ({"DPE_DATASET_FAR_URL": "postgresql://u:hunter2@far/x"})
    assert "hunter2" not in repr(settings)
