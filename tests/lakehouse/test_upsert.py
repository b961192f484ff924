"""Tables with a primary key: rows that are there are updated, and counted as that."""

import pandas as pd
import pytest

from tests.lakehouse.rows import MANY, Pad, found, refusal, write
from worker.store.claims import Claim


@pytest.fixture(autouse=True)
def keyed(job: Claim) -> None:
    job.conn.execute(
        "CREATE TABLE data_prim.t (id bigint PRIMARY KEY, name text, note text DEFAULT 'mine',"
        " span interval)"
    )


def test_rows_with_a_known_key_are_updated_and_counted(job: Claim, pad: Pad) -> None:
    write("t", pad([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    job.conn.execute("UPDATE data_prim.t SET note = 'kept'")
    rows = pad([{"id": 2, "name": "new"}, {"id": 3, "name": "c"}])
    stats = write("t", rows)
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (1, len(rows) - 1, 0)
    assert found(job, "id, name, note") == [
        (1, "a", "kept"),
        (2, "new", "kept"),
        (3, "c", "mine"),
    ]


def test_of_rows_with_the_same_key_the_last_one_wins(job: Claim, pad: Pad) -> None:
    rows = pad([{"id": 1, "name": "first"}, {"id": 2, "name": "x"}, {"id": 1, "name": "last"}])
    stats = write("t", rows)
    assert (stats["records"], stats["inserts"]) == (len(rows), len(rows) - 1)
    assert (stats["updates"], stats["skipped"]) == (0, 1)
    assert stats["warnings"]
    assert found(job) == [(1, "last"), (2, "x")]


def test_keys_that_are_the_same_to_postgres_alone_are_the_same(job: Claim, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ALTER id TYPE numeric")
    rows = pad([{"id": "1", "name": "first"}, {"id": "1.0", "name": "last"}])
    stats = write("t", rows)
    assert (stats["inserts"], stats["skipped"]) == (len(rows) - 1, 1)
    assert found(job) == [(1, "last")]


def test_a_row_that_is_nothing_but_its_key_changes_nothing(job: Claim, way: str) -> None:
    rows = [{"id": at} for at in range(3 if way == "statement" else MANY)]
    assert write("t", rows)["inserts"] == len(rows)
    stats = write("t", rows)
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (0, 0, len(rows))


def test_data_without_the_key_are_refused(job: Claim, pad: Pad) -> None:
    rows = [{"name": "x", "span": row.get("span")} for row in pad([{"id": 1, "name": "x"}])]
    assert "primary key" in refusal(job, "t", rows)


def test_a_key_without_a_value_is_refused(job: Claim, pad: Pad) -> None:
    rows = pad([{"id": 1, "name": "x"}, {"id": None, "name": "y"}])
    said = refusal(job, "t", pd.DataFrame(rows))
    assert f"row {len(rows)}" in said


def test_a_key_of_two_columns(job: Claim, pad: Pad) -> None:
    job.conn.execute("DROP TABLE data_prim.t")
    job.conn.execute(
        "CREATE TABLE data_prim.t (name text, id numeric, span interval, n int,"
        " PRIMARY KEY (name, id))"
    )
    write("t", pad([{"id": 1, "name": "a", "n": 1}, {"id": 1, "name": "b", "n": 2}]))
    stats = write("t", pad([{"id": 1, "name": "a", "n": 3}]))
    assert stats["inserts"] == 0
    assert found(job, "name, id, n") == [("a", 1, 3), ("b", 1, 2)] or found(job, "name, id, n") == [
        ("b", 1, 2),
        ("a", 1, 3),
    ]


def test_rows_of_partitions_are_counted_as_well(job: Claim, pad: Pad) -> None:
    job.conn.execute("DROP TABLE data_prim.t")
    job.conn.execute(
        "CREATE TABLE data_prim.t (id bigint PRIMARY KEY, name text, span interval)"
        " PARTITION BY RANGE (id);"
        "CREATE TABLE data_prim.t_few PARTITION OF data_prim.t FOR VALUES FROM (0) TO (2);"
        "CREATE TABLE data_prim.t_rest PARTITION OF data_prim.t DEFAULT"
    )
    write("t", pad([{"id": 1, "name": "a"}]))
    rows = pad([{"id": 1, "name": "new"}, {"id": 2, "name": "b"}])
    stats = write("t", rows)
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (1, len(rows) - 1, 0)
    assert found(job) == [(1, "new"), (2, "b")]


def test_what_a_trigger_keeps_out_is_not_counted_as_written(job: Claim, pad: Pad) -> None:
    job.conn.execute(
        "CREATE FUNCTION data_prim.keep_out() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.name = 'no' THEN RETURN NULL; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER keep_out BEFORE INSERT ON data_prim.t FOR EACH ROW"
        " EXECUTE FUNCTION data_prim.keep_out()"
    )
    rows = pad([{"id": 1, "name": "a"}, {"id": 2, "name": "no"}])
    stats = write("t", rows)
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (len(rows) - 1, 0, 1)
    assert found(job) == [(1, "a")]
