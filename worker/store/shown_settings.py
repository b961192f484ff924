"""The settings of actions and workflows as they hold, each with the level that says so."""

from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from worker.store import actions, job_settings
from worker.store.actions import Action
from worker.store.job_settings import Setting, own_settings, read_defaults, resolved
from worker.store.workflow_definition import Part, read
from worker.store.workflows import Workflow, get

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class StepSettings:
    """A step, what it runs, and the settings that its jobs have."""

    step: str
    runs: str
    settings: list[Setting]


def of_environment(conn: psycopg.Connection) -> list[Setting]:
    """The defaults of the installation, with those that are built in."""
    return resolved(job_settings.WITH_DEFAULT, [(ENVIRONMENT, read_defaults(conn))])


def of_action(conn: psycopg.Connection, action: Action) -> list[Setting]:
    """What holds for an action's jobs that are started by themselves."""
    levels = [("action", own_settings(action.config)), (ENVIRONMENT, read_defaults(conn))]
    return resolved(job_settings.OF_ACTIONS, levels)


def of_workflow(
    conn: psycopg.Connection, workflow: Workflow
) -> tuple[list[Setting], list[StepSettings]]:
    """What holds for a workflow's runs, and for the jobs of each of its steps."""
    definition, defaults = read(workflow.definition), read_defaults(conn)
    of_runs = {name: defaults[name] for name in ("run_timeout",) if name in defaults}
    runs = resolved(
        job_settings.OF_WORKFLOWS, [("workflow", definition.own), (ENVIRONMENT, of_runs)]
    )
    steps = [_step(conn, part, definition.of_workflow, defaults) for part in definition.parts]
    return runs, steps


def _step(
    conn: psycopg.Connection, part: Part, of_workflow: dict[str, Any], defaults: dict[str, Any]
) -> StepSettings:
    if part.is_workflow:
        inner = get(conn, part.conf)
        return StepSettings(part.name, inner.name if inner else part.conf, [])
    action = actions.get(conn, part.conf)
    own = own_settings(action.config) if action else {}
    levels = [
        ("step", part.over),
        ("action", own),
        ("stage", part.of_stage),
        ("workflow", of_workflow),
        (ENVIRONMENT, defaults),
    ]
    names = [name for name in job_settings.OF_STEPS if name != "max_concurrency"]
    found = resolved(names, levels)
    # How many jobs of an action may run at a time is for all of them, wherever they come from.
    found += resolved(["max_concurrency"], [("action", own), (ENVIRONMENT, defaults)])
    return StepSettings(part.name, action.name if action else part.conf, found)


def as_json(settings: list[Setting]) -> list[dict[str, Any]]:
    """As routes answer it: [{name, value, level}]."""
    return [asdict(setting) for setting in settings]
