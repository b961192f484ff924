"""What is owed to the data store: files of committed jobs on their way to their names.

A note is written in the job's own transaction, so it can be seen only if the job is committed.
Whoever has moved the file deletes the note.  Notes of the same target are kept in their order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.rows import class_row

RETRY_S = 30.0  # a move that failed is tried again after so long
GRACE_S = 2.0  # the job's own process is about to do it


@dataclass(frozen=True, slots=True)
class Move:
    """`source` to `target`; None: the target is to be deleted."""

    id: int
    target: str
    source: str | None


Owed = tuple[str, str | None]  # (target, source) of a move


def note(conn: psycopg.Connection, execution_id: UUID, moves: Sequence[Owed]) -> None:
    """Owe moves, in their order; `conn` is the one with the job's transaction."""
    if moves:
        with conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO dpe.file_moves (execution_id, target, source) VALUES (%s, %s, %s)",
                [(execution_id, *move) for move in moves],
            )


def take(conn: psycopg.Connection, execution_id: UUID) -> list[Move]:
    """A job's moves, and those of earlier jobs to the same targets, in order; locked.

    Without the earlier ones a file that was written before would come later.
    """
    with conn.cursor(row_factory=class_row(Move)) as cursor:
        return cursor.execute(
            """
            SELECT id, target, source FROM dpe.file_moves m
            WHERE EXISTS (SELECT FROM dpe.file_moves own
                          WHERE own.execution_id = %s AND own.target = m.target AND own.id >= m.id)
            ORDER BY id FOR UPDATE
            """,
            [execution_id],
        ).fetchall()


def take_left(conn: psycopg.Connection, limit: int) -> list[Move]:
    """Moves that the jobs' own processes have left, the oldest of each target; locked."""
    with conn.cursor(row_factory=class_row(Move)) as cursor:
        return cursor.execute(
            """
            SELECT id, target, source FROM dpe.file_moves m
            WHERE noted_at < now() - %s * interval '1 second'
              AND (failed_at IS NULL OR failed_at < now() - %s * interval '1 second')
              AND NOT EXISTS (SELECT FROM dpe.file_moves earlier
                              WHERE earlier.target = m.target AND earlier.id < m.id)
            ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
            """,
            [GRACE_S, RETRY_S, limit],
        ).fetchall()


def done(conn: psycopg.Connection, move: Move) -> None:
    """The file is at its place."""
    conn.execute("DELETE FROM dpe.file_moves WHERE id = %s", [move.id])


def failed(conn: psycopg.Connection, move: Move, why: str) -> None:
    """It is not, and why; the watch tries again."""
    conn.execute(
        "UPDATE dpe.file_moves SET failed_at = now(), error = %s WHERE id = %s",
        [why.replace("\0", ""), move.id],
    )


def unneeded(
    conn: psycopg.Connection, attempts: Iterable[tuple[UUID, int]]
) -> set[tuple[UUID, int]]:
    """Of attempts, as (execution id, attempt), those whose files nobody waits for any more.

    That is: the attempt does not run, and its job owes no move.
    """
    pairs = list(attempts)
    rows = conn.execute(
        """
        SELECT a.id, a.attempt FROM unnest(%s::uuid[], %s::int[]) AS a (id, attempt)
        WHERE NOT EXISTS (SELECT FROM dpe.jobs j WHERE j.execution_id = a.id
                          AND j.attempt = a.attempt AND j.status = 'PROCESSING')
          AND NOT EXISTS (SELECT FROM dpe.file_moves m WHERE m.execution_id = a.id)
          AND NOT EXISTS (SELECT FROM dpe.commits_elsewhere n WHERE n.execution_id = a.id)
        """,
        [[id for id, _ in pairs], [attempt for _, attempt in pairs]],
    ).fetchall()
    return set(rows)
