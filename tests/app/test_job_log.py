"""A job's log over HTTP: whole, from a place on, and as text."""

import psycopg
import pytest

from tests.app.conftest import Caller, Hand
from worker.store.actions import Action


def test_a_log_begins_with_what_the_row_knows(editor: Caller, action: Action) -> None:
    id = editor.start(action.id)
    lines = editor.get(f"/dpe/v3/jobs/{id}/logs").json
    assert [line["message"] for line in lines] == ['"Archive" SUBMITTED', '"Archive" QUEUED']
    assert {line["level"] for line in lines} == {"notice"}
    assert {line["attempt"] for line in lines} == {0}
    assert set(lines[0]) == {"at", "level", "logger", "message", "attempt"}
    job = editor.get(f"/dpe/v3/jobs/{id}").json
    assert lines[0]["at"] == job["submitted_at"]


@pytest.mark.parametrize("form", ["actions", "action"])
def test_the_same_log_under_its_action(
    editor: Caller, action: Action, hand: Hand, form: str
) -> None:
    id = editor.start(action.id)
    hand.run(id)
    lines = editor.get(f"/dpe/v3/{form}/{action.id}/logs/{id}").json
    assert lines == editor.get(f"/dpe/v3/jobs/{id}/logs").json
    assert lines[-1]["message"] == "done"
    assert editor.get(f"/dpe/v3/{form}/{'0' * 24}/logs/{id}").status_code == 404


def test_a_log_is_followed_without_losing_or_repeating_a_line(
    editor: Caller, action: Action, hand: Hand, conn: psycopg.Connection
) -> None:
    id = editor.start(action.id)
    conn.execute("UPDATE dpe.jobs SET status = 'SUBMITTED', published_at = NULL")
    seen: list[str] = []
    after = ""

    def read() -> list[str]:
        nonlocal after
        answer = editor.get(f"/dpe/v3/jobs/{id}/logs?after={after}")
        after = answer.headers["X-Next-After"]
        new = [line["message"] for line in answer.json]
        seen.extend(new)
        return new

    assert read() == ['"Archive" SUBMITTED']
    assert read() == []
    conn.execute("UPDATE dpe.jobs SET status = 'QUEUED', published_at = now()")
    assert read() == ['"Archive" QUEUED']
    job = hand.claim(id)
    hand.log(job, 1, "one", "two")
    assert read() == ["one", "two"]
    assert after == "1.1"
    hand.log(job, 2, "three")
    hand.succeed(job, part=3)
    assert read() == ["three", "done"]
    assert read() == []
    assert [line["message"] for line in editor.get(f"/dpe/v3/jobs/{id}/logs").json] == seen


def test_a_second_attempt_follows_the_first(
    editor: Caller, action: Action, hand: Hand, conn: psycopg.Connection
) -> None:
    from worker.store import lost_claims

    id = editor.start(action.id)
    job = hand.claim(id)
    hand.log(job, 1, "from the first")
    lost_claims.give_back(conn, [(job.execution_id, job.attempt)], "its process was killed", 5)
    job.conn.close()
    hand.run(id)
    lines = editor.get(f"/dpe/v3/jobs/{id}/logs").json
    assert [line["attempt"] for line in lines] == [0, 0, 1, 1, 2]
    assert "its process was killed" in lines[3]["message"]
    assert lines[1]["message"] == '"Archive" QUEUED'


def test_a_log_as_text(editor: Caller, action: Action, hand: Hand) -> None:
    id = editor.start(action.id)
    hand.run(id)
    answer = editor.get(f"/dpe/v3/jobs/{id}/logs", headers={"Accept": "text/plain"})
    assert answer.mimetype == "text/plain"
    assert answer.text.splitlines()[-1] == "2026-01-31T08:00:00.000000Z INFO     done"
    assert editor.get(f"/dpe/v3/jobs/{id}/logs", headers={"Accept": "*/*"}).is_json


@pytest.mark.parametrize("after", ["x", "1", "1.x", "-1.0", "1.2.3"])
def test_a_place_that_is_none_is_refused(editor: Caller, action: Action, after: str) -> None:
    id = editor.start(action.id)
    answer = editor.get(f"/dpe/v3/jobs/{id}/logs?after={after}")
    assert answer.status_code == 400
    assert "X-Next-After" in answer.json["error"]
    assert editor.get(f"/dpe/v3/jobs/{id}/logs?after=9999999999.9999999999").json == []
