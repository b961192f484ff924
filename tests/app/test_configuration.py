"""A configuration goes out and comes in: whole, twice without change, never beyond its place."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import archive
from tests.app.conftest import MAIN, Caller, encoded
from worker.store import access

ID, FLOW, OUTER = "5eaf0db7f6f51d5255974217", "f" * 24, "0" * 24
FILES = {
    "main.py": MAIN,
    "forepaas.json": b'{"display_name": "Archive"}',
    "lib/data.bin": b"\xff\x00\r\n",
}
TABLE = {
    "dataset": "data_prim",
    "name": "events",
    "primary_key": ["id"],
    "attributes": [{"name": "id", "type": "Number", "description": "a number"}],
}
EXPORT, IMPORT = "/dpe/v3/configuration/export", "/dpe/v3/configuration/import"


@pytest.fixture
def configured(editor: Caller) -> Caller:
    editor.call("PUT", f"/dpe/v3/actions/{ID}", json=encoded(**FILES))
    stages = {"display_name": "Inner", "stages": [{"actions": [{"action_conf": ID}]}]}
    editor.call("PUT", f"/dpe/v3/workflows/{FLOW}", json=stages)
    # Its id comes first, and what it needs later.
    outer = {"display_name": "Outer", "stages": [{"actions": [{"workflow_conf": FLOW}]}]}
    editor.call("PUT", f"/dpe/v3/workflows/{OUTER}", json=outer)
    editor.post("/dwh/v4/tables", json=TABLE)
    editor.call("PUT", "/dwh/v4/datasets/data_prim", json={"dialect": "trino"})
    defaults = {"timeout": "30m", "retry": {"max_attempts": 3}}
    assert editor.call("PUT", "/dpe/v3/settings", json=defaults).status_code == 200
    trigger = {"workflow": OUTER, "cron": "0 3 * * *", "event": {"n": 2**53 + 1}, "paused": True}
    editor.call("PUT", "/dpe/v3/triggers/night.ly", json=trigger)
    return editor


def export(caller: Caller) -> bytes:
    answer = caller.get(EXPORT)
    assert (answer.status_code, answer.mimetype) == (200, "application/gzip")
    return answer.data


def import_(caller: Caller, packed: bytes, asked: str = "") -> TestResponse:
    data = {"archive": (io.BytesIO(packed), "configuration.tgz")}
    return caller.post(IMPORT + asked, data=data, content_type="multipart/form-data")


def forget(conn: psycopg.Connection) -> None:
    """As a new installation, with the same key."""
    conn.execute("DROP SCHEMA data_prim CASCADE")
    conn.execute(
        "TRUNCATE dpe.actions, dpe.action_files, dpe.action_versions, dpe.workflows, dpe.tables,"
        " dpe.datasets, dpe.triggers, dpe.defaults CASCADE"
    )


def told(answer: TestResponse) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return [(change["kind"], change["change"]) for change in answer.json["changes"]]


def test_what_was_exported_makes_the_same_elsewhere(
    configured: Caller, conn: psycopg.Connection
) -> None:
    packed = export(configured)
    assert configured.post(EXPORT).data == packed
    forget(conn)
    assert told(import_(configured, packed)) == [
        ("settings", "new"), ("dataset", "changed"), ("table", "new"), ("action", "new"),
        ("workflow", "new"), ("workflow", "new"), ("trigger", "new"),
    ]  # fmt: skip
    assert export(configured) == packed
    (timeout,) = [s for s in configured.get("/dpe/v3/settings").json if s["name"] == "timeout"]
    assert (timeout["value"], timeout["level"]) == ("30m", "environment")
    assert configured.get(f"/dpe/v3/actions/{ID}/files").json["files"] == encoded(**FILES)["files"]
    trigger = configured.get("/dpe/v3/triggers/night.ly").json
    assert (trigger["workflow"], trigger["event"], trigger["paused"]) == (
        OUTER, {"n": 2**53 + 1}, True,
    )  # fmt: skip
    described = conn.execute("SELECT count(*) FROM data_prim.events").fetchone()
    assert described == (0,)


def test_the_same_again_changes_nothing(configured: Caller, conn: psycopg.Connection) -> None:
    packed = export(configured)
    stamps = (
        "SELECT ARRAY(SELECT updated_at FROM dpe.actions), ARRAY(SELECT version FROM dpe.actions),"
        " ARRAY(SELECT updated_at FROM dpe.workflows), ARRAY(SELECT built_at FROM dpe.tables),"
        " ARRAY(SELECT updated_at FROM dpe.triggers)"
    )
    before = conn.execute(stamps.encode()).fetchone()
    assert told(import_(configured, packed)) == []
    assert conn.execute(stamps.encode()).fetchone() == before


def test_a_dry_run_tells_what_would_change_and_changes_nothing(
    configured: Caller, conn: psycopg.Connection
) -> None:
    packed = export(configured)
    configured.call("PUT", f"/dpe/v3/actions/{ID}", json=encoded(**FILES | {"main.py": b"x = 1"}))
    wider = [*TABLE["attributes"], {"name": "more", "type": "String"}]
    configured.post("/dwh/v4/tables", json=TABLE | {"attributes": wider})
    answer = import_(configured, packed, "?dry_run=true")
    assert told(answer) == [("table", "changed"), ("action", "changed")]
    table, action = answer.json["changes"]
    assert action["details"] == ["main.py: changed"]
    assert any("more" in detail for detail in table["details"])
    assert any("lost" in detail for detail in table["details"])
    assert configured.get(f"/dpe/v3/actions/{ID}").json["version"] == 2

    refused = import_(configured, packed)
    assert refused.status_code == 409
    assert "events" in refused.json["error"]
    assert configured.get(f"/dpe/v3/actions/{ID}").json["version"] == 2  # all of it, or nothing
    assert len(told(import_(configured, packed, "?allow_data_loss=true"))) == 2
    assert configured.get(f"/dpe/v3/actions/{ID}").json["version"] == 3


def test_no_secret_is_in_it(configured: Caller, conn: psycopg.Connection) -> None:
    unpacked = gzip.decompress(export(configured))
    secrets = conn.execute(
        "SELECT apikey FROM dpe.keys UNION SELECT secret FROM dpe.keys"
        " UNION SELECT secret FROM dpe.installation UNION SELECT id FROM dpe.sessions"
    ).fetchall()
    assert len(secrets) >= 4
    assert not [secret for (secret,) in secrets if secret.encode() in unpacked]


def tgz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)  # the same in all processes that collect tests


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return info


HEAD = (member("open-dpe.json"), b'{"format": 1}')


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (b"", "no tgz"),
        (b"PK\x03\x04", "no tgz"),
        (gzip.compress(b"text", mtime=0), "no tgz"),
        (tgz(HEAD)[:-20], "no tgz"),
        (tgz((member("../evil"), b"")), "leads out"),
        (tgz((member("/etc/evil"), b"")), "leads out"),
        (tgz((member("actions/x/../../evil"), b"")), "leads out"),
        (tgz((member("a\\b"), b"")), "leads out"),
        (tgz((member("link", tarfile.SYMTYPE), b"")), "no plain file"),
        (tgz((member("link", tarfile.LNKTYPE), b"")), "no plain file"),
        (tgz((member("device", tarfile.CHRTYPE), b"")), "no plain file"),
        (tgz(HEAD, HEAD), "twice"),
        (tgz((member("other"), b"")), "not one of dpe export"),
        (tgz((member("open-dpe.json"), b'{"format": 2}')), "format 2"),
        (tgz(HEAD, (member("etc/passwd"), b"")), "no part of"),
        (tgz(HEAD, (member("triggers/x.json"), b"[1]")), "must be an object"),
        (tgz(HEAD, (member("triggers/x.json"), b"{")), "triggers/x.json is not JSON"),
        (tgz(HEAD, (member(f"workflows/{FLOW}.json"), b"{}")), f"workflows/{FLOW}.json: /stages"),
        (tgz(HEAD, (member(f"actions/{ID}/x.py"), b"")), f"actions/{ID}: an action needs a main"),
    ],
)
def test_an_archive_that_is_none_is_refused(editor: Caller, packed: bytes, words: str) -> None:
    answer = import_(editor, packed)
    assert answer.status_code == 400, answer.text
    assert words in answer.json["error"]


def test_a_bomb_is_refused_before_it_is_unpacked(
    editor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1_000_000)
    answer = import_(editor, gzip.compress(bytes(50_000_000)))
    assert answer.status_code == 413
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    many = tgz(*((member(f"triggers/{n}.json"), b"") for n in range(5)))
    assert import_(editor, many).status_code == 413


def test_who_may(
    app: Flask, conn: psycopg.Connection, caller: Callable[[str], Caller], configured: Caller
) -> None:
    packed = export(configured)
    assert caller("DPE Viewer").get(EXPORT).status_code == 200
    assert import_(caller("DPE Viewer"), packed).status_code == 403
    assert caller("DPE Starter").get(EXPORT).status_code == 403
    bounds = access.Bounds(only_ids=[ID])
    key = access.create_key(conn, "bound", "DPE Editor", bounds=bounds)
    body: dict[str, Any] = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    client = app.test_client()
    token = client.post("/iam/v4/login", json=body).json["token"]
    assert import_(Caller(client, token), packed).status_code == 403


def test_without_a_file_it_says_how_one_is_sent(editor: Caller) -> None:
    answer = editor.post(IMPORT, data=json.dumps({}), content_type="application/json")
    assert answer.status_code == 400
    assert "curl -F archive=@" in answer.json["hint"]
