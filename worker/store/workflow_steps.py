"""What a step of a run is given beside its own row: the run's event, earlier results, settings."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from worker.store.workflow_plan import Plan
from worker.store.workflow_results import results_of


@dataclass(frozen=True, slots=True)
class Given:
    """`event` is JSON as it was posted; `under` and `over` go around the action's own settings."""

    event: str | None
    results: dict[str, Any]  # of the steps before it that succeeded, by their names
    under: dict[str, Any]
    over: dict[str, Any]
    workflow_id: str


def given(conn: psycopg.Connection, run_id: UUID, step: str) -> Given:
    """What this step is given; the results of steps before it can't change any more."""
    row = conn.execute(
        "SELECT event, plan, action_id FROM dpe.jobs WHERE execution_id = %s", [run_id]
    ).fetchone()
    assert row is not None  # noqa: S101 -- a run stays for as long as a step of it is open
    event, stored, workflow_id = row
    plan = Plan.of(stored)
    mine, before = plan.step(step), plan.before[step]
    results = results_of(conn, run_id, plan, before) if before else {}
    return Given(event, results, mine.under, mine.over, workflow_id)
