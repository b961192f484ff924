"""Jobs over HTTP: list, page, filter, one, stop, retry."""

import re
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from tests.app.conftest import MAIN, Caller, Hand
from worker.store import actions
from worker.store.actions import Action

FIELDS = {
    "id", "execution_id", "type", "name", "version", "status", "execution", "attempt",
    "submitted_at", "started_at", "ended_at", "duration", "error", "result", "stats", "retry_of",
    "event_type", "log_url",
}  # fmt: skip


def job(caller: Caller, execution_id: str) -> dict[str, Any]:
    answer = caller.get(f"/dpe/v3/jobs/{execution_id}")
    assert answer.status_code == 200, answer.text
    return answer.json


def listed(caller: Caller, query: str = "") -> list[str]:
    answer = caller.get(f"/dpe/v3/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return [job["execution_id"] for job in answer.json]


def test_a_job_from_queued_to_success(editor: Caller, action: Action, hand: Hand) -> None:
    id = editor.start(action.id, [1, 2])
    waiting = job(editor, id)
    assert set(waiting) >= FIELDS
    assert waiting["id"] == action.id
    assert waiting["execution_id"] == id
    assert waiting["type"] == "action"
    assert waiting["event_type"] == "api"
    assert waiting["execution"] == {"id": id, "status": "QUEUED", "progress": 0}
    claimed = hand.claim(id)
    assert job(editor, id)["status"] == "PROCESSING"
    claimed.stats.append({"inserts": 2})
    hand.succeed(claimed, {"rows": 2})
    ended = job(editor, id)
    assert ended["execution"] == {"id": id, "status": "SUCCESS", "progress": 100}
    assert (ended["attempt"], ended["result"], ended["stats"]) == (1, {"rows": 2}, [{"inserts": 2}])
    assert ended["started_at"].endswith("Z")
    assert 0 <= ended["duration"] < 5
    assert ended["error"] is None


def test_a_failed_job_says_why(editor: Caller, action: Action, hand: Hand) -> None:
    id = editor.start(action.id)
    hand.fail(hand.claim(id))
    failed = job(editor, id)
    assert failed["status"] == "FAILED"
    assert failed["execution"]["progress"] == 0
    assert failed["error"] == {"type": "ValueError", "message": "no", "traceback": "Traceback …"}


def test_a_result_beyond_64_bits_is_shown_exactly(
    editor: Caller, action: Action, hand: Hand
) -> None:
    id = editor.start(action.id)
    hand.run(id, {"id": 2**70})
    answer = editor.get(f"/dpe/v3/jobs/{id}")
    assert str(2**70) in answer.text
    assert answer.json["submitted_at"].endswith("Z")


def test_a_job_goes_by_its_first_digits(editor: Caller, action: Action) -> None:
    id = editor.start(action.id)
    for short in (id[:7], id[:8], id[:12], id.replace("-", ""), id.upper()):
        assert job(editor, short)["execution_id"] == id


def test_digits_of_several_jobs_name_them(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    for last in ("1", "2"):
        id = editor.start(action.id)
        new = UUID(f"abcdef01-0000-4000-8000-00000000000{last}")
        conn.execute(
            "UPDATE dpe.jobs SET execution_id = %s WHERE execution_id = %s", [new, UUID(id)]
        )
    answer = editor.get("/dpe/v3/jobs/abcdef0")
    assert answer.status_code == 409
    assert "abcdef01-0000-4000-8000-000000000001" in answer.json["error"]


@pytest.mark.parametrize(
    "id",
    ["0b6f3c1e-5d0a-4b7e-9a53-6a1b2c3d4e5f", "abcdef", "0123456", "x" * 36, "%00", "%F0%9F%98%80"],
)
def test_an_unknown_job_is_a_warning(editor: Caller, id: str) -> None:
    for path in (f"/dpe/v3/jobs/{id}", f"/dpe/v3/jobs/{id}/logs"):
        answer = editor.get(path)
        assert answer.status_code == 404
        assert "not found" in answer.json["warning"]
    assert editor.delete(f"/dpe/v3/jobs/{id}/stop").status_code == 404
    assert editor.post(f"/dpe/v3/jobs/{id}/retry").status_code == 404


def test_a_list_is_oldest_first_or_newest_first(editor: Caller, action: Action) -> None:
    ids = [editor.start(action.id, n) for n in range(3)]
    assert listed(editor) == ids
    assert listed(editor, "order=asc") == ids
    assert listed(editor, "order=DESC") == ids[::-1]
    assert listed(editor, "limit=2") == ids[:2]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_list_is_read_page_by_page(editor: Caller, action: Action, order: str) -> None:
    ids = [editor.start(action.id, n) for n in range(5)]
    seen: list[str] = []
    path = f"/dpe/v3/jobs?limit=2&order={order}&token=secret-token"
    pages = 0
    while path:
        answer = editor.get(path)
        seen += [job["execution_id"] for job in answer.json]
        pages += 1
        link = answer.headers.get("Link", "")
        assert "token" not in link
        match = re.fullmatch('<(.*)>; rel="next"', link)
        path = match[1] if match else ""
    assert seen == (ids if order == "asc" else ids[::-1])
    assert pages == 3


def test_a_page_begins_after_an_execution(editor: Caller, action: Action) -> None:
    ids = [editor.start(action.id, n) for n in range(3)]
    assert listed(editor, f"after={ids[0]}") == ids[1:]
    assert listed(editor, f"after={ids[1]}&order=desc") == ids[:1]


def test_filters(editor: Caller, action: Action, hand: Hand, conn: psycopg.Connection) -> None:
    other = actions.push(conn, None, {"main.py": MAIN})
    first, second, third = (editor.start(id) for id in (action.id, other.id, action.id))
    hand.run(first)
    hand.fail(hand.claim(second))
    assert listed(editor, f"action={action.id}") == [first, third]
    assert listed(editor, f"id={other.id}") == [second]
    assert listed(editor, "action=Archive") == [first, third]
    assert listed(editor, f"action={'0' * 24}") == []
    assert listed(editor, "status=SUCCESS") == [first]
    assert listed(editor, "status=success&status=FAILED") == [first, second]
    assert listed(editor, "status=success,queued") == [first, third]
    assert listed(editor, "status=TIMEOUT") == []
    at = job(editor, second)["submitted_at"]
    assert listed(editor, f"since={at}") == [second, third]
    assert listed(editor, f"until={at}") == [first]
    offset = at.replace("Z", "+00:00")  # its plus arrives as a space
    assert listed(editor, f"since={offset}&limit=1") == [second]
    assert listed(editor, "since=2020-01-01&until=2020-01-02 10:00") == []
    retried = editor.post(f"/dpe/v3/jobs/{first}/retry").json["execution_id"]
    assert listed(editor, f"retry_of={first}") == [retried]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit must be a whole number from 1 to 1000"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=²", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("order=up", "order must be one of asc, desc"),
        ("status=DONE", "status must be of SUBMITTED, QUEUED"),
        ("since=yesterday", "since must be a time in ISO 8601"),
        ("until=", "until"),
        ("retry_of=x", "retry_of must be an execution id"),
        ("after=x", "after must be an execution id"),
    ],
)
def test_a_filter_out_of_bounds_is_named(editor: Caller, query: str, words: str) -> None:
    answer = editor.get(f"/dpe/v3/jobs?{query}")
    assert answer.status_code == 400
    assert words in answer.json["error"]


