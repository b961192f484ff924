"""Idempotency-Key: a call that is sent again starts nothing again."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.app.conftest import Caller
from worker.store.actions import Action


def start(caller: Caller, action: Action, key: str, body: bytes = b"[1]") -> tuple[int, dict, str]:
    answer = caller.post(
        f"/dpe/v3/actions/{action.id}/start", data=body, headers={"Idempotency-Key": key}
    )
    return answer.status_code, answer.json, answer.headers.get("Idempotent-Replayed", "")


def jobs(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


def test_the_same_key_and_body_get_the_first_answer_again(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    status, first, replayed = start(editor, action, "k")
    assert (status, replayed) == (202, "")
    assert start(editor, action, "k") == (202, first, "true")
    assert jobs(conn) == 1


def test_the_same_key_with_another_body_is_refused(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    start(editor, action, "k")
    status, answer, _ = start(editor, action, "k", b"[2]")
    assert status == 422
    assert "used for another body" in answer["error"]
    assert jobs(conn) == 1


def test_two_at_the_same_instant_make_one_job(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: start(editor, action, "k"), range(24)))
    assert {status for status, _, _ in answers} == {202}
    assert len({answer["execution_id"] for _, answer, _ in answers}) == 1
    assert [replayed for _, _, replayed in answers].count("") == 1
    assert jobs(conn) == 1


def test_while_the_first_is_under_way_the_second_is_told_so(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    with psycopg.connect(conn.info.dsn, password=conn.info.password) as other:
        other.execute(
            "INSERT INTO dpe.idempotency_keys SELECT id, %s, 'k', '', gen_random_uuid()"
            " FROM dpe.keys",
            [action.id],
        )
        status, answer, _ = start(editor, action, "k")
        other.rollback()
    assert status == 409
    assert "still under way" in answer["error"]
    assert start(editor, action, "k")[0] == 202


def test_equal_bodies_without_a_key_are_two_events(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    editor.start(action.id, [1])
    editor.start(action.id, [1])
    assert jobs(conn) == 2


def test_a_key_belongs_to_its_caller(
    editor: Caller,
    caller: Callable[[str], Caller],
    action: Action,
    conn: psycopg.Connection,
) -> None:
    start(editor, action, "k")
    assert start(caller("DPE Editor"), action, "k", b"[2]")[0] == 202
    assert jobs(conn) == 2


def test_a_key_is_free_again_after_a_day(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    start(editor, action, "k")
    conn.execute("UPDATE dpe.idempotency_keys SET created_at = now() - interval '25 hours'")
    assert start(editor, action, "k", b"[2]")[::2] == (202, "")
    assert jobs(conn) == 2


def test_a_refused_start_uses_no_key_up(
    editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    conn.execute("UPDATE dpe.actions SET deleted_at = now()")
    assert start(editor, action, "k")[0] == 404
    conn.execute("UPDATE dpe.actions SET deleted_at = NULL")
    assert start(editor, action, "k")[::2] == (202, "")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_no_or_too_many_characters_is_refused(
    editor: Caller, action: Action, key: str
) -> None:
    status, answer, _ = start(editor, action, key)
    assert status == 400
    assert "Idempotency-Key must have 1 to 255 characters" in answer["error"]
