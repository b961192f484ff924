"""Files over real HTTP: whole, closed again, and in nobody's memory."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from flask import Flask

from app.embedded import Postgres
from tests.app.conftest import Caller
from tests.app.serving import Ways, received
from tests.app.test_server import served
from tests.stack import until
from worker.store import access

T = "/dwh/v4/tables/data_prim/t"
MAX_GROWTH_BYTES = 40_000_000
SLOW_S = 3.0


def fill(conn: psycopg.Connection, rows: int) -> None:
    """A table of about a kilobyte a row."""
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute(
        "CREATE TABLE data_prim.t AS SELECT at AS id, repeat(md5(at::text), 31) AS text"
        " FROM generate_series(1, %s) AS at",
        [rows],
    )


def open_files() -> set[str]:
    """Those of this process that have no name any more."""
    found: set[str] = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)  # noqa: PTH115 -- as it stands: the file is deleted
        except FileNotFoundError:
            continue
        if target.endswith("(deleted)"):
            found.add(f"{fd.name} {target}")
    return found


@pytest.fixture(autouse=True)
def _files_are_closed(monkeypatch: pytest.MonkeyPatch, serve: object) -> Iterator[None]:
    """Each soon after the server has opened it, whatever became of the call."""
    monkeypatch.setattr("app.bridge.OPENED_S", 0.2)
    before = open_files()
    yield
    until(lambda: open_files() <= before)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_file_arrives_as_flask_gives_it(
    app: Flask,
    serve: Callable[[Flask], Ways],
    editor: Caller,
    conn: psycopg.Connection,
    format: str,
) -> None:
    fill(conn, 5000)
    path = f"{T}/export?format={format}"
    by_flask = editor.get(path, buffered=True)
    serve(app)
    answer = editor.get(path)
    assert (answer.status_code, answer.data == by_flask.data) == (200, True)
    assert len(answer.data) > (4_900_000 if format == "csv" else 100_000)
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    mine = {name.lower(): value for name, value in by_flask.headers}
    assert dict(answer.headers) == mine | {"server": "granian"}


def test_the_head_of_a_file_has_its_length_and_no_body(
    ways: Ways, editor: Caller, conn: psycopg.Connection
) -> None:
    fill(conn, 10)
    whole = editor.get(f"{T}/export")
    head = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {editor.token}\r\n\r\n"
    answer = ways.raw(f"HEAD {T}/export HTTP/1.1\r\n{head}".encode())
    top, _, body = answer.partition(b"\r\n\r\n")
    assert (top.split()[1], body) == (b"200", b"")
    assert f"\r\ncontent-length: {len(whole.data)}\r\n".encode() in top


@pytest.mark.parametrize("leaving", ["at the end", "in the middle", "before the answer"])
def test_a_file_is_closed_again_whoever_takes_it(
    ways: Ways,
    editor: Caller,
    conn: psycopg.Connection,
    postgres: Postgres,
    leaving: str,
) -> None:
    fill(conn, 20_000)
    before = open_files()
    lines = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {editor.token}\r\n\r\n"
    with psycopg.connect(postgres.url) as lock:
        lock.execute("LOCK TABLE data_prim.t IN ACCESS EXCLUSIVE MODE")
        with ways.connect() as s:
            s.sendall(f"GET {T}/export HTTP/1.1\r\n{lines}".encode())
            until(lambda: open_files() - before)
            if leaving != "before the answer":
                lock.rollback()
                assert s.recv(10_000).startswith(b"HTTP/1.1 200 ")
            if leaving == "at the end":
                assert len(received(s)) > 19_000_000
    assert editor.get(f"{T}/export?limit=1").status_code == 200


@pytest.mark.slow
def test_a_slow_caller_of_a_file_takes_no_memory(
    environment: None, conn: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPE_API_PROCESSES", "1")
    (tmp_path / "cwd").mkdir()
    fill(conn, 100_000)
    with contextmanager(served)(tmp_path / "cwd", tmp_path / "api.log") as api:
        key = access.create_key(conn, "a reader")
        login = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
        token = api.call("POST", "/iam/login", json.dumps(login))[2]["token"]
        (process,) = psutil.Process(api.process.pid).children()
        path = f"{T}/export?token={token}"
        before = received_at(api.port, f"{path}&limit=20000", process, slow_s=0)[1]
        size, most = received_at(api.port, path, process, slow_s=SLOW_S)
        assert size > 99_000_000
        assert most - before < MAX_GROWTH_BYTES


def received_at(port: int, path: str, process: psutil.Process, slow_s: float) -> tuple[int, int]:
    """How much arrives, and the most memory meanwhile; at first little by little."""
    size, most = 0, 0
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        s.settimeout(20)
        s.connect(("127.0.0.1", port))
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        size += len(s.recv(65_536))
        until_at = time.monotonic() + slow_s
        while piece := s.recv(65_536):
            size += len(piece)
            most = max(most, process.memory_info().rss)
            if time.monotonic() < until_at:
                time.sleep(0.02)
    return size, most
