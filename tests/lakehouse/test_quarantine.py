"""Rows that don't fit are kept aside with the reason, the others land: both or neither."""

from typing import Any

import pandas as pd
import psycopg
import pytest

from tests.lakehouse.rows import Pad, found
from worker.errors import Invalid
from worker.lakehouse import aside, bulk_insert, connect
from worker.store import quarantine
from worker.store.claims import Claim


def insert(rows: Any, table: str = "t") -> tuple[dict[str, Any], str | None]:
    return bulk_insert(connect("dwh/data_prim/"), table, rows, on_error="quarantine")


def kept(conn: psycopg.Connection, table: str = "t") -> list[tuple[int, str | None, Any]]:
    rows = quarantine.list_rows(conn, "data_prim", table, 1000)
    return [(row.row_number, row.column_name, row.data) for row in rows]


@pytest.mark.parametrize("frame", [True, False], ids=["frame", "dicts"])
def test_good_rows_land_and_bad_ones_are_kept(
    job: Claim, table: str, pad: Pad, frame: bool
) -> None:
    bad = {"id": "two", "name": "bad"}
    rows = pad([{"id": 1, "name": "good"}, bad, {"id": 3, "name": "good"}])
    stats, error = insert(pd.DataFrame(rows) if frame else rows)
    assert error is None
    assert (stats["records"], stats["inserts"], stats["quarantined"]) == (
        len(rows),
        len(rows) - 1,
        1,
    )
    assert 'column "id" is bigint' in stats["warnings"][0]
    assert found(job) == [(1, "good"), (3, "good")]
    ((number, column, data),) = kept(job.conn)
    assert (number, column, data["id"], data["name"]) == (len(rows) - 1, "id", "two", "bad")
    assert job.insert_errors == []


def test_nothing_is_kept_where_the_job_fails(
    job: Claim, table: str, conn: psycopg.Connection
) -> None:
    job.conn.commit()
    insert([{"id": 1}, {"id": "x"}])
    job.conn.rollback()
    assert (kept(conn), found(job)) == ([], [])
    insert([{"id": 1}, {"id": "x"}])
    job.conn.commit()
    assert (len(kept(conn)), found(job)) == (1, [(1, None)])


def test_rows_that_fit_cost_no_further_look(
    job: Claim, table: str, pad: Pad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "_unfit", None)  # whoever calls it fails
    stats, error = insert(pad([{"id": 1, "name": "good"}]))
    assert (error, stats["quarantined"]) == (None, 0)


