"""Jobs that run and jobs that have ended, for those who only watch (Flower)."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import args_row

from worker.store.jobs import STATUS


@dataclass(frozen=True, slots=True)
class Observed:
    """What one job has come to; times are Unix times."""

    execution_id: str
    name: str
    status: str
    submitted_at: float
    since: float  # when it ended; of one that runs, when it began
    error: str  # its message; empty: none


def observed(
    conn: psycopg.Connection,
    since: float,
    until: float,
    execution_ids: Sequence[str],
    limit: int,
) -> list[Observed]:
    """The newest `limit` of the jobs that ended between two Unix times.

    And those of `execution_ids` that have ended before `until`, whenever it was; and up to `limit`
    that run since before `until`.
    """
    columns = f"""execution_id::text, name, {STATUS}, extract(epoch FROM submitted_at)::float8,
                  extract(epoch FROM coalesce(ended_at, started_at))::float8,
                  coalesce(error->>'message', '')"""
    query = f"""
        SELECT {columns} FROM dpe.jobs
        WHERE execution_id = ANY(%(ids)s::uuid[]) AND ended_at < to_timestamp(%(until)s)
        UNION
        (SELECT {columns} FROM dpe.jobs
         WHERE ended_at > to_timestamp(%(since)s) AND ended_at < to_timestamp(%(until)s)
           AND plan IS NULL
         ORDER BY ended_at DESC LIMIT %(limit)s)
        UNION
        (SELECT {columns} FROM dpe.jobs
         WHERE status = 'PROCESSING' AND started_at < to_timestamp(%(until)s) AND plan IS NULL
         LIMIT %(limit)s)
        """  # noqa: S608 -- constants
    with conn.cursor(row_factory=args_row(Observed)) as cursor:
        return cursor.execute(
            query.encode(),
            {"ids": list(execution_ids), "since": since, "until": until, "limit": limit},
        ).fetchall()
