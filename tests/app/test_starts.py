"""POST …/start: what is accepted, what is refused, and what stands in Postgres afterwards."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from redis import Redis

from app.embedded import Valkey
from tests.app.conftest import Caller, Hand
from worker import broker
from worker.store.actions import Action

ROWS = [{"event_id": 1, "event_name": "Ada"}, {"event_id": 2, "event_name": "Bé"}]


def event_of(conn: psycopg.Connection, execution_id: str) -> str | None:
    found = conn.execute("SELECT event FROM dpe.jobs WHERE execution_id = %s", [execution_id])
    return found.fetchone()[0]


@pytest.mark.parametrize("form", ["actions", "action"])
def test_a_start_is_durable_and_says_where_to_look(
    editor: Caller, action: Action, conn: psycopg.Connection, form: str
) -> None:
    answer = editor.post(f"/dpe/v3/{form}/{action.id}/start", json=ROWS)
    assert answer.status_code == 202
    told = answer.json
    assert told["id"] == action.id
    assert told["name"] == "Archive"
    assert told["version"] == 1
    assert told["status"] == "QUEUED"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", told["timestamp"])
    assert answer.headers["Location"] == f"/dpe/v3/jobs/{told['execution_id']}"
    assert answer.headers["Retry-After"] == "1"
    assert json.loads(event_of(conn, told["execution_id"])) == ROWS


def test_the_documented_call_with_the_token_in_the_address(editor: Caller, action: Action) -> None:
    answer = editor.client.post(
        f"/dpe/v3/actions/{action.id}/start",
        query_string={"app_id": "55c1423560702d6426490f38", "type": "cam", "token": editor.token},
        data=json.dumps(ROWS),
        content_type="application/json",
    )
    assert answer.status_code == 202


def test_a_start_is_handed_to_the_broker_once(
    editor: Caller, action: Action, valkey: Valkey
) -> None:
    redis = Redis.from_url(valkey.url)
    redis.flushall()
    execution_id = editor.start(action.id, ROWS)
    messages = [json.loads(message) for message in redis.lrange(broker.LISTS[1], 0, -1)]
    redis.close()
    assert [message["headers"]["id"] for message in messages] == [execution_id]
    assert [message["headers"]["shadow"] for message in messages] == ["Archive"]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", None),
        (b" \n", None),
        (b"null", "null"),
        (b'"text"', '"text"'),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b'{"a": 1.10, "a":2}\n', '{"a": 1.10, "a":2}\n'),
        (b'["\\u0000"]', '["\\u0000"]'),
        (b"\xef\xbb\xbf[1]", "[1]"),
        ('["é😀"]'.encode(), '["é😀"]'),
    ],
)
def test_an_event_is_kept_as_it_was_posted(
    editor: Caller, action: Action, conn: psycopg.Connection, body: bytes, kept: str | None
) -> None:
    # What curl sends unless it is told otherwise.
    form = "application/x-www-form-urlencoded"
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start", data=body, content_type=form)
    assert answer.status_code == 202, answer.text
    assert event_of(conn, answer.json["execution_id"]) == kept


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'[{"event_id": 1,', "line 1, column 17"),
        (b"[1,\n 2,,]", "line 2, column 4"),
        (b"NaN", "not JSON"),
        (b"[Infinity]", "not JSON"),
        (b"'single'", "not JSON"),
        (b'["\xff"]', "not UTF-8: byte 3 of 5"),
        (b'["\\ud800"]', "not JSON"),
        (b"\x00", "not JSON"),
        (b"[" * 5000 + b"]" * 5000, "not JSON"),
        ("[1]".encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(
    editor: Caller, action: Action, conn: psycopg.Connection, body: bytes, words: str
) -> None:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start", data=body)
    assert answer.status_code == 400
    assert words in answer.json["error"]
    assert conn.execute("SELECT count(*) FROM dpe.jobs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Type": "application/json; charset=latin-1"}, "charset is latin-1"),
    ],
)
def test_another_charset_is_refused(
    editor: Caller, action: Action, headers: dict[str, str], words: str
) -> None:
    path = f"/dpe/v3/actions/{action.id}/start"
    answer = editor.post(path, data=b"[1]", headers=headers)
    assert answer.status_code == 400
    assert words in answer.json["error"]


def test_utf8_under_its_name_is_taken(editor: Caller, action: Action) -> None:
    path, type_ = f"/dpe/v3/actions/{action.id}/start", "application/json; charset=UTF-8"
    assert editor.post(path, data=b"[1]", content_type=type_).status_code == 202


def test_a_body_over_the_limit_is_refused(editor: Caller, action: Action) -> None:
    body = b'"' + b"x" * 10_000_000 + b'"'
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start", data=body)
    assert answer.status_code == 413
    assert "10000000 bytes" in answer.json["error"]


def test_an_unknown_action_is_a_warning(editor: Caller) -> None:
    answer = editor.post(f"/dpe/v3/actions/{'0' * 24}/start", data=b"[1]")
    assert answer.status_code == 404
    assert answer.json["warning"] == f"action {'0' * 24} not found"
    assert "error" not in answer.json


@pytest.mark.parametrize("id", ["%00", "Archive", "5EAF0DB7F6F51D5255974217", "%F0%9F%98%80"])
def test_what_is_no_id_spoils_no_start_beside_it(editor: Caller, action: Action, id: str) -> None:
    def call(id: str) -> int:
        headers = {"Authorization": f"Bearer {editor.token}"}
        client = editor.client.application.test_client()
        return client.post(f"/dpe/v3/actions/{id}/start", headers=headers).status_code

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(call, [id, action.id] * 40))
    assert answers == [404, 202] * 40


def test_a_deleted_action_starts_no_more(editor: Caller, action: Action) -> None:
    assert editor.delete(f"/dpe/v3/actions/{action.id}").status_code == 200
    assert editor.post(f"/dpe/v3/actions/{action.id}/start").status_code == 404


def test_the_next_start_runs_the_version_just_pushed(editor: Caller, action: Action) -> None:
    files = {"files": {"main.py": "cGFzcw=="}}
    assert editor.call("PUT", f"/dpe/v3/actions/{action.id}", json=files).json["version"] == 2
    assert editor.post(f"/dpe/v3/actions/{action.id}/start").json["version"] == 2


def test_a_job_remembers_the_key_that_started_it(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    editor.start(action.id)
    query = "SELECT k.name FROM dpe.jobs j JOIN dpe.keys k ON k.id = j.key_id"
    assert conn.execute(query).fetchone() == ("a DPE Editor",)


def test_a_start_that_waits_answers_the_end(
    editor: Caller, action: Action, hand: Hand, conn: psycopg.Connection
) -> None:
    from threading import Thread

    from tests.stack import until

    answers: list[Any] = []
    path = f"/dpe/v3/actions/{action.id}/start?wait=10"
    thread = Thread(target=lambda: answers.append(editor.post(path, json=ROWS)))
    thread.start()
    [(id,)] = until(lambda: conn.execute("SELECT execution_id FROM dpe.jobs").fetchall())
    hand.run(str(id), {"rows": 2})
    thread.join(5)
    [answer] = answers
    assert answer.status_code == 200
    assert answer.json["status"] == "SUCCESS"
    assert answer.json["result"] == {"rows": 2}
    assert UUID(answer.json["execution_id"]) == id
    assert {"id", "status", "timestamp"} <= set(answer.json)
    assert "Retry-After" not in answer.headers


def test_a_start_that_waits_in_vain_answers_202(editor: Caller, action: Action) -> None:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start?wait=0.05", json=ROWS)
    assert answer.status_code == 202
    assert answer.json["status"] == "QUEUED"


@pytest.mark.parametrize("wait", ["-1", "30.5", "x", "nan", "inf", ""])
def test_a_wait_out_of_bounds_is_refused(
    editor: Caller, action: Action, conn: psycopg.Connection, wait: str
) -> None:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start?wait={wait}", json=ROWS)
    assert answer.status_code == 400
    assert "wait must be seconds from 0 to 30" in answer.json["error"]
    assert conn.execute("SELECT count(*) FROM dpe.jobs").fetchone() == (0,)
