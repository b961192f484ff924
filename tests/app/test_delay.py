"""`?delay=`, `?not_before=`, `?expires=`: when a job may begin, and when no more."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest

from tests.app.conftest import Caller, Hand
from worker import broker
from worker.store import actions, claims, ending, publishing, timeouts
from worker.store.actions import Action


def started(editor: Caller, action: Action, words: str) -> dict[str, Any]:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start?{words}", data="[1]")
    assert answer.status_code == 202, answer.text
    return answer.json


def is_claimed(hand: Hand, conn: psycopg.Connection, id: str) -> bool:
    with psycopg.connect(hand.url) as job_conn:
        return claims.claim(conn, job_conn, UUID(id), hand.worker_id, 1) is not None


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "once"}])
@pytest.mark.parametrize("how", ["delay=1h", "delay=3600", "not_before"])
def test_a_job_that_is_due_later_waits_in_postgres(
    editor: Caller,
    action: Action,
    conn: psycopg.Connection,
    hand: Hand,
    how: str,
    key: dict[str, str],
) -> None:
    if how == "not_before":
        how = f"not_before={quote((datetime.now(UTC) + timedelta(hours=1)).isoformat())}"
    path = f"/dpe/v3/actions/{action.id}/start?{how}"
    before, _ = broker.next_published_at()
    job = editor.post(path, data="[1]", headers=key).json
    assert job["status"] == "SUBMITTED"
    assert broker.next_published_at()[0] == before
    assert publishing.take_due(conn, 10) == []
    assert not is_claimed(hand, conn, job["execution_id"])
    (due,) = conn.execute("SELECT due_at - submitted_at FROM dpe.jobs").fetchone()
    assert timedelta(minutes=59) < due <= timedelta(hours=1)
    conn.execute("UPDATE dpe.jobs SET due_at = now()")
    (message,) = publishing.take_due(conn, 10)
    assert str(message.execution_id) == job["execution_id"]
    assert is_claimed(hand, conn, job["execution_id"])


def test_the_later_of_both_counts_and_the_past_is_now(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    past = quote(datetime(2020, 1, 1, tzinfo=UTC).isoformat())
    assert started(editor, action, f"not_before={past}")["status"] == "QUEUED"
    assert started(editor, action, f"not_before={past}&delay=1h")["status"] == "SUBMITTED"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("delay=soon", "delay must be a duration"),
        ("delay=-5", "delay must be a duration"),
        ("delay=367d", "at most 366d"),
        ("not_before=tomorrow", "ISO 8601"),
        ("not_before=2999-01-01T00:00:00Z", "within 366 days"),
        ("expires=x", "expires must be a duration"),
    ],
)
def test_what_is_no_time_is_refused(editor: Caller, action: Action, words: str, said: str) -> None:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start?{words}")
    assert (answer.status_code, said in answer.json["error"]) == (400, True), answer.text


def test_a_workflow_says_that_it_takes_no_delay(editor: Caller) -> None:
    answer = editor.post(f"/dpe/v3/workflows/{'0' * 24}/start?delay=5")
    assert (answer.status_code, "delay is not taken" in answer.json["error"]) == (400, True)


@pytest.mark.parametrize("of_action", [True, False])
def test_a_job_that_has_expired_never_begins_and_ends(
    editor: Caller, conn: psycopg.Connection, hand: Hand, of_action: bool
) -> None:
    config = b'{"expires": "10m"}' if of_action else b"{}"
    files = {"main.py": b"def customfunc(event): pass", "forepaas.json": config}
    action = actions.push(conn, None, files)
    id = started(editor, action, "" if of_action else "expires=10m")["execution_id"]
    assert timeouts.end_late(conn) == 0
    conn.execute("UPDATE dpe.jobs SET deadline = deadline - interval '10 minutes'")
    assert not is_claimed(hand, conn, id)  # also before the watch has looked
    assert timeouts.end_late(conn) == 1
    job = editor.get(f"/dpe/v3/jobs/{id}").json
    assert (job["status"], job["error"]["type"]) == ("TIMEOUT", "Expired")
    assert "no worker had begun it by" in job["error"]["message"]


def test_a_job_that_has_begun_expires_no_more(
    editor: Caller, action: Action, conn: psycopg.Connection, hand: Hand
) -> None:
    id = started(editor, action, "expires=10m")["execution_id"]
    job = hand.claim(id)
    ending.fail_for_now(job, {"type": "E", "message": "m", "traceback": ""}, 5, (1, b"[]"))
    job.conn.close()
    assert conn.execute("SELECT status, deadline FROM dpe.jobs").fetchone() == ("SUBMITTED", None)
