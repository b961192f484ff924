"""Replay: which jobs are started again, when, by which version; and that twice is once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.app.conftest import Caller, Hand
from worker.store import actions, publishing
from worker.store.actions import Action


@pytest.fixture
def failed(editor: Caller, action: Action, hand: Hand) -> list[str]:
    """Five jobs that failed, the oldest first, and beside them one that did not, and one open."""
    ids = [editor.start(action.id, n) for n in range(5)]
    for id in ids:
        hand.fail(hand.claim(id))
    hand.run(editor.start(action.id, "fine"))
    editor.start(action.id, "open")
    return ids


def replayed(editor: Caller, action: Action, **words: Any) -> dict[str, Any]:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/replay", json=words)
    assert answer.status_code == (200 if words.get("dry_run") else 202), answer.text
    return answer.json


def count(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


def test_what_failed_is_started_again_once_and_linked(
    editor: Caller, action: Action, conn: psycopg.Connection, failed: list[str], hand: Hand
) -> None:
    told = replayed(editor, action, dry_run=True)
    assert (told["count"], [job["replay_of"] for job in told["jobs"]]) == (5, failed)
    assert count(conn) == 7
    done = replayed(editor, action)
    assert [job["replay_of"] for job in done["jobs"]] == failed
    for job in done["jobs"]:
        new = editor.get(f"/dpe/v3/jobs/{job['execution_id']}").json
        assert (new["retry_of"], new["event_type"]) == (job["replay_of"], "retry")
    # Again: what is under way is not started twice.
    assert replayed(editor, action)["count"] == 0
    # One of them fails again: it stands for the first, and the link leads to that.
    again = done["jobs"][3]["execution_id"]
    conn.execute("UPDATE dpe.jobs SET due_at = now() WHERE execution_id = %s", [again])
    hand.fail(hand.claim(again))
    third = replayed(editor, action)
    assert [job["replay_of"] for job in third["jobs"]] == [again]
    new = editor.get(f"/dpe/v3/jobs/{third['jobs'][0]['execution_id']}").json
    assert new["retry_of"] == failed[3]


def test_two_replays_at_one_instant_start_each_job_once(
    editor: Caller, action: Action, conn: psycopg.Connection, failed: list[str]
) -> None:
    app, call = editor.client.application, {"Authorization": f"Bearer {editor.token}"}

    def start(_: int) -> int:
        path = f"/dpe/v3/actions/{action.id}/replay"
        return app.test_client().post(path, headers=call, json={}).json["count"]

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(start, range(4))) == [0, 0, 0, 5]
    assert count(conn) == 12


def test_they_begin_at_a_rate(
    editor: Caller, action: Action, conn: psycopg.Connection, failed: list[str]
) -> None:
    before = datetime.now(UTC)
    told = replayed(editor, action, rate=0.5)
    last = datetime.fromisoformat(told["last_due_at"])
    assert timedelta(seconds=7) < last - before < timedelta(seconds=11)
    assert len(publishing.take_due(conn, 100)) == 1  # the first; the others are not due yet


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"status": "SUCCESS"}, 1),
        ({"status": ["SUCCESS", "FAILED"]}, 6),
        ({"status": ["TIMEOUT"]}, 0),
        ({"limit": 2}, 2),
        ({"since": "2999-01-01T00:00:00Z"}, 0),
        ({"until": "2999-01-01T00:00:00Z"}, 5),
        ({"until": "2020-01-01T00:00:00Z"}, 0),
    ],
)
def test_a_filter_says_which(
    editor: Caller, action: Action, failed: list[str], words: dict[str, Any], expected: int
) -> None:
    assert replayed(editor, action, **words)["count"] == expected


def test_a_version_is_pinned_or_the_newest(
    editor: Caller, action: Action, conn: psycopg.Connection, failed: list[str]
) -> None:
    actions.push(conn, action.id, {"main.py": b"def customfunc(event): return 2"})
    first = replayed(editor, action, limit=1, version=1)["jobs"][0]["execution_id"]
    second = replayed(editor, action, limit=1)["jobs"][0]["execution_id"]
    versions = [editor.get(f"/dpe/v3/jobs/{id}").json["version"] for id in (first, second)]
    assert versions == [1, 2]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ({"status": "PROCESSING"}, 400, '"status"'),
        ({"status": []}, 400, '"status"'),
        ({"limit": 0}, 400, '"limit"'),
        ({"limit": 1.5}, 400, "whole number"),
        ({"rate": -1}, 400, '"rate"'),
        ({"since": "yesterday"}, 400, "since must be a time"),
        ({"since": 5}, 400, '"since"'),
        ({"version": 9}, 404, "version 9"),
        ({"version": "1"}, 400, '"version"'),
        ({"dry_run": "yes"}, 400, '"dry_run"'),
    ],
)
def test_what_is_no_filter_is_named(
    editor: Caller, action: Action, words: dict[str, Any], status: int, said: str
) -> None:
    answer = editor.post(f"/dpe/v3/actions/{action.id}/replay", json=words)
    told = answer.json.get("error") or answer.json.get("warning")
    assert (answer.status_code, said in told) == (status, True), answer.text
