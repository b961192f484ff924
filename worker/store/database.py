"""Connections to Postgres: a pool for the many threads of the API, one for each worker process."""

import re
import select
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

# A dead network must end in an error, not in a wait: libpq's own defaults wait for minutes.
# Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
LIVELY: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}


GENERIC_PLANS = "-c plan_cache_mode=force_generic_plan"


def connect(
    database_url: str,
    name: str,
    *,
    autocommit: bool = True,
    kind: type[psycopg.Connection] = psycopg.Connection,
) -> psycopg.Connection:
    """Open one connection; `name` is what `pg_stat_activity` shows.

    Times are UTC in every session, so that text and timestamps agree on all hosts.
    """
    return kind.connect(
        database_url,
        autocommit=autocommit,
        application_name=name,
        options="-c timezone=UTC",
        **LIVELY,
    )


async def connect_async(database_url: str, name: str) -> psycopg.AsyncConnection:
    """As `connect`, for an event loop and statements that come over and over (`generic_plans`)."""
    return await psycopg.AsyncConnection.connect(
        database_url,
        autocommit=True,
        application_name=name,
        options=f"-c timezone=UTC {GENERIC_PLANS}",
        **LIVELY,
    )


def open_pool(
    database_url: str, size: int, name: str, *, generic_plans: bool = False
) -> ConnectionPool[psycopg.Connection[TupleRow]]:
    """Open a pool of at most `size` connections; call it after the fork, never before (F20).

    A request waits at most 2 s for a connection; then `psycopg_pool.PoolTimeout`.
    `generic_plans`: statements that come over and over, and whose best plan is always the same, are
    planned once; Postgres takes as long to plan the acceptance of some starts as to run it.
    """

    def check(conn: psycopg.Connection[TupleRow]) -> None:
        # Asks the kernel only, no round trip: an idle connection has nothing to read but the
        # server's farewell.  A restart ends all of them, so all are replaced, and it costs no
        # request; one by one, the pool would pause for longer after each.
        poll = select.poll()  # not select(), which knows no descriptor above 1023
        poll.register(conn.fileno(), select.POLLIN)
        if poll.poll(0):
            pool.drain()
            raise psycopg.OperationalError("the server closed the connection")

    pool: ConnectionPool[psycopg.Connection[TupleRow]] = ConnectionPool(
        database_url,
        min_size=1,
        max_size=size,
        timeout=2.0,
        # The pool doubles its pauses for as long as an outage lasts, and would sleep on after it.
        # Made to give up early, it tries anew with the next request.
        reconnect_timeout=0.5,
        check=check,
        kwargs={
            "autocommit": True,
            "application_name": name,
            "options": f"-c timezone=UTC {GENERIC_PLANS if generic_plans else ''}",
            **LIVELY,
        },
        open=True,
    )
    return pool


_PLAIN = re.compile(r"[\w.:+, -]*", re.ASCII)


def plain_array(values: Iterable[object]) -> str:
    """An array as Postgres reads it, of ids, numbers, instants, truths or None.

    psycopg's own, which looks at each value for how to send it, takes a third of the processor time
    of a statement that has ten of them.  Raises ValueError for a value that needs quotes.
    """
    text = ",".join(["NULL" if value is None else str(value) for value in values])
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"not to be written without quotes: {text}")
    return "{" + text + "}"