def test_a_filter_by_an_unknown_name_is_a_warning(editor: Caller) -> None:
    assert "Nobody not found" in editor.get("/dpe/v3/jobs?action=Nobody").json["warning"]


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_job_is_stopped(editor: Caller, action: Action, method: str) -> None:
    id = editor.start(action.id)
    answer = editor.call(method, f"/dpe/v3/jobs/{id}/stop")
    assert answer.status_code == 200
    assert answer.json["status"] == "STOPPED"
    assert "stopped by a DPE Editor" in answer.json["error"]["message"]
    assert editor.call(method, f"/dpe/v3/jobs/{id}/stop").status_code == 200


def test_what_ended_is_not_stopped(editor: Caller, action: Action, hand: Hand) -> None:
    id = editor.start(action.id)
    hand.run(id)
    answer = editor.delete(f"/dpe/v3/jobs/{id}/stop")
    assert answer.status_code == 409
    assert "ended already: SUCCESS" in answer.json["error"]
    assert job(editor, id)["status"] == "SUCCESS"


@pytest.mark.parametrize("form", ["actions", "action"])
def test_all_jobs_of_an_action_are_stopped(
    editor: Caller, action: Action, conn: psycopg.Connection, form: str
) -> None:
    other = actions.push(conn, None, {"main.py": MAIN})
    mine, foreign = [editor.start(action.id) for _ in range(2)], editor.start(other.id)
    answer = editor.delete(f"/dpe/v3/{form}/{action.id}/stop")
    assert answer.json == {"id": action.id, "stopped": 2}
    assert [job(editor, id)["status"] for id in mine] == ["STOPPED"] * 2
    assert job(editor, foreign)["status"] == "QUEUED"
    assert editor.delete(f"/dpe/v3/{form}/{action.id}/stop").json["stopped"] == 0
    assert editor.delete(f"/dpe/v3/{form}/{'0' * 24}/stop").status_code == 404


