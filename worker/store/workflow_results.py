"""What the steps of a run returned."""

from typing import Any
from uuid import UUID

import psycopg

from worker.store.workflow_plan import Plan


def results_of(conn: psycopg.Connection, run: UUID, plan: Plan, names: set[str]) -> dict[str, Any]:
    """The results of these steps, as far as they succeeded; a list of a step with for_each."""
    rows = conn.execute(
        """
        SELECT step, nth, result FROM dpe.jobs
        WHERE run_id = %(run)s AND step = ANY(%(names)s) AND status = 'SUCCESS'
        UNION ALL
        SELECT step, nth, result FROM dpe.jobs
        WHERE execution_id = ANY(%(kept)s::uuid[]) AND step = ANY(%(names)s)
        """,
        {"run": run, "kept": plan.kept_ids, "names": list(names)},
    ).fetchall()
    found: dict[str, Any] = {}
    for step in plan.steps:
        mine = {nth: result for name, nth, result in rows if name == step.name}
        if step.for_each is not None and step.name in names:
            found[step.name] = [mine[nth] for nth in sorted(mine)]
        elif mine:
            found[step.name] = mine[0]
    return found
