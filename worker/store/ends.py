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
    conn: psycopg.Connection, since: float, execution_ids: Sequence[str], limit: int
) -> list[End]:
    """The jobs that ended after `since` (Unix time), the newest `limit`; and those named, if so."""
    columns = """execution_id::text, name, status, extract(epoch FROM submitted_at)::float8,
                 extract(epoch FROM ended_at)::float8, coalesce(error->>'message', '')"""
    query = f"""
        SELECT {columns} FROM dpe.jobs
        WHERE execution_id = ANY(%(ids)s::uuid[]) AND ended_at IS NOT NULL
        UNION
        (SELECT {columns} FROM dpe.jobs WHERE ended_at > to_timestamp(%(since)s)
         ORDER BY ended_at DESC LIMIT %(limit)s)
        """  # noqa: S608
    with conn.cursor(row_factory=args_row(End)) as cursor:
        return cursor.execute(
            query.encode(), {"ids": list(execution_ids), "since": since, "limit": limit}
        ).fetchall()
