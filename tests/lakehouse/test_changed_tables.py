"""Tables that others change while this process remembers how they looked."""

import datetime as dt
from typing import Any

import pandas as pd
import psycopg
import pytest

from tests.lakehouse.rows import MANY, Pad, found, write
from tests.stack import until
from worker.store.claims import Claim


@pytest.mark.parametrize(
    "changed",
    [
        ("ALTER TABLE data_prim.t ADD colour text", {"id": 2, "colour": "red"}, "red"),
        ("ALTER TABLE data_prim.t RENAME name TO title", {"id": 2, "title": "x"}, None),
        ("ALTER TABLE data_prim.t ALTER amount TYPE text", {"id": 2, "amount": "007"}, "007"),
        ("ALTER TABLE data_prim.t ALTER id TYPE integer", {"id": 2}, None),
        ("ALTER TABLE data_prim.t ALTER ratio TYPE bigint", {"id": 2, "ratio": 5.0}, 5),
        ("ALTER TABLE data_prim.t DROP amount", {"id": 2, "name": "x"}, None),
    ],
)
def test_a_table_that_was_changed_by_others_is_written_as_it_is_now(
    job: Claim,
    table: str,
    way: str,
    conn: psycopg.Connection,
    changed: tuple[str, dict[str, Any], Any],
) -> None:
    change, row, expected = changed
    job.conn.commit()
    rows = 1 if way == "statement" else MANY
    first = [{"id": at, "name": "x", "amount": 1, "ratio": 1.5} for at in range(10, 10 + rows)]
    write(table, pd.DataFrame(first).assign(ratio=1.0))
    job.conn.commit()
    conn.execute(change.encode())
    write(table, pd.DataFrame([row | {"id": row["id"] + 5000 + at} for at in range(rows)]))
    last = list(row)[-1]
    got = job.conn.execute(
        f"SELECT DISTINCT {last} FROM data_prim.t WHERE id >= 5000".encode()
    ).fetchall()
    assert len(got) == (rows if last == "id" else 1)
    if expected is not None:
        assert got == [(expected,)]


def test_a_type_that_was_changed_by_others_is_noticed_within_seconds(
    job: Claim, conn: psycopg.Connection
) -> None:
    conn.execute("CREATE TABLE data_prim.t (id bigint, name text)")
    write("t", [{"id": 1, "name": "2024-05-21 12:00:00+02:00"}])
    job.conn.commit()
    conn.execute("TRUNCATE data_prim.t")
    conn.execute("ALTER TABLE data_prim.t ALTER name TYPE timestamp USING name::timestamp")

    def noon_in_paris() -> bool:
        write("t", [{"id": 2, "name": "2024-05-21 12:00:00+02:00"}])
        return (2, dt.datetime(2024, 5, 21, 10)) in found(job)  # noqa: DTZ001 -- as it is there

    until(noon_in_paris, 5)


def test_a_key_that_a_table_got_since_is_heeded(
    job: Claim, pad: Pad, conn: psycopg.Connection
) -> None:
    conn.execute("CREATE TABLE data_prim.t (id bigint, name text, span interval)")
    write("t", [{"id": 1, "name": "x"}])
    job.conn.commit()
    conn.execute("ALTER TABLE data_prim.t ADD PRIMARY KEY (id)")
    stats = write("t", pad([{"id": 1, "name": "y"}]))
    assert stats["updates"] == 1
    assert found(job) == [(1, "y")]
