"""The event loop's own connection to Postgres, on both loops that there are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

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
