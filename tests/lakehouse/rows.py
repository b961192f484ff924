"""What the tests of inserts do: claim a job, write rows, read them, have them refused."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any
from uuid import UUID, uuid4

import psycopg

from worker.lakehouse import bulk_insert, connect
from worker.store.claims import Claim

MANY = 1_500  # more than go in one statement

Rows = list[dict[str, Any]]
Pad = Callable[[Rows], Rows]


def claimed(conn: psycopg.Connection, id: UUID | None = None, attempt: int = 1) -> Claim:
    """A claim of a plain job; what else a claim has to have is None."""
    others = {f.name: None for f in fields(Claim) if f.default is f.default_factory is MISSING}
    known = {
        "execution_id": id or uuid4(),
        "attempt": attempt,
        "action_id": "5eaf0db7f6f51d5255974217",
        "version": 1,
        "name": "test",
        "event_type": "api",
        "failures": 0,
        "conn": conn,
    }
    return Claim(**others | known)


def found(job: Claim, columns: str = "id, name") -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM data_prim.t WHERE id IS NULL OR id < 10000 ORDER BY id"
    return job.conn.execute(query.encode()).fetchall()


def write(table: str, rows: Any) -> dict[str, Any]:
    stats, error = bulk_insert(connect("dwh/data_prim/"), table, rows)
    assert error is None
    return stats


def refusal(job: Claim, table: str, rows: Any) -> str:
    stats, error = bulk_insert(connect("dwh/data_prim/"), table, rows)
    assert error is not None
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (0, 0, len(rows))
    assert job.insert_errors[-1] == error
    assert error in stats["warnings"]
    assert found(job) == []
    return error
