"""Datasets on servers of their own: the ledger there, and here the note that says where to look.

The ledger's row is committed with the job's rows, and has the job's result: so the attempt after
one that was killed right behind that commit needs not run the handler again, only to end the job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from worker.store.database import connect
from worker.store.file_moves import Owed

LEDGER_KEPT = "90 days"
# Between the look at the claim and the commit a process may freeze.  Postgres then ends its session
# there, and only after that the one here, which holds the claim: nobody can take the job while
# the commit is still possible.
COMMIT_WITHIN = "1s"
CLAIM_HELD_FOR = "3s"

# What a server has beside the datasets' tables; those of the same names here are from migrations.
_SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS dpe;
    CREATE TABLE IF NOT EXISTS dpe.ledger (
      execution_id uuid PRIMARY KEY,
      attempt      integer NOT NULL,
      result       text,
      stats        text NOT NULL,
      committed_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX IF NOT EXISTS ledger_committed_at ON dpe.ledger (committed_at);
    CREATE TABLE IF NOT EXISTS dpe.tables (
      dataset     text NOT NULL,
      name        text NOT NULL,
      description jsonb NOT NULL,
      built_at    timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (dataset, name)
    );
    CREATE TABLE IF NOT EXISTS dpe.quarantine (
      id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      dataset        text NOT NULL,
      table_name     text NOT NULL,
      execution_id   uuid NOT NULL,
      row_number     bigint NOT NULL,
      column_name    text,
      reason         text NOT NULL,
      data           json NOT NULL,
      quarantined_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX IF NOT EXISTS quarantine_table ON dpe.quarantine (dataset, table_name, id);
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """What an attempt has committed with its rows; `result` is JSON as text, or None."""

    attempt: int
    result: str | None
    stats: list[dict[str, Any]]


def open_server(url: str, name: str) -> psycopg.Connection:
    """A connection to a dataset's server, in autocommit; what is needed there is made."""
    conn = connect(url, name)
    try:
        there = conn.execute(
            "SELECT to_regclass('dpe.ledger_committed_at'), to_regclass('dpe.quarantine_table')"
        ).fetchone()
        if there is None or None in there:
            with conn.transaction():
                conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('dpe.ledger', 0))")
                conn.execute(_SCHEMA.encode())
    except BaseException:
        conn.close()
        raise
    return conn


def begin(conn: psycopg.Connection, execution_id: UUID, attempt: int) -> None:
    """Begin an attempt's transaction there; earlier ones of the job can't commit any more.

    A frozen one would hold its locks for ever, so its session is ended.  The lock is waited for
    until it has gone, or its commit, that was under way, is done.
    """
    name, lock = f"dpe-job {execution_id}", f"dpe {execution_id}"
    conn.execute("SELECT set_config('application_name', %s, true)", [f"{name} {attempt}"])
    if attempt > 1:
        conn.execute(
            """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE %s || ' %%'
              AND pid <> pg_backend_pid()
            """,
            [name],
        )
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [lock])


def entry(conn: psycopg.Connection, execution_id: UUID) -> Entry | None:
    """What an attempt of the job has committed there."""
    with conn.cursor(row_factory=class_row(_Row)) as cursor:
        row = cursor.execute(
            "SELECT attempt, result, stats FROM dpe.ledger WHERE execution_id = %s", [execution_id]
        ).fetchone()
    return None if row is None else Entry(row.attempt, row.result, orjson.loads(row.stats))


def enter(
    conn: psycopg.Connection, execution_id: UUID, attempt: int, result: str | None, stats: Any
) -> None:
    """Write the ledger's row into the transaction of the rows, which is to be committed at once."""
    conn.execute("DELETE FROM dpe.ledger WHERE committed_at < now() - %s::interval", [LEDGER_KEPT])
    conn.execute(
        "INSERT INTO dpe.ledger (execution_id, attempt, result, stats) VALUES (%s, %s, %s, %s)",
        [execution_id, attempt, result, orjson.dumps(stats, default=str).decode()],
    )
    conn.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{COMMIT_WITHIN}'".encode())


def note(
    record: psycopg.Connection, execution_id: UUID, dataset: str, moves: Sequence[Owed]
) -> None:
    """Say, durably, where a commit of the job is about to be made, and what files it brings."""
    with record.transaction():
        record.execute("SET LOCAL synchronous_commit = on")
        record.execute(  # those of jobs that ended otherwise
            "DELETE FROM dpe.commits_elsewhere n WHERE noted_at < now() - interval '1 hour' AND"
            " NOT EXISTS (SELECT FROM dpe.jobs j WHERE j.execution_id = n.execution_id"
            " AND j.ended_at IS NULL)"
        )
        record.execute(
            "INSERT INTO dpe.commits_elsewhere (execution_id, dataset, file_moves)"
            " VALUES (%s, %s, %s) ON CONFLICT (execution_id) DO UPDATE"
            " SET dataset = excluded.dataset, file_moves = excluded.file_moves",
            [execution_id, dataset, orjson.dumps(moves).decode()],
        )


def noted(record: psycopg.Connection, execution_id: UUID) -> tuple[str, list[Owed]] | None:
    """The dataset where an earlier attempt may have committed, and the files that it brought."""
    row = record.execute(
        "SELECT dataset, file_moves FROM dpe.commits_elsewhere WHERE execution_id = %s",
        [execution_id],
    ).fetchone()
    return None if row is None else (row[0], [(target, source) for target, source in row[1]])


def hold_claim(conn: psycopg.Connection, execution_id: UUID, attempt: int) -> bool:
    """Lock the job, and forget the note, in the transaction that ends it; False: claim lost."""
    conn.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{CLAIM_HELD_FOR}'".encode())
    held = conn.execute(
        "SELECT FROM dpe.jobs WHERE execution_id = %s AND attempt = %s AND status = 'PROCESSING'"
        " FOR UPDATE",
        [execution_id, attempt],
    ).rowcount
    forget(conn, execution_id)
    return held == 1


def forget(conn: psycopg.Connection, execution_id: UUID) -> None:
    """Delete the note, in the transaction that ends the job."""
    conn.execute("DELETE FROM dpe.commits_elsewhere WHERE execution_id = %s", [execution_id])


def has_written(conn: psycopg.Connection) -> bool:
    """Whether the transaction that is open on a connection has changed anything."""
    if conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return False
    row = conn.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchone()
    return row == (True,)


@dataclass(frozen=True, slots=True)
class _Row:
    attempt: int
    result: str | None
    stats: str
