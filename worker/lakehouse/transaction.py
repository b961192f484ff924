"""The running job's transaction: whose it is, taking turns on it, savepoints in it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.pq.abc import PGresult

from worker.errors import DatasetError
from worker.store import claims, ending

# One lock for all connectors of the process: it runs one job at a time, on one connection, and the
# handler's threads would otherwise work between each other's savepoints.
turn = threading.RLock()


def running_job() -> claims.Claim:
    """The job that this process runs now; raises DatasetError where it runs none."""
    if claims.running is None:
        raise DatasetError(
            "no job is running here: datasets can be used from a handler only",
            "push the action, then start it: dpe start action ID --wait",
        )
    return claims.running


@contextmanager
def savepoint(conn: psycopg.Connection) -> Iterator[None]:
    """What happens inside is undone where it raises, and the transaction goes on."""
    conn.execute("SAVEPOINT dpe")
    try:
        yield
    except BaseException:
        undo(conn)
        raise
    conn.execute("RELEASE dpe")


def undo(conn: psycopg.Connection) -> None:
    """Go back to the savepoint, and leave it.  A lost connection has nothing to undo."""
    if not conn.closed:
        conn.execute("ROLLBACK TO dpe; RELEASE dpe")


def execute_in_savepoint(conn: psycopg.Connection, statement: str) -> PGresult:
    """Execute one statement, values written into it, as if in a savepoint: in one round trip.

    Raises psycopg.Error, and then the statement has left nothing, and UnicodeEncodeError.  This
    takes a third of the processor time of psycopg's cursor (5 rows: 25 µs, not 45 to 60), and a
    pipeline takes 100.  The price is that values are quoted by us: see `literal`.
    """
    # The first of a transaction needs none: undone with all of it, nothing else is lost.
    with conn.lock:
        is_first = ending.is_idle(conn) and not conn.autocommit
        text = f"BEGIN;{statement}" if is_first else f"SAVEPOINT dpe;{statement};RELEASE dpe"
        results = ending.query(conn, text.encode())
    error = ending.failure(results)
    if error is not None:
        if is_first and not conn.closed:
            conn.rollback()
        elif len(results) > 1:
            undo(conn)
        raise error
    return results[1]


def literal(text: str | None) -> str:
    """A text, or None for NULL, as a literal in SQL.

    It is of no type yet, so Postgres reads it as what the column is by now.  Right as long as
    `standard_conforming_strings` is on: callers ask `check_quoting`.
    """
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def check_quoting(conn: psycopg.Connection) -> None:
    """Raise DatasetError where backslashes in literals are not plain characters."""
    if conn.pgconn.parameter_status(b"standard_conforming_strings") != b"on":
        raise DatasetError(
            "standard_conforming_strings is off in this session",
            "leave it on: SET LOCAL standard_conforming_strings = on",
        )
