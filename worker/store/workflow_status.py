"""How the steps of a run stand, for those who look at it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from worker.store.jobs import STATUS
from worker.store.workflow_plan import Plan
from worker.store.workflow_runs import look


@dataclass(frozen=True, slots=True)
class Execution:
    """One job of a step."""

    step: str
    nth: int
    execution_id: UUID
    status: str
    item: Any
    started_at: datetime | None
    ended_at: datetime | None
    kept: bool  # done by the run that this one retries


@dataclass(frozen=True, slots=True)
class StepStatus:
    """One step; neither status nor `skipped`: it waits for others."""

    name: str
    stage: str
    type: str  # "action" or "workflow"
    id: str
    title: str
    needs: list[str]
    status: str | None
    skipped: str | None  # why it will never start
    error: str | None
    executions: list[Execution]


def steps_of(conn: psycopg.Connection, run_id: UUID) -> list[StepStatus]:
    """The steps of a run, each after those that it needs."""
    row = conn.execute(
        "SELECT plan, standings, item FROM dpe.jobs WHERE execution_id = %s AND plan IS NOT NULL",
        [run_id],
    ).fetchone()
    if row is None:
        return []
    plan = Plan.of(row[0])
    executions = _executions(conn, run_id, plan)
    ran, standings = look(conn, run_id, plan, *row[1:])
    found = []
    for step in plan.steps:
        standing = standings[step.name]
        mine = [one for one in executions if one.step == step.name]
        going = [one.status for one in mine if one.ended_at is None]
        error = standing.error or (ran[step.name].error if step.name in ran else None)
        found.append(
            StepStatus(
                name=step.name,
                stage=plan.stages[step.stage],
                type="action" if step.plan is None else "workflow",
                id=step.id,
                title=step.title,
                needs=step.needs,
                # Of several that go on at once, PROCESSING is what they are together.
                status=(going[0] if len(mine) == 1 else "PROCESSING") if going else standing.status,
                skipped=standing.skipped,
                error=error,
                executions=mine,
            )
        )
    return found


def _executions(conn: psycopg.Connection, run_id: UUID, plan: Plan) -> list[Execution]:
    with conn.cursor(row_factory=class_row(Execution)) as cursor:
        return cursor.execute(
            f"""
            SELECT step, nth, execution_id, {STATUS} AS status, item, started_at, ended_at,
                   false AS kept
            FROM dpe.jobs WHERE run_id = %(run)s
            UNION ALL
            SELECT step, nth, execution_id, {STATUS}, item, started_at, ended_at, true
            FROM dpe.jobs WHERE execution_id = ANY(%(kept)s::uuid[])
            ORDER BY step, nth
            """,  # noqa: S608 -- constants
            {"run": run_id, "kept": plan.kept_ids},
        ).fetchall()
