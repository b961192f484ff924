"""Flask behind granian's RSGI: what comes and goes over HTTP is what WSGI promises."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from flask import Flask

from tests.app.conftest import ROWS, Caller, start
from tests.app.serving import Ways, count, received
from tests.app.test_limits import bounded, caller_of  # noqa: F401 -- bounded is a fixture
from worker.store.actions import Action

T = "/dwh/v4/tables/data_prim/t"


@pytest.fixture
def connection(ways: Ways) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", ways.port, timeout=20)) as connection:
        yield connection


def test_an_answer_of_several_megabytes_arrives_whole(
    ways: Ways, editor: Caller, conn: psycopg.Connection
) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute("CREATE TABLE data_prim.t AS SELECT repeat('x', 3000000) AS x FROM"
                 " generate_series(1, 2)")  # fmt: skip
    answer = editor.get(f"{T}/rows")
    assert answer.status_code == 200
    assert answer.json == [{"x": "x" * 3_000_000}] * 2


@pytest.mark.parametrize("values", [("text/html", "application/problem+json"),
                                    ("application/problem+json", "text/html")])  # fmt: skip
def test_headers_that_are_repeated_count_all(ways: Ways, values: tuple[str, str]) -> None:
    lines = "".join(f"Accept: {value}\r\n" for value in values)
    answer = ways.raw(f"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())
    assert answer.split()[1] == b"404"
    assert b"\r\ncontent-type: application/problem+json\r\n" in answer


@pytest.mark.parametrize("trusted", [True, False])
def test_the_callers_address_is_what_it_is(
    bounded: Callable[..., Flask],  # noqa: F811
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
    trusted: bool,
) -> None:
    app = bounded(trusted_proxies=("127.0.0.0/8",) if trusted else ())
    serve(app)
    there = caller_of(app, conn, networks=["192.0.2.0/24"])
    said = {"X-Forwarded-For": "127.0.0.1, 192.0.2.7"}
    assert start(there, action, headers=said).status_code == (202 if trusted else 403)
    here = caller_of(app, conn, networks=["127.0.0.1/32"])
    assert start(here, action).status_code == 202


def test_a_header_with_an_underscore_is_not_the_one_of_the_proxy(
    bounded: Callable[..., Flask],  # noqa: F811
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
) -> None:
    """A proxy lets through what it does not know."""
    app = bounded(trusted_proxies=("127.0.0.0/8",))
    ways = serve(app)
    there = caller_of(app, conn, networks=["192.0.2.0/24"])
    said = ["X-Forwarded-For: 198.51.100.1\r\n", "X_Forwarded_For: 192.0.2.7\r\n"]
    for lines in (said, said[::-1], said[1:]):
        head = (
            f"POST /dpe/v3/actions/{action.id}/start HTTP/1.1\r\nHost: x\r\n"
            f"Connection: close\r\nAuthorization: Bearer {there.token}\r\n{''.join(lines)}\r\n"
        )
        assert ways.raw(head.encode()).split()[1] == b"403"


def test_a_header_that_is_not_ascii_is_not_as_if_it_were_not_there(
    ways: Ways, editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    head = (
        f"POST /dpe/v3/actions/{action.id}/start HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {editor.token}\r\nContent-Length: {len(ROWS)}\r\n"
        "Idempotency-Key: Bestellung-Österreich\r\n\r\n"
    )
    _, _, body = ways.raw(head.encode() + ROWS).partition(b"\r\n\r\n")
    assert "Idempotency-Key must have 1 to" in json.loads(body)["error"]
    assert count(conn) == 0


def test_a_path_is_utf8(ways: Ways, editor: Caller, conn: psycopg.Connection) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute('CREATE TABLE data_prim."Größe €" AS SELECT 1 AS id')
    base = "/dwh/v4/tables/data_prim"
    assert editor.get(f"{base}/Gr%C3%B6%C3%9Fe%20%E2%82%AC/rows").json == [{"id": 1}]
    answer = editor.get(f"{base}/%C3%BC%2B/rows")
    assert (answer.status_code, "ü+" in answer.json["warning"]) == (404, True)
    for other in (f"{base}/%FF/rows", "/%FF", "/%E2%82", "/%00"):
        answer = editor.get(other)
        assert (answer.status_code, "not found" in answer.json["warning"]) == (404, True), other


def test_a_query_is_utf8(ways: Ways, editor: Caller) -> None:
    for query in ("format=%C3%BC", "format=ü"):
        head = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {editor.token}\r\n\r\n"
        answer = ways.raw(f"GET {T}/export?{query} HTTP/1.1\r\n{head}".encode())
        assert answer.split()[1] == b"400"
        assert "ü" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("in_pieces", [True, False])
def test_a_body_that_is_read_in_part_gets_its_answer(
    ways: Ways, connection: http.client.HTTPConnection, in_pieces: bool
) -> None:
    size = 3_000_000
    body = iter([b"x" * 30_000] * 100) if in_pieces else b"x" * size
    connection.request("POST", "/iam/v4/login", body, encode_chunked=in_pieces,
                       headers={"Transfer-Encoding": "chunked"} if in_pieces else {})  # fmt: skip
    answer = connection.getresponse()
    assert (answer.status, b"1000000 bytes" in answer.read()) == (413, True)
    assert ways.by_flask == 1


def test_a_body_in_pieces_is_read_whole(
    ways: Ways, editor: Caller, action: Action, conn: psycopg.Connection
) -> None:
    """Whatever the time between them."""
    pieces = [b'"', b"x" * 70_000, b"y", b"", b"z" * 200_000, b'"']

    def sent() -> Iterator[bytes]:
        for piece in pieces:
            time.sleep(0.01)
            yield piece

    with closing(http.client.HTTPConnection("127.0.0.1", ways.port, timeout=20)) as connection:
        path = f"/dpe/v3/actions/{action.id}/start?token={editor.token}"
        connection.request("POST", path, sent())
        assert connection.getresponse().status == 202
    assert conn.execute("SELECT event FROM dpe.jobs").fetchone() == (b"".join(pieces).decode(),)


@pytest.mark.parametrize("query", ["", "?delay=1"])
def test_who_asks_first_is_told_to_send_the_body(
    ways: Ways, known: Caller, action: Action, query: str
) -> None:
    """As curl does with one of more than a megabyte."""
    head = (
        f"POST /dpe/v3/actions/{action.id}/start{query} HTTP/1.1\r\nHost: x\r\n"
        f"Connection: close\r\nAuthorization: Bearer {known.token}\r\n"
        f"Content-Length: {len(ROWS)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with ways.connect() as s:
        s.sendall(head.encode())
        assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(ROWS)
        assert received(s).startswith(b"HTTP/1.1 202 ")


def test_a_connection_is_kept_for_the_next_call(
    ways: Ways, known: Caller, action: Action, connection: http.client.HTTPConnection
) -> None:
    """Also where the body was not looked at."""
    path, call = f"/dpe/v3/actions/{action.id}/start", {"Authorization": f"Bearer {known.token}"}
    for where, status in ((path, 202), ("/nowhere", 404), (f"{path}?delay=1", 202)) * 2:
        connection.request("POST", where, ROWS, call)
        sock = connection.sock
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, connection.sock) == (status, sock)
    assert ways.by_flask == 4


def test_as_many_calls_as_threads_run_at_a_time(
    bounded: Callable[..., Flask],  # noqa: F811
    serve: Callable[[Flask], Ways],
    conn: psycopg.Connection,
    action: Action,
) -> None:
    app = bounded(api_threads=2)
    ways = serve(app)
    sender = caller_of(app, conn)
    ways.by_flask = 0
    path = f"/dpe/v3/actions/{action.id}/start?wait=0.3"  # a part of a second is Flask's

    def call(_: int) -> int:
        return Caller(app.test_client(), sender.token).post(path).status_code

    began = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(call, range(6))) == [202] * 6
    assert 0.9 <= time.monotonic() - began < 3
    assert ways.by_flask == 6