def test_a_retry_is_a_new_job_with_the_same_event(
    editor: Caller, action: Action, hand: Hand, conn: psycopg.Connection
) -> None:
    id = editor.start(action.id, {"n": 1})
    hand.fail(hand.claim(id))
    answer = editor.post(f"/dpe/v3/jobs/{id}/retry")
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(answer.json["execution_id"])
    again = job(editor, answer.json["execution_id"])
    assert (again["retry_of"], again["event_type"], again["status"]) == (id, "retry", "QUEUED")
    events = conn.execute("SELECT DISTINCT event FROM dpe.jobs").fetchall()
    assert events == [('{"n": 1}',)]


def test_what_runs_is_not_retried(editor: Caller, action: Action) -> None:
    id = editor.start(action.id)
    answer = editor.post(f"/dpe/v3/jobs/{id}/retry")
    assert answer.status_code == 409
    assert "has not ended yet" in answer.json["error"]


def test_the_job_of_a_deleted_action_is_not_retried(
    editor: Caller, action: Action, hand: Hand
) -> None:
    id = editor.start(action.id)
    hand.run(id)
    editor.delete(f"/dpe/v3/actions/{action.id}")
    answer = editor.post(f"/dpe/v3/jobs/{id}/retry")
    assert answer.status_code == 404
    assert "was deleted" in answer.json["warning"]


@pytest.mark.parametrize(
    "wrong",
    [
        "status = 'LOST'",
        "status = 'SUCCESS'",  # without a time
        "status = 'STOPPED', ended_at = NULL",
        "ended_at = now()",  # of one that waits
        "status = 'PROCESSING', ended_at = now()",
        "status = 'LOST', ended_at = now()",
        "priority = 3",
        "priority = -1",
    ],
)
def test_postgres_itself_refuses_what_is_no_job(
    editor: Caller, action: Action, conn: psycopg.Connection, wrong: str
) -> None:
    id = editor.start(action.id)
    with pytest.raises(errors.CheckViolation, match="jobs_are_jobs"):
        conn.execute(f"UPDATE dpe.jobs SET {wrong} WHERE execution_id = %s".encode(), [id])
    conn.execute(
        "UPDATE dpe.jobs SET status = 'STOPPED', ended_at = now() WHERE execution_id = %s", [id]
    )
