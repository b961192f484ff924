"""Looking jobs up, many at a time, each for a session that must be open."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from worker.store.database import LoopConnection, RawRow, plain_array
from worker.store.jobs import STATUS, Job


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which job is asked for, and by which session."""

    execution_id: UUID | str
    session_id: str


async def look_up(conn: LoopConnection, asked: Sequence[Lookup]) -> list[RawRow | None]:
    """The rows of the jobs asked for, in that order, for `job_of`.

    None: there is no such job, or the session is not open.  A row is as it was the last time for
    as long as nothing becomes of its job.
    """
    ids = plain_array(one.execution_id for one in asked)
    sessions = plain_array(one.session_id for one in asked)
    rows = await conn.raw_rows(_LOOK_UP, [ids.encode(), sessions.encode()])
    found = {int(row[0]): row[1:] for row in rows if row[0] is not None}
    return [found.get(ordinal) for ordinal in range(1, len(asked) + 1)]


def job_of(conn: LoopConnection, row: RawRow) -> Job:
    """The job in a row of the last look-up of this connection."""
    _, *columns = conn.load([None, *row])
    return Job(*columns)


_LOOK_UP = f"""
    SELECT a.ordinal, j.execution_id, j.seq, j.action_id, j.version, j.name, {STATUS},
           j.attempt, j.losses, j.event_type, j.priority, j.retry_of, j.submitted_at,
           j.published_at, j.started_at, j.ended_at, j.error, j.result, j.stats,
           j.run_id, j.step,
           CASE WHEN j.plan IS NOT NULL
             THEN 100 * (SELECT count(*) FROM json_object_keys(j.standings))
               / json_array_length(j.plan->'steps') END
    FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS a (id, session, ordinal)
    JOIN dpe.jobs j ON j.execution_id = a.id
    WHERE EXISTS (
      SELECT FROM dpe.sessions o JOIN dpe.keys k ON k.id = o.key_id
      WHERE o.id = a.session AND o.expires_at > now()
        AND k.revoked_at IS NULL AND k.expires_at > now())
    """.encode()  # noqa: S608 -- constants
