"""A claim whose packages are still being installed: its time has not begun.

In all that counts it is a running job: who builds for it has claimed it, so that the death of its
worker, a stop and the fence are what they are for any claim.  So its row is PROCESSING, and whoever
shows a status shows this one as BUILDING (`jobs.STATUS`).
"""

from typing import LiteralString

import psycopg

from worker.errors import ClaimLost
from worker.store.claims import Claim


def begin(record: psycopg.Connection, job: Claim) -> None:
    """Show the job as BUILDING, without a deadline.  Raises ClaimLost."""
    _update(record, job, "building = attempt, deadline = NULL")


def end(record: psycopg.Connection, job: Claim) -> None:
    """Let its time begin now.  Raises ClaimLost."""
    _update(
        record,
        job,
        "building = NULL, started_at = clock_timestamp(),"
        " deadline = clock_timestamp() + timeout_s * interval '1 second'",
    )


def _update(record: psycopg.Connection, job: Claim, changes: LiteralString) -> None:
    done = record.execute(
        f"""
        UPDATE dpe.jobs SET {changes}
        WHERE execution_id = %s AND attempt = %s AND status = 'PROCESSING'
        """,  # noqa: S608 -- constants
        [job.execution_id, job.attempt],
    )
    if done.rowcount != 1:
        raise ClaimLost(f"attempt {job.attempt} of {job.execution_id} is no longer the owner")
