"""Connections to Postgres: a pool for the many threads of the API, one for each worker process."""

import select
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


def connect(database_url: str, name: str, *, autocommit: bool = True) -> psycopg.Connection:
    """Open one connection; `name` is what `pg_stat_activity` shows.

    Times are UTC in every session, so that text and timestamps agree on all hosts.
    """
    return psycopg.connect(
        database_url,
        autocommit=autocommit,
        application_name=name,
        options="-c timezone=UTC",
        **LIVELY,
    )


def open_pool(
    database_url: str, size: int, name: str
) -> ConnectionPool[psycopg.Connection[TupleRow]]:
    """Open a pool of at most `size` connections; call it after the fork, never before (F20).

    A request waits at most 2 s for a connection; then `psycopg_pool.PoolTimeout`.
    """
    return ConnectionPool(
        database_url,
        min_size=1,
        max_size=size,
        timeout=2.0,
        # After an outage the next try comes within a second, so that work goes on at once.
        reconnect_timeout=1e9,
        check=_not_hung_up,
        kwargs={
            "autocommit": True,
            "application_name": name,
            "options": "-c timezone=UTC",
            **LIVELY,
        },
        open=True,
    )


def _not_hung_up(conn: psycopg.Connection[TupleRow]) -> None:
    """Raise where the server has closed an idle connection: a restart must cost no request.

    Asks the kernel only.  What there is to read on an idle connection is the server's farewell, or
    a notice, and then the connection is replaced for nothing.
    """
    if select.select([conn.fileno()], [], [], 0)[0]:
        raise psycopg.OperationalError("the server closed the connection")
