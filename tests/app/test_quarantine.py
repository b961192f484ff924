"""The routes of the quarantine, and the setting that fills it, in a real worker."""

from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest

from tests.app.conftest import Caller
from tests.stack import Engine

QUARANTINE = "/dwh/v4/tables/data_prim/t/quarantine"
HANDLER = """
from forepaas.dwh import bulk_insert, connect
def handle(event):
    return bulk_insert(connect("dwh/data_prim/"), "t", event.content)
"""


@pytest.fixture
def job(engine: Engine) -> UUID:
    """Of one row that fits and two that don't."""
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (id bigint PRIMARY KEY)")
    action = engine.push(HANDLER, config={"params": {"on_insert_error": "quarantine"}})
    engine.worker(1)
    ended = engine.run(action, [{"id": 1}, {"id": "two"}, {"id": "three"}])
    assert ended.status == "SUCCESS", ended.error
    return ended.execution_id


def test_rows_are_counted_listed_mended_and_dropped(
    editor: Caller, job: UUID, conn: psycopg.Connection
) -> None:
    (stats,) = editor.get(f"/dpe/v3/jobs/{job}").json["stats"]
    assert (stats["records"], stats["inserts"], stats["quarantined"]) == (3, 1, 2)
    first, second = editor.get(QUARANTINE).json
    assert (first["execution_id"], first["row_number"], first["data"]) == (
        str(job),
        2,
        {"id": "two"},
    )
    assert editor.get(f"{QUARANTINE}?after={first['id']}").json == [second]
    mended = {"rows": [{**first, "data": {"id": 2}}]}
    done = editor.post(f"{QUARANTINE}/replay", json=mended).json
    assert done == {"replayed": 1, "left": 1, "errors": []}
    assert editor.post(f"{QUARANTINE}/replay", json=mended).status_code == 400
    (error,) = editor.post(f"{QUARANTINE}/replay").json["errors"]
    assert (error["id"], '"three"' in error["reason"]) == (second["id"], True)
    assert editor.delete(f"{QUARANTINE}?id={second['id']}").json == {"dropped": 1}
    assert editor.get(QUARANTINE).json == []
    assert conn.execute("SELECT id FROM data_prim.t ORDER BY id").fetchall() == [(1,), (2,)]


def test_what_is_asked_is_checked(editor: Caller, caller: Callable[[str], Caller]) -> None:
    for wrong in ({"ids": [0]}, {"ids": 7}, {"rows": [{"id": 1}]}, {"rows": 7}):
        assert editor.post(f"{QUARANTINE}/replay", json=wrong).status_code == 400, wrong
    assert editor.delete(f"{QUARANTINE}?id=x").status_code == 400
    assert editor.post(f"{QUARANTINE}/replay").status_code == 404  # there is no table
    viewer = caller("DPE Viewer")
    assert viewer.get(QUARANTINE).json == []
    assert viewer.delete(QUARANTINE).status_code == 403
    assert viewer.post(f"{QUARANTINE}/replay").status_code == 403
