"""Starting a workflow, and starting it again: the run and its first steps are one transaction."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from worker.errors import Conflict, Invalid
from worker.store import job_settings, run_turns, workflow_runs, workflows
from worker.store.jobs import Accepted, Start
from worker.store.publishing import Message
from worker.store.workflow_definition import read
from worker.store.workflow_plan import Plan


@dataclass(frozen=True, slots=True)
class Started:
    """A run right after its start, and what is to be published once it is committed."""

    run: Accepted
    messages: list[Message]


def start(conn: psycopg.Connection, start: Start, *, queued: bool = False) -> Started | None:
    """Start the workflow `start.action_id`; None: there is none.

    `start.event_type` says what starts it.  The event is given to every step.  `queued`: the caller
    publishes the messages after its commit, else the watch does.  Runs in a transaction of its own,
    or within the caller's.  Raises Conflict where an action that it needs was deleted meanwhile, or
    where the workflow allows one run at a time and another goes on (unless `start.in_line`).
    """
    with conn.transaction():
        workflow = workflows.get(conn, start.action_id)
        if workflow is None or workflow.id != start.action_id:
            return None
        definition = read(workflow.definition)
        defaults = job_settings.read_defaults(conn)
        try:
            plan = workflows.make_plan(conn, definition, workflows.for_steps(defaults))
        except Invalid as error:
            raise _missing(workflow.name, error) from None
        if start.priority is not None:
            workflows.set_priority(plan, start.priority)
        head = {
            "name": workflow.name,
            "version": workflow.version,
            "timeout": definition.timeout_s(defaults.get("run_timeout")),
            "retry_of": None,
        }
        if definition.exclusive and not start.in_line:
            run_turns.check_alone(conn, workflow.id)
        return _insert(conn, start, head, plan, definition.max_running, queued=queued)


def retry(
    conn: psycopg.Connection, execution_id: UUID, key_id: int | None, *, queued: bool = False
) -> Started | None:
    """Start an ended run again from what failed in it; None: it has not ended, or is no run.

    Steps that succeeded, and that nothing failed before, are not done again: the new run has their
    results.  A run without a failure is done again whole.  Actions are taken at their newest
    versions, the steps are those of the run.  Raises Conflict where an action was deleted.
    """
    with conn.transaction():
        row = conn.execute(
            """
            SELECT action_id, name, version, event, timeout_s, priority, plan,
                   standings, item, coalesce(retry_of, execution_id)
            FROM dpe.jobs WHERE execution_id = %s AND plan IS NOT NULL AND ended_at IS NOT NULL
            """,
            [execution_id],
        ).fetchone()
        if row is None:
            return None
        workflow_id, name, version, event, timeout_s, priority, plan, kept, item, first = row
        try:
            renewed = workflows.renew_plan(conn, _kept(conn, execution_id, plan, kept, item))
        except Invalid as error:
            raise _missing(name, error) from None
        if "priority" in renewed:
            workflows.set_priority(renewed, renewed["priority"])
        start = Start(workflow_id, event, "retry", key_id, priority=priority)
        head = {"name": name, "version": version, "timeout": timeout_s, "retry_of": first}
        newest = workflows.get(conn, workflow_id)
        most = None if newest is None else read(newest.definition).max_running
        return _insert(conn, start, head, renewed, most, queued=queued)


def _kept(
    conn: psycopg.Connection,
    run_id: UUID,
    stored: dict[str, Any],
    decided: dict[str, dict[str, Any]],
    item: Any,
) -> dict[str, Any]:
    """The plan of a run, and in it as kept what needs not be done again."""
    plan = Plan.of(stored)
    _, standings = workflow_runs.look(conn, run_id, plan, decided, item)
    again = {n for n, s in standings.items() if s.failed or not s.decided}
    if not again:
        return {**stored, "kept": {}}
    rows = conn.execute(
        "SELECT step, nth, execution_id, status, plan, standings, item"
        " FROM dpe.jobs WHERE run_id = %s",
        [run_id],
    ).fetchall()
    kept: dict[str, dict[str, str]] = {}
    steps = []
    for step, written in zip(plan.steps, stored["steps"], strict=True):
        steps.append(written)
        if again & plan.before[step.name]:
            continue
        mine = [row for row in rows if row[0] == step.name]
        done = {str(nth): str(id) for _, nth, id, status, *_ in mine if status == "SUCCESS"}
        kept[step.name] = plan.kept.get(step.name, {}) | done
        if step.plan is not None and step.for_each is None and mine and not done:
            _, _, inner, _, *of_inner = mine[0]
            steps[-1] = {**written, "plan": _kept(conn, inner, *of_inner)}
    return {**stored, "steps": steps, "kept": kept}


def _insert(
    conn: psycopg.Connection,
    start: Start,
    head: dict[str, Any],
    plan: dict[str, Any],
    max_running: int | None,
    *,
    queued: bool,
) -> Started:
    held = max_running is not None and not run_turns.has_place(conn, start.action_id, max_running)
    with conn.cursor(row_factory=class_row(Accepted)) as cursor:
        run = cursor.execute(
            """
            INSERT INTO dpe.jobs (execution_id, action_id, version, name, status, attempt, event,
              event_type, key_id, timeout_s, priority, published_at, started_at, deadline, plan,
              standings, retry_of, max_running, held)
            SELECT %(id)s, %(workflow)s, %(version)s, %(name)s,
              CASE WHEN held THEN 'SUBMITTED' ELSE 'PROCESSING' END,
              CASE WHEN held THEN 0 ELSE 1 END, %(event)s,
              %(type)s, %(key)s, %(timeout)s, coalesce(%(priority)s, 1), begins, begins,
              begins + %(timeout)s * interval '1 second', %(plan)s, '{}', %(retry_of)s,
              %(most)s, held
            FROM (VALUES (%(held)s::boolean)) AS h (held),
                 LATERAL (SELECT CASE WHEN NOT held THEN now() END AS begins) AS b
            RETURNING execution_id, action_id, name, version, status, submitted_at, published_at,
                      priority, held
            """,
            {
                "id": start.execution_id,
                "workflow": start.action_id,
                "event": start.event,
                "type": start.event_type,
                "key": start.key_id,
                "priority": start.priority,
                "plan": orjson.dumps(plan).decode(),
                "most": max_running,
                "held": held,
                **head,
            },
        ).fetchone()
    assert run is not None  # noqa: S101 -- inserted above
    if held:
        return Started(run, [])  # the watch lets it in
    return Started(run, workflow_runs.advance(conn, [run.execution_id], queued=queued))


def _missing(name: str, error: Invalid) -> Conflict:
    return Conflict(f"workflow {name} can't start: {error}", "push what is missing again")