def test_what_only_writing_shows_is_found_by_halves(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ADD CONSTRAINT positive CHECK (whole > 0)")
    rows = pad([{"id": at, "whole": -1 if at in {3, 40} else 1} for at in range(1, 60)])
    stats, error = insert(rows)
    assert (error, stats["quarantined"], stats["inserts"]) == (None, 2, len(rows) - 2)
    assert [data["id"] for _, _, data in kept(job.conn)] == [3, 40]
    assert len(found(job)) == 57


def test_too_many_of_those_are_an_error_and_leave_nothing(
    job: Claim, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "MAX_TRIES", 5)
    job.conn.execute("ALTER TABLE data_prim.t ADD CONSTRAINT positive CHECK (whole > 0)")
    stats, error = insert([{"id": at, "whole": at % 2} for at in range(1, 60)])
    assert error is not None
    assert "positive" in error
    assert (stats["inserts"], found(job), kept(job.conn)) == (0, [], [])


def test_a_column_that_some_rows_have_and_the_table_lacks(job: Claim, table: str) -> None:
    rows = [{"id": 1}, {"id": 2, "colour": "red"}, {"id": 3, "colour": None}]
    assert insert(rows)[0]["quarantined"] == 1
    assert insert(pd.DataFrame(rows).assign(id=[11, 12, 13]))[0]["quarantined"] == 1
    assert [id for id, _ in found(job)] == [1, 3, 11, 13]
    assert insert([{"id": 4, "colour": "red"}])[1] is not None  # it is not the row


@pytest.mark.parametrize(
    ("table_name", "rows"),
    [
        ("nothing", [{"id": 1}]),
        ("t", [1]),
        ("t", "rows"),
        ("t", [{}]),
        ("t", [{"id": 1, "ID": 2}]),
        ("t", [{"id": 1, "made": 1}]),
        ("keyed", [{"name": "a"}]),
        ("keyed", [{"id": 1}]),
    ],
)
def test_what_is_wrong_with_all_is_an_error_as_ever(
    job: Claim, table: str, table_name: str, rows: Any
) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ADD made int GENERATED ALWAYS AS (1) STORED")
    job.conn.execute("CREATE TABLE data_prim.keyed (id int PRIMARY KEY, name text NOT NULL)")
    stats, error = insert(rows, table_name)
    assert error is not None
    assert (stats["quarantined"], kept(job.conn)) == (0, [])


@pytest.mark.parametrize("value", ["a\0b", "\ud800", float("inf"), object(), {1, 2}])
def test_any_value_can_be_kept(job: Claim, table: str, value: Any) -> None:
    assert insert([{"id": 1}, {"id": 2, "whole": value}])[0]["quarantined"] == 1
    assert [number for number, _, _ in kept(job.conn)] == [2]


def test_a_value_that_must_be_there(job: Claim, table: str) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ALTER name SET NOT NULL")
    insert([{"id": 1, "name": "a"}, {"id": 2, "name": None}])
    assert kept(job.conn) == [(2, "name", {"id": 2, "name": None})]


def test_mended_rows_go_in_once(job: Claim, table: str, conn: psycopg.Connection) -> None:
    insert([{"id": "one", "name": "a"}, {"id": 2}, {"id": "three", "extra": {"deep": [2**70]}}])
    job.conn.commit()
    first, second = quarantine.list_rows(conn, "data_prim", "t", 10)
    nothing = quarantine.replay(conn, "data_prim", "t")
    assert (nothing["replayed"], nothing["left"]) == (0, 2)
    assert 'invalid input syntax for type bigint: "one"' in nothing["errors"][0]["reason"]
    mended = {first.id: {**first.data, "id": 1}}
    for replayed in (1, 0):
        done = quarantine.replay(conn, "data_prim", "t", [first.id], mended if replayed else None)
        assert (done["replayed"], done["left"], done["errors"]) == (replayed, 1, [])
    with pytest.raises(Invalid):
        quarantine.replay(conn, "data_prim", "t", [first.id], mended)
    quarantine.replay(conn, "data_prim", "t", None, {second.id: {**second.data, "id": 3}})
    assert found(job) == [(1, "a"), (2, None), (3, None)]
    assert found(job, "extra")[2] == ({"deep": [2**70]},)


def test_a_replayed_row_is_upserted(job: Claim, conn: psycopg.Connection) -> None:
    job.conn.execute("CREATE TABLE data_prim.k (id bigint PRIMARY KEY, name text, whole int)")
    insert([{"id": 1, "name": "old", "whole": 1}, {"id": 1, "name": "new", "whole": "x"}], "k")
    job.conn.commit()
    (row,) = quarantine.list_rows(conn, "data_prim", "k", 10)
    done = quarantine.replay(conn, "data_prim", "k", [row.id], {row.id: {"id": 1, "name": "new"}})
    assert done["replayed"] == 1
    assert conn.execute("SELECT * FROM data_prim.k").fetchall() == [(1, "new", 1)]


def test_rows_are_dropped(job: Claim, table: str, conn: psycopg.Connection) -> None:
    insert([{"id": "a"}, {"id": "b"}, {"id": 3}])
    job.conn.commit()
    first, _ = quarantine.list_rows(conn, "data_prim", "t", 10)
    assert quarantine.drop(conn, "data_prim", "t", [first.id]) == 1
    assert quarantine.drop(conn, "data_prim", "other") == 0
    assert quarantine.drop(conn, "data_prim", "t") == 1
    assert kept(conn) == []
