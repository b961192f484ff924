"""Workflows as they were pushed, and the plan that a run of one follows."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg
from psycopg.rows import class_row

from worker.errors import Invalid
from worker.store import actions, job_settings
from worker.store.workflow_definition import Definition, Part, read
from worker.store.workflow_plan import Step, settings

DEEPEST = 5  # workflows within workflows


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow at its newest version; `definition` is what was pushed."""

    id: str
    name: str
    version: int
    definition: dict[str, Any]
    created_at: datetime
    updated_at: datetime


def push(conn: psycopg.Connection, workflow_id: str | None, definition: Any) -> Workflow:
    """Store a definition as the workflow's newest version; the very next start follows it.

    `workflow_id` None: a new workflow.  The same definition again is no new version.  Raises
    Invalid with the JSON pointer of what is wrong: actions and workflows that it names must be
    there, and no workflow may be within itself.  Runs in a transaction of its own.
    """
    id = workflow_id or secrets.token_hex(12)
    if not re.fullmatch(r"[0-9a-f]{24}", id):
        raise Invalid(f"the workflow's id must be 24 hex characters in lower case, got {id!r}")
    checked = read(definition)
    with conn.transaction():
        _check_nested(conn, checked, id)
        make_plan(conn, checked)
        conn.execute(
            """
            INSERT INTO dpe.workflows AS w (id, version, name, definition)
            VALUES (%(id)s, 1, %(name)s, %(definition)s)
            ON CONFLICT (id) DO UPDATE
            SET version = w.version + 1, name = excluded.name, definition = excluded.definition,
                updated_at = now(), deleted_at = NULL
            WHERE w.definition::text <> excluded.definition::text OR w.deleted_at IS NOT NULL
            """,
            {"id": id, "name": checked.name or id, "definition": orjson.dumps(definition).decode()},
        )
        found = get(conn, id)
    assert found is not None  # noqa: S101 -- this transaction wrote it
    return found


def get(conn: psycopg.Connection, id_or_name: str) -> Workflow | None:
    """The workflow under this id, or else the oldest of this name; None where neither is."""
    found = _select(conn, "id = %(what)s", {"what": id_or_name})
    return (found or _select(conn, "name = %(what)s", {"what": id_or_name}) or [None])[0]


def list_workflows(conn: psycopg.Connection) -> list[Workflow]:
    """All workflows that are not deleted, oldest first."""
    return _select(conn, "true", {})


def _select(conn: psycopg.Connection, which: str, values: dict[str, str]) -> list[Workflow]:
    query = f"""
        SELECT id, name, version, definition, created_at, updated_at
        FROM dpe.workflows WHERE deleted_at IS NULL AND {which} ORDER BY created_at, id
        """  # noqa: S608 -- constants
    with conn.cursor(row_factory=class_row(Workflow)) as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def delete(conn: psycopg.Connection, workflow_id: str) -> bool:
    """Take a workflow out of service; runs that were started go on."""
    return (
        conn.execute(
            "UPDATE dpe.workflows SET deleted_at = now() WHERE id = %s AND deleted_at IS NULL",
            [workflow_id],
        ).rowcount
        == 1
    )


def make_plan(
    conn: psycopg.Connection, definition: Definition, below: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The plan of a run that starts now: every action at its newest version, all settings laid out.

    `below` are settings that everything else overrides.  Raises Invalid with the pointer of a step
    whose action or workflow is not there.
    """
    steps = [asdict(_step(conn, part, below or {})) for part in definition.parts]
    return {"stages": definition.stages, "steps": steps}


def for_steps(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Of the installation's defaults those that count for steps, below all other settings."""
    names = ("timeout", "retry", "priority", "max_memory", "run_timeout")
    return {name: defaults[name] for name in names if name in defaults}


def renew_plan(conn: psycopg.Connection, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The same steps, with every action at its newest version by now.  Raises Invalid."""

    def renewed(step: dict[str, Any]) -> dict[str, Any]:
        if step["plan"] is not None:
            return {**step, "plan": renew_plan(conn, step["plan"])}
        return {**step, **_pinned(conn, step["id"], step["under"], step["over"], step["name"])}

    return {**plan, "steps": [renewed(step) for step in plan["steps"]]}


def set_priority(plan: dict[str, Any], priority: int) -> None:
    """Make this the priority of all steps, those of workflows within it too, and of retries."""
    plan["priority"] = priority
    for step in plan["steps"]:
        step["priority"] = priority
        if step["plan"] is not None:
            set_priority(step["plan"], priority)


def _step(conn: psycopg.Connection, part: Part, below: Mapping[str, Any]) -> Step:
    under = {**below, **part.under}
    if part.is_workflow:
        pinned = _pinned_workflow(conn, part, {**under, **part.over})
    else:
        where = f"{part.pointer}/action_conf"
        pinned = _pinned(conn, part.conf, under, part.over, where)
    return Step(
        name=part.name,
        stage=part.stage,
        needs=part.needs,
        disabled=part.disabled,
        condition=part.condition,
        for_each=part.for_each,
        under=under,
        over=part.over,
        **pinned,
    )


def _pinned(
    conn: psycopg.Connection,
    conf: str,
    under: Mapping[str, Any],
    over: Mapping[str, Any],
    where: str,
) -> dict[str, Any]:
    """What a step takes from its action as it stands now."""
    action = actions.get(conn, conf)
    if action is None:
        raise Invalid(f"{where}: there is no action {conf!r}")
    config = settings(action.config, under, over)
    found = job_settings.derived(config, {})
    return {
        "id": action.id,
        "version": action.version,
        "title": action.name,
        "stop_on_failure": bool(config["params"].get("stop_on_failure")),
        "timeout_s": found.timeout_s,
        "priority": found.priority,
    }


def _pinned_workflow(
    conn: psycopg.Connection, part: Part, params: dict[str, Any]
) -> dict[str, Any]:
    workflow = get(conn, part.conf)
    if workflow is None:
        raise Invalid(f"{part.pointer}/workflow_conf: there is no workflow {part.conf!r}")
    inner = read(workflow.definition)
    inherited = {name: params[name] for name in params if name != "stop_on_failure"}
    return {
        "id": workflow.id,
        "version": workflow.version,
        "title": workflow.name,
        "stop_on_failure": bool(params.get("stop_on_failure")),
        "timeout_s": inner.timeout_s(params.get("run_timeout")),
        "priority": job_settings.derived({"params": params}, {}).priority,
        "plan": make_plan(conn, inner, inherited),
    }


def _check_nested(
    conn: psycopg.Connection, definition: Definition, id: str, depth: int = 1, pointer: str = ""
) -> None:
    """Refuse a workflow that is within itself, or workflows too deep within each other."""
    for part in definition.parts:
        if not part.is_workflow:
            continue
        where = pointer or f"{part.pointer}/workflow_conf"
        inner = get(conn, part.conf)
        if part.conf == id or (inner is not None and inner.id == id):
            raise Invalid(f"{where}: the workflow would be within itself")
        if depth > DEEPEST:
            raise Invalid(f"{where}: there are more than {DEEPEST} workflows within each other")
        if inner is not None:
            _check_nested(conn, read(inner.definition), id, depth + 1, where)
