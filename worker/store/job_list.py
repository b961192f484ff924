"""The list of jobs, narrowed and paged."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from worker.store.jobs import COLUMNS, Job


@dataclass(frozen=True, slots=True)
class Filter:
    """What a list of jobs is narrowed to; None: not by this."""

    action_id: str | None = None
    statuses: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    retry_of: UUID | None = None
    run_id: UUID | None = None
    after: int | None = None  # seq of the page's last job before


def list_jobs(
    conn: psycopg.Connection, where: Filter, *, newest_first: bool, limit: int
) -> list[Job]:
    """Jobs in order of acceptance; `where.after` takes the `seq` of the last one seen."""
    direction = "<" if newest_first else ">"
    order = "DESC" if newest_first else "ASC"
    conditions = [
        condition
        for value, condition in (
            (where.action_id, "action_id = %(action_id)s"),
            (where.statuses, _of_statuses(where.statuses or ())),
            (where.since, "submitted_at >= %(since)s"),
            (where.until, "submitted_at < %(until)s"),
            (where.retry_of, "retry_of = %(retry_of)s"),
            (where.run_id, "run_id = %(run_id)s"),
            (where.after, f"seq {direction} %(after)s"),
        )
        if value is not None
    ]
    # Only constants of this function are put together here; every value is a parameter.
    query = f"""
        SELECT {COLUMNS}
        FROM dpe.jobs WHERE {" AND ".join(conditions) or "true"}
        ORDER BY seq {order} LIMIT %(limit)s
        """  # noqa: S608 -- constants
    with conn.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(
            query.encode(),
            {
                "action_id": where.action_id,
                "statuses": list(where.statuses or ()),
                "since": where.since,
                "until": where.until,
                "retry_of": where.retry_of,
                "run_id": where.run_id,
                "after": where.after,
                "limit": limit,
            },
        ).fetchall()


def _of_statuses(statuses: tuple[str, ...]) -> str:
    building = "(status = 'PROCESSING' AND building IS NOT DISTINCT FROM attempt)"
    either = "status = ANY(%(statuses)s)"
    if "PROCESSING" in statuses and "BUILDING" not in statuses:
        return f"{either} AND NOT {building}"
    if "BUILDING" in statuses and "PROCESSING" not in statuses:
        return f"({either} OR {building})"
    return either
