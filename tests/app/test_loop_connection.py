"""The event loop's own connection to Postgres, on both loops that there are."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import uvloop

from app.embedded import Postgres
from worker.store.database import LoopConnection

NAME = "dpe-loop-test"
ECHO = b"SELECT $1::text"
TIMEOUT_S = 30  # against hanging

Run = Callable[[Callable[[LoopConnection], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def run(request: pytest.FixtureRequest, postgres: Postgres) -> Run:
    """Run something with a connection, and close that."""

    def run(what: Callable[[LoopConnection], Awaitable[None]]) -> None:
        async def limited() -> None:
            conn = LoopConnection(postgres.url, NAME)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await what(conn)
            finally:
                await conn.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited())

    return run


async def echoed(conn: LoopConnection, text: str) -> str:
    [(answer,)] = await conn.rows(ECHO, [text.encode()], lambda *row: row)
    return answer


def others(conn: psycopg.Connection, do: str) -> list[tuple[Any, ...]]:
    """Do something to each of these connections."""
    statement = f"SELECT {do} FROM pg_stat_activity WHERE application_name = %s"
    return conn.execute(statement.encode(), [NAME]).fetchall()


def test_statements_one_after_the_other_and_with_pauses(run: Run) -> None:
    async def what(conn: LoopConnection) -> None:
        for number in range(300):
            assert await echoed(conn, f"number {number}") == f"number {number}"
            for _ in range(number % 4):
                await asyncio.sleep(0)

    run(what)


def test_more_than_fits_into_the_socket(run: Run) -> None:
    async def what(conn: LoopConnection) -> None:
        text = "0123456789" * 5_000_000
        assert await echoed(conn, text) == text
        assert await echoed(conn, "less") == "less"

    run(what)


def test_an_error_is_raised_and_costs_no_connection(run: Run, conn: psycopg.Connection) -> None:
    async def what(loop_conn: LoopConnection) -> None:
        await echoed(loop_conn, "before")
        before = others(conn, "pid")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await loop_conn.rows(b"SELECT 1 / $1::int", [b"0"], lambda *row: row)
        with pytest.raises(psycopg.errors.SyntaxError):
            await loop_conn.rows(b"SELEKT $1::int", [b"0"], lambda *row: row)
        await echoed(loop_conn, "after")
        assert others(conn, "pid") == before

    run(what)


def test_a_connection_that_the_server_closes_costs_no_statement(
    run: Run, conn: psycopg.Connection
) -> None:
    async def what(loop_conn: LoopConnection) -> None:
        for pause_s in (0.0, 0.05, 0.0):
            await echoed(loop_conn, "before")
            assert (True,) in others(conn, "pg_terminate_backend(pid, 5000)")
            await asyncio.sleep(pause_s)  # in which the loop sees it, or does not
            await echoed(loop_conn, "after")

    run(what)


def test_a_statement_whose_connection_is_lost_fails_and_the_next_one_does_not(
    run: Run, conn: psycopg.Connection
) -> None:
    async def what(loop_conn: LoopConnection) -> None:
        sleeping = asyncio.create_task(
            loop_conn.rows(b"SELECT pg_sleep($1::float8)", [b"20"], lambda *row: row)
        )
        while not others(conn, "pid"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        others(conn, "pg_terminate_backend(pid, 5000)")
        with pytest.raises(psycopg.OperationalError):
            await sleeping
        assert await echoed(loop_conn, "after") == "after"

    run(what)


def test_a_statement_that_nobody_waits_for_any_more_is_not_answered_to_the_next(
    run: Run, conn: psycopg.Connection
) -> None:
    async def what(loop_conn: LoopConnection) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await loop_conn.rows(b"SELECT pg_sleep($1::float8)", [b"1"], lambda *r: r)
            assert await echoed(loop_conn, "after") == "after"

    run(what)


@pytest.mark.parametrize("pause_s", [0, 0.001, 0.01])
def test_an_answer_that_is_cut_off_is_an_error_though_the_loop_learns_of_both_at_once(
    postgres: Postgres, run: Run, pause_s: float
) -> None:
    with psycopg.connect(postgres.url) as direct, socket.create_server(("127.0.0.1", 0)) as server:
        info = direct.info
        where = f"{info.host}/.s.PGSQL.{info.port}"
        threading.Thread(target=_relay_once, args=(server, where), daemon=True).start()
        url = (
            f"postgresql://{info.user}:{quote(info.password)}@127.0.0.1"
            f":{server.getsockname()[1]}/{info.dbname}?sslmode=disable"
        )

        async def what(_: LoopConnection) -> None:
            conn = LoopConnection(url, NAME)
            await echoed(conn, "before")
            statement = b"SELECT repeat($1::text, 3000000)"
            asked = asyncio.create_task(conn.rows(statement, [b"x"], lambda *row: row))
            await asyncio.sleep(pause_s)  # it is prepared, or sent, and then:
            time.sleep(1)  # the loop does something else meanwhile
            with pytest.raises(psycopg.OperationalError):
                await asked
            await conn.close()

        run(what)


def _relay_once(server: socket.socket, where: str) -> None:
    """Pass one connection on; cut it off in the middle of a large answer."""
    outside, _ = server.accept()
    inside = socket.socket(socket.AF_UNIX)
    inside.connect(where)

    def inwards() -> None:
        with suppress(OSError):  # closed by the other thread, between two calls
            while sent := outside.recv(65536):
                inside.sendall(sent)

    threading.Thread(target=inwards, daemon=True).start()
    passed = 0
    while passed < 200_000 and (answer := inside.recv(65536)):
        passed += len(answer)
        outside.sendall(answer)
    outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    outside.shutdown(socket.SHUT_RD)  # the other thread lets go of it
    outside.close()
    inside.close()
