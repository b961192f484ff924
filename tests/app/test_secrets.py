"""Secrets over HTTP: set, listed, removed; and never told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Caller
from worker import sealing, secret_params
from worker.errors import SettingError
from worker.settings import Settings

VALUE = "correct horse battery"


def test_no_answer_and_no_table_holds_the_value(editor: Caller, conn: psycopg.Connection) -> None:
    conn.execute("TRUNCATE dpe.secrets")
    made = editor.call("PUT", "/dpe/v3/secrets/shop", json={"value": VALUE})
    listed = editor.get("/dpe/v3/secrets")
    assert (made.status_code, [s["name"] for s in listed.json]) == (200, ["shop"])
    row = conn.execute("SELECT name, value, row_to_json(s)::text FROM dpe.secrets s").fetchone()
    assert row is not None
    for text in (made.text, listed.text, row[2]):
        assert VALUE not in text
        assert "battery" not in text
    settings = Settings.from_environ()
    assert sealing.unseal(settings, secret_params.whose("shop"), row[1]) == VALUE
    # Neither with another key, nor under another name.
    with pytest.raises(sealing.Unreadable, match="can't be decrypted"):
        sealing.unseal(settings, secret_params.whose("other"), row[1])
    other = replace(settings, secrets_key="b3RoZXI6IHRoaXJ0eS10d28gYnl0ZXMgLi4uLi4uLi4=")
    with pytest.raises(sealing.Unreadable):
        sealing.unseal(other, secret_params.whose("shop"), row[1])
    # But with both, while one takes the other's place.
    both = replace(settings, secrets_key=f"{other.secrets_key},{settings.secrets_key}")
    assert sealing.unseal(both, secret_params.whose("shop"), row[1]) == VALUE
    assert editor.delete("/dpe/v3/secrets/shop").status_code == 200
    assert editor.delete("/dpe/v3/secrets/shop").status_code == 404
    assert editor.get("/dpe/v3/secrets").json == []


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a b", {"value": VALUE}),
        ("-a", {"value": VALUE}),
        ("a", {"value": "short"}),
        ("a", {"value": "with \0 in it"}),
        ("a", {"value": 123456789}),
        ("a", {}),
    ],
)
def test_what_is_no_secret_is_refused(editor: Caller, name: str, sent: dict[str, Any]) -> None:
    answer = editor.call("PUT", f"/dpe/v3/secrets/{name}", json=sent)
    assert answer.status_code == 400, answer.text
    assert VALUE not in answer.text


def test_viewers_see_names_and_starters_nothing(caller: Callable[[str], Caller]) -> None:
    path, sent = "/dpe/v3/secrets/a", {"value": VALUE}
    viewer, starter = caller("DPE Viewer"), caller("DPE Starter")
    assert [
        viewer.get("/dpe/v3/secrets").status_code,
        starter.get("/dpe/v3/secrets").status_code,
    ] == [
        200,
        403,
    ]
    assert viewer.call("PUT", path, json=sent).status_code == 403
    assert viewer.delete(path).status_code == 403


def test_without_a_key_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    settings = replace(Settings.from_environ(), secrets_key=None, home=tmp_path)
    with pytest.raises(SettingError, match="DPE_SECRETS_KEY is not set"):
        sealing.seal(settings, "a", VALUE)
    sealing.make_key(tmp_path)
    kept = tmp_path / sealing.FILE
    assert kept.stat().st_mode & 0o777 == 0o600
    sealed = sealing.seal(settings, "a", VALUE)
    sealing.make_key(tmp_path)  # what is there stays
    assert sealing.unseal(settings, "a", sealed) == VALUE
    with pytest.raises(SettingError, match="32 bytes"):
        sealing.seal(replace(settings, secrets_key="short"), "a", VALUE)
