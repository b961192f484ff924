"""Building a table beside others who build, write, or have filled it already."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from app.embedded import Postgres
from worker.errors import Conflict, Unavailable
from worker.store.tables import build, list_tables


def described(name: str = "event", *names: str, **more: Any) -> dict[str, Any]:
    attributes = [{"name": each, "type": "Number"} for each in names or ("id",)]
    return {"dataset": "data_prim", "name": name, "attributes": attributes} | more


def test_first_tables_of_a_dataset_are_built_at_once(
    conn: psycopg.Connection, postgres: Postgres
) -> None:
    def build_one(at: int) -> list[str]:
        with psycopg.connect(postgres.url, autocommit=True) as own:
            return build(own, described(f"t{at % 4}"))

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(build_one, range(8)))
    assert sorted(map(len, done)) == [0] * 4 + [1] * 4
    assert [table["name"] for table in list_tables(conn)] == ["t0", "t1", "t2", "t3"]


@pytest.mark.slow
def test_a_change_does_not_wait_for_ever_behind_a_running_job(
    conn: psycopg.Connection, postgres: Postgres
) -> None:
    build(conn, described())
    with psycopg.connect(postgres.url) as job:
        job.execute("INSERT INTO data_prim.event VALUES (1)")
        assert build(conn, described()) == []  # nothing to change: nothing to wait for
        with pytest.raises(Unavailable, match="data_prim.event is in use"):
            build(conn, described("event", "id", "more"))
    assert build(conn, described("event", "id", "more")) == ["added more (numeric)"]


def test_a_key_is_added_where_the_rows_allow_it(conn: psycopg.Connection) -> None:
    build(conn, described())
    conn.execute("INSERT INTO data_prim.event VALUES (1), (1)")
    with pytest.raises(Conflict, match=r"data_prim.event: .*\(Key \(id\)=\(1\) is duplicated"):
        build(conn, described(primary_key=["id"]))
    assert "primary_key" not in list_tables(conn)[0]
    conn.execute("DELETE FROM data_prim.event")
    assert build(conn, described(primary_key=["id"])) == ["added the primary key (id)"]
    assert build(conn, described(primary_key=["id"])) == []


def test_what_postgres_refuses_is_a_conflict_in_its_words(conn: psycopg.Connection) -> None:
    with pytest.raises(Conflict, match='data_prim.event: column name "ctid" conflicts'):
        build(conn, described("event", "ctid"))
    assert list_tables(conn) == []
