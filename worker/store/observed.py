"""How jobs ended, for those who only watch (Flower)."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import args_row


@dataclass(frozen=True, slots=True)
class End:
    """How one job ended; times are Unix times."""

    execution_id: str
    name: str
    status: str
    submitted_at: float
    ended_at: float
    error: str  # its message; empty: none


def ends(
    conn: psycopg.Connection,
    since: float,
    until: float,
    execution_ids: Sequence[str],
    limit: int,
) -> list[End]:
    """The newest `limit` of the jobs that ended between two Unix times.

    And those of `execution_ids` that have ended before `until`, whenever it was.
    """
    columns = """execution_id::text, name, status, extract(epoch FROM submitted_at)::float8,
                 extract(epoch FROM ended_at)::float8, coalesce(error->>'message', '')"""
    query = f"""
        SELECT {columns} FROM dpe.jobs
        WHERE execution_id = ANY(%(ids)s::uuid[]) AND ended_at < to_timestamp(%(until)s)
        UNION
        (SELECT {columns} FROM dpe.jobs
         WHERE ended_at > to_timestamp(%(since)s) AND ended_at < to_timestamp(%(until)s)
           AND plan IS NULL
         ORDER BY ended_at DESC LIMIT %(limit)s)
        """  # noqa: S608 -- constants
    with conn.cursor(row_factory=args_row(End)) as cursor:
        return cursor.execute(
            query.encode(),
            {"ids": list(execution_ids), "since": since, "until": until, "limit": limit},
        ).fetchall()
