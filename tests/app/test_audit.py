"""The audit trail: each change is in it, by whom, and what became of it; reads are not."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from flask import Flask

from app.recording import is_recorded
from tests.app.conftest import Caller, encoded
from tests.app.test_routes_need_permission import routes
from worker.store.actions import Action


@pytest.fixture(autouse=True)
def empty(conn: psycopg.Connection) -> Iterator[None]:
    conn.execute("TRUNCATE dpe.audit, dpe.secrets")
    return


def test_who_made_changed_and_stopped_what(
    caller: Callable[[str], Caller], editor: Caller, action: Action
) -> None:
    admin = caller("DPE Admin")
    made = editor.post("/dpe/v3/actions", json=encoded(**{"main.py": b"x = 1"})).json["id"]
    editor.call("PUT", "/dpe/v3/secrets/shop?token=x", json={"value": "correct horse"})
    job = editor.start(action.id)
    editor.delete(f"/dpe/v3/jobs/{job}/stop")
    key = admin.post("/iam/v4/keys", json={"name": "website"}).json["apikey"]
    editor.delete("/dpe/v3/actions/none")
    editor.get("/dpe/v3/actions")
    found = admin.get("/iam/v4/audit").json
    assert [
        (e["who"], e["method"], e["path"], e["status"], e["made"]) for e in reversed(found)
    ] == [
        ("a DPE Editor", "POST", "/dpe/v3/actions", 201, made),
        ("a DPE Editor", "PUT", "/dpe/v3/secrets/shop", 200, None),
        ("a DPE Editor", "DELETE", f"/dpe/v3/jobs/{job}/stop", 200, None),
        ("a DPE Admin", "POST", "/iam/v4/keys", 201, key),
        ("a DPE Editor", "DELETE", "/dpe/v3/actions/none", 404, None),
    ]
    assert {e["address"] for e in found} == {"127.0.0.1"}
    [start] = admin.get("/iam/v4/audit?starts=true").json
    assert (start["who"], start["path"], start["made"]) == ("a DPE Editor", action.id, job)
    assert len(admin.get("/iam/v4/audit?limit=2").json) == 2
    assert editor.get("/iam/v4/audit").status_code == 403


def test_every_route_that_changes_something_is_recorded(
    app: Flask, caller: Callable[[str], Caller], conn: psycopg.Connection
) -> None:
    admin = caller("DPE Admin")
    for method, path, need in routes(app):
        if method in {"GET", "HEAD"} or need is None or ":" not in need:
            continue
        conn.execute("TRUNCATE dpe.audit")
        admin.call(method, path)
        row = conn.execute("SELECT method, path, permission FROM dpe.audit").fetchone()
        changes = not need.endswith((":read", ":start", ":retry"))
        assert row == ((method, path, need) if changes else None), (method, path)
        assert is_recorded(need) == changes


def test_without_its_entry_nothing_is_changed(editor: Caller, conn: psycopg.Connection) -> None:
    conn.execute("ALTER TABLE dpe.audit RENAME TO gone")
    try:
        answer = editor.call("PUT", "/dpe/v3/secrets/shop", json={"value": "correct horse"})
    finally:
        conn.execute("ALTER TABLE dpe.gone RENAME TO audit")
    assert answer.status_code == 503
    assert conn.execute("SELECT FROM dpe.secrets").fetchall() == []
