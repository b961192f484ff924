"""How a start's body may be packed, and what becomes of one that is not as it says."""

import gzip
import tracemalloc

import psycopg
import pytest
from werkzeug.test import TestResponse

from tests.app.conftest import Caller
from worker.store.actions import Action

ROWS = b'[{"event_id": 1, "event_name": "Ada"}]'
PACKED = gzip.compress(ROWS, mtime=0)


def sent(editor: Caller, action: Action, body: bytes, encoding: str) -> TestResponse:
    return editor.post(
        f"/dpe/v3/actions/{action.id}/start", data=body, headers={"Content-Encoding": encoding}
    )


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP", "identity"])
def test_a_packed_body_is_kept_as_it_was_before(
    editor: Caller, action: Action, conn: psycopg.Connection, encoding: str
) -> None:
    body = ROWS if encoding == "identity" else PACKED
    answer = sent(editor, action, body, encoding)
    assert answer.status_code == 202, answer.text
    assert conn.execute("SELECT event FROM dpe.jobs").fetchone() == (ROWS.decode(),)


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "nonsense"])
def test_another_packing_is_415_and_names_what_is_taken(
    editor: Caller, action: Action, encoding: str
) -> None:
    answer = sent(editor, action, ROWS, encoding)
    assert answer.status_code == 415
    assert encoding in answer.json["error"]
    assert answer.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (ROWS, "no gzip"),
        (b"", "breaks off"),
        (PACKED[:-4], "breaks off"),
        (PACKED[:-4] + b"\0\0\0\0", "no gzip"),
        (PACKED + b"more", "4 bytes follow"),
        (gzip.compress(b"[1,", mtime=0), "not JSON"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_400(
    editor: Caller, action: Action, conn: psycopg.Connection, body: bytes, words: str
) -> None:
    answer = sent(editor, action, body, "gzip")
    assert (answer.status_code, words in answer.json["error"]) == (400, True), answer.text
    assert conn.execute("SELECT count(*) FROM dpe.jobs").fetchone() == (0,)


def test_a_bomb_is_413_and_is_not_unpacked(editor: Caller, action: Action) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)
    assert len(bomb) < 150_000
    tracemalloc.start()
    answer = sent(editor, action, bomb, "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 413
    assert "unpacks to more than the 10000000 bytes" in answer.json["error"]
    assert peak < 30_000_000
