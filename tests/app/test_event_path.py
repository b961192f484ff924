"""An event's path from a body to a handler: what was sent is what the handler gets."""

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.app.conftest import Caller
from worker.content import decoded
from worker.store.actions import Action

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(value=VALUES, plain=st.booleans())
def test_what_was_sent_is_what_a_handler_gets(
    editor: Caller, action: Action, conn: psycopg.Connection, value: Any, plain: bool
) -> None:
    body = json.dumps(value, ensure_ascii=plain)
    answer = editor.post(f"/dpe/v3/actions/{action.id}/start", data=body.encode())
    assert answer.status_code == 202, (answer.text, body)
    row = conn.execute(
        "SELECT event FROM dpe.jobs WHERE execution_id = %s", [UUID(answer.json["execution_id"])]
    ).fetchone()
    assert row == (body,)
    got = decoded(row[0])
    assert (got, repr(got)) == (value, repr(value))


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30 + 1])
def test_long_whole_numbers_lose_no_digit(number: int) -> None:
    assert decoded(json.dumps([{"event_id": number}])) == [{"event_id": number}]
