"""What a run is measured by: jobs a second, how soon work went on, how long a job had to wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.faults.faults import Done, Victim


@dataclass(frozen=True)
class Recovery:
    """One fault, and the seconds until work went on; None: no job was hit, or it had ended."""

    fault: Done
    seconds: float | None

    @property
    def end(self) -> float:
        """When work went on (Unix time)."""
        return self.fault.healed_at + (self.seconds or 0.0)


def jobs_per_second(conn: psycopg.Connection, since: float, until: float) -> float:
    """How many jobs ended, each second, between two Unix times."""
    row = conn.execute(
        "SELECT count(*) FROM dpe.jobs"
        " WHERE ended_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)",
        [since, until],
    ).fetchone()
    return (row[0] if row else 0) / max(0.001, until - since)


def longest_waits(
    conn: psycopg.Connection, starts: Sequence[dict[str, Any]], count: int = 5
) -> list[dict[str, Any]]:
    """The jobs that took longest beyond what their handlers sleep, the longest first, and why."""
    sleeps = {
        start["execution_id"]: start
        for start in starts
        if start["execution_id"] and start["does"] in {"write", "sleep", "fail", "fail at first"}
    }
    took = conn.execute(
        "SELECT execution_id::text, extract(epoch FROM ended_at - submitted_at)::float,"
        " attempt, losses, submitted_at::text, started_at::text, ended_at::text"
        " FROM dpe.jobs WHERE ended_at IS NOT NULL"
    ).fetchall()
    waits = [
        {
            "seconds": round(seconds - sleeps[id]["sleep"], 2),
            "event": sleeps[id]["event"],
            "does": sleeps[id]["does"],
            "attempt": attempt,
            "losses": losses,
            "times": times,
            "log": _warnings(conn, id),
        }
        for id, seconds, attempt, losses, *times in took
        if id in sleeps and seconds > 1
    ]
    return sorted(waits, key=lambda wait: -wait["seconds"])[:count]


def _warnings(conn: psycopg.Connection, id: str) -> list[str]:
    return [
        f"{at} {message}"
        for at, message in conn.execute(
            """
            SELECT line ->> 'at', line ->> 'message'
            FROM dpe.job_logs, jsonb_array_elements(lines::jsonb) line
            WHERE execution_id = %s AND line ->> 'logger' = 'dpe' ORDER BY 1
            """,
            [id],
        )
    ]


def recoveries(conn: psycopg.Connection, faults: Sequence[Done]) -> list[Recovery]:
    """For each fault: how long after it, or after its healing, work went on.

    Where it hit processes: until each of their jobs was begun anew.  Else: until the first job
    was begun after the healing.
    """
    return [
        Recovery(one, (_until_begun_anew if one.victims else _until_something_began)(conn, one))
        for one in faults
    ]


def _until_begun_anew(conn: psycopg.Connection, fault: Done) -> float | None:
    times = [_begun_anew(conn, victim) for victim in fault.victims]
    waits = [at - fault.at for at in times if at is not None]
    return max(waits, default=None)


def _begun_anew(conn: psycopg.Connection, victim: Victim) -> float | None:
    """When the attempt after the victim's began (Unix time); None: there was none.

    An attempt's log has its first line when the attempt ends or runs long; where one was killed
    before that, the last attempt's start stands for it.
    """
    id, attempt = victim
    logged = conn.execute(
        """
        SELECT min(extract(epoch FROM (line ->> 'at')::timestamptz))::float
        FROM dpe.job_logs, jsonb_array_elements(lines::jsonb) line
        WHERE execution_id = %s AND attempt = %s + 1 AND line ->> 'message' LIKE '%% BEGIN %%'
        """,
        [id, attempt],
    ).fetchone()
    if logged and logged[0] is not None:
        return logged[0]
    row = conn.execute(
        "SELECT extract(epoch FROM started_at)::float FROM dpe.jobs"
        " WHERE execution_id = %s AND attempt > %s",
        [id, attempt],
    ).fetchone()
    return row[0] if row else None


def _until_something_began(conn: psycopg.Connection, fault: Done) -> float | None:
    row = conn.execute(
        "SELECT min(extract(epoch FROM started_at))::float FROM dpe.jobs"
        " WHERE started_at > to_timestamp(%s)",
        [fault.healed_at],
    ).fetchone()
    return row[0] - fault.healed_at if row and row[0] is not None else None


def by_kind(recoveries: Sequence[Recovery]) -> list[dict[str, Any]]:
    """For each kind of fault with a limit: how many were within it, and the longest.

    A time into which another fault fell says nothing of this one: where it is over the limit, it
    is counted apart (`mixed`).
    """
    kinds: dict[str, list[Recovery]] = {}
    for one in recoveries:
        if one.fault.limit_s is not None and one.seconds is not None:
            kinds.setdefault(one.fault.name, []).append(one)
    rows = []
    for kind, ones in sorted(kinds.items()):
        limit_s = ones[0].fault.limit_s or 0.0
        over = [one for one in ones if (one.seconds or 0.0) > limit_s]
        mixed = [one for one in over if _met_another(one, recoveries)]
        longest = max((one.seconds or 0.0 for one in ones if one not in mixed), default=0.0)
        rows.append(
            {
                "fault": kind,
                "limit_s": limit_s,
                "measured": len(ones),
                "within": len(ones) - len(over),
                "mixed": len(mixed),
                "longest_s": round(longest, 2),
            }
        )
    return rows


def _met_another(one: Recovery, recoveries: Sequence[Recovery]) -> bool:
    return any(
        other.fault is not one.fault and other.fault.at < one.end and other.end > one.fault.at
        for other in recoveries
    )
