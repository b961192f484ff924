"""A workflow as its author writes it, read and checked; nothing here asks Postgres.

    {"display_name": "Nightly", "params": {…},
     "stages": [{"stageName": "Load", "disable": false, "params": {…},
                 "actions": [{"action_conf": "<id or name>", "name": "load", "disable": false,
                              "needs": ["…"], "if": "failure", "for_each": "event.content.files",
                              "params": {…}}]}]}

Whatever is wrong is told with the JSON pointer (RFC 6901) of the place.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from worker.store import job_settings
from worker.store import workflow_fields as fields
from worker.store.workflow_plan import FAILURES, MAX_ITEMS

WORDS = ("success", "failure", "always")
STATUSES = ("SUCCESS", *sorted(FAILURES))
MAX_STEPS = 500


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of a stage; `conf` names an action, or a workflow."""

    pointer: str
    name: str
    stage: int
    conf: str
    is_workflow: bool
    needs: list[str]
    disabled: bool
    condition: str | dict[str, list[str]] | None
    for_each: dict[str, Any] | None
    of_stage: dict[str, Any]
    under: dict[str, Any]  # of its stage, and of the workflow
    over: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow whose parts stand in an order in which each comes after those that it needs."""

    name: str | None
    own: dict[str, Any]  # the settings that it makes for its runs, not for steps
    max_running: int | None  # of its runs that go on at a time; None: any number
    exclusive: bool  # a start is turned down while one goes on
    of_workflow: dict[str, Any]  # settings for all its steps
    stages: list[str]
    parts: list[Part]

    def timeout_s(self, default: Any) -> float | None:
        """Of a whole run, in seconds, with what holds where it says nothing; None: no limit."""
        given = self.own.get("run_timeout", default)
        return None if given is None else job_settings.timeout_of({"params": {"timeout": given}})


def read(definition: Any) -> Definition:
    """Read a definition; raises Invalid naming place and cause."""
    if not isinstance(definition, dict):
        fields.refuse("", "a workflow must be an object")
    stages = definition.get("stages")
    if not isinstance(stages, list) or not stages:
        fields.refuse("/stages", 'must be a list of stages: [{"stageName": …, "actions": […]}]')
    entries = list(_entries(definition, stages))
    if not entries:
        fields.refuse("/stages", "no stage has an action")
    if len(entries) > MAX_STEPS:
        fields.refuse("/stages", f"there are {len(entries)} actions; at most {MAX_STEPS} can be")
    parts = _in_order(_parts(entries))
    _check_order(parts)
    own = {name: definition[name] for name in job_settings.OF_WORKFLOWS if name in definition}
    fields.duration(definition, "run_timeout")
    max_running, exclusive = fields.limits(own)
    return Definition(
        fields.text(definition, ("display_name", "name"), ""),
        own,
        max_running,
        exclusive,
        fields.settings(definition, ""),
        [
            fields.text(stage, ("stageName", "name"), f"/stages/{at}") or f"Stage {at + 1}"
            for at, stage in enumerate(stages)
        ],
        parts,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of a stage as it was written, with what it takes over from above."""

    pointer: str
    name: str
    stage: int
    written: dict[str, Any]
    disabled: bool
    of_stage: dict[str, Any]
    under: dict[str, Any]


def _entries(definition: dict[str, Any], stages: list[Any]) -> Iterator[_Entry]:
    of_workflow = fields.settings(definition, "")
    names: set[str] = set()
    for at, stage in enumerate(stages):
        pointer = f"/stages/{at}"
        if not isinstance(stage, dict) or not isinstance(stage.get("actions", []), list):
            fields.refuse(pointer, 'must be an object with a list of "actions"')
        of_stage = fields.settings(stage, pointer)
        under = {**of_workflow, **of_stage}
        off = fields.flag(stage, "disable", pointer)
        for nth, written in enumerate(stage.get("actions", [])):
            where = f"{pointer}/actions/{nth}"
            if not isinstance(written, dict):
                fields.refuse(where, 'must be an object: {"action_conf": "<an id or a name>"}')
            name = fields.text(written, ("name",), where)
            if name in names:
                fields.refuse(f"{where}/name", f"a step before it is called {name!r} as well")
            name = name or _free_name(_conf(written, where)[0], names)
            names.add(name)
            disabled = off or fields.flag(written, "disable", where)
            yield _Entry(where, name, at, written, disabled, of_stage, under)


def _free_name(conf: str, names: set[str]) -> str:
    tries = (conf if n == 1 else f"{conf} {n}" for n in range(1, len(names) + 2))
    return next(name for name in tries if name not in names)


def _conf(written: dict[str, Any], where: str) -> tuple[str, bool]:
    given = {key: written[key] for key in ("action_conf", "workflow_conf") if key in written}
    if len(given) != 1:
        fields.refuse(where, 'must have "action_conf" or "workflow_conf", one of them')
    ((key, conf),) = given.items()
    if not isinstance(conf, str) or not conf:
        fields.refuse(f"{where}/{key}", f"must be an id or a name, got {conf!r}")
    return conf, key == "workflow_conf"


def _parts(entries: list[_Entry]) -> list[Part]:
    names = {entry.name for entry in entries}
    parts = []
    before: list[str] = []  # what the next stage waits for
    for at in range(entries[-1].stage + 1):
        stage = [entry for entry in entries if entry.stage == at]
        parts += [_part(entry, before, names) for entry in stage]
        before = [entry.name for entry in stage] or before
    return parts


def _part(entry: _Entry, before: list[str], names: set[str]) -> Part:
    where, written = entry.pointer, entry.written
    conf, is_workflow = _conf(written, where)
    needs = written.get("needs", before)
    if not isinstance(needs, list):
        fields.refuse(f"{where}/needs", f"must be a list of steps' names, got {needs!r}")
    for nth, name in enumerate(needs):
        if not isinstance(name, str) or name not in names:
            fields.refuse_step(f"{where}/needs/{nth}", name, names)
    return Part(
        pointer=where,
        name=entry.name,
        stage=entry.stage,
        conf=conf,
        is_workflow=is_workflow,
        needs=list(dict.fromkeys(needs)),
        disabled=entry.disabled,
        condition=_condition(written.get("if"), f"{where}/if", names),
        for_each=_for_each(written.get("for_each"), f"{where}/for_each", names),
        of_stage=entry.of_stage,
        under=entry.under,
        over=fields.settings(written, where),
    )


def _condition(given: Any, where: str, names: set[str]) -> str | dict[str, list[str]] | None:
    if given is None or given in WORDS:
        return given
    if not isinstance(given, dict) or not given:
        known = ", ".join(WORDS)
        fields.refuse(where, f'must be one of {known}, or {{"<step>": "FAILED"}}, got {given!r}')
    asked = {}
    for name, wanted in given.items():
        if name not in names:
            fields.refuse_step(f"{where}/{fields.escaped(name)}", name, names)
        statuses = wanted if isinstance(wanted, list) else [wanted]
        if not statuses or any(status not in STATUSES for status in statuses):
            known = ", ".join(STATUSES)
            fields.refuse(f"{where}/{fields.escaped(name)}", f"must be of {known}, got {wanted!r}")
        asked[name] = statuses
    return asked


def _for_each(given: Any, where: str, names: set[str]) -> dict[str, Any] | None:
    if given is None:
        return None
    if isinstance(given, list):
        if len(given) > MAX_ITEMS:
            fields.refuse(where, f"has {len(given)} items; at most {MAX_ITEMS} can be")
        return {"items": given}
    if isinstance(given, str):
        path = given.split(".")
        if path[:2] == ["event", "content"]:
            return {"path": path}
        # A step's name may have dots too.
        for end in range(len(path), 1, -1):
            name = ".".join(path[1:end])
            if path[0] == "results" and name in names:
                return {"path": ["results", name, *path[end:]]}
    return fields.refuse(
        where,
        'must be a list, or where one stands: "event.content…" or "results.<step>…",'
        f" got {given!r}",
    )


def _in_order(parts: list[Part]) -> list[Part]:
    by_name = {part.name: (at, part) for at, part in enumerate(parts)}
    sorter = TopologicalSorter({part.name: part.needs for part in parts})
    try:
        sorter.prepare()
    except CycleError as error:
        # Said from a step to the one that it needs.
        names = error.args[1][::-1]
        fields.refuse(f"{by_name[names[0]][1].pointer}/needs", f"a cycle: {' needs '.join(names)}")
    ordered = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: by_name[name][0])
        ordered += [by_name[name][1] for name in ready]
        sorter.done(*ready)
    return ordered


def _check_order(parts: list[Part]) -> None:
    """Conditions and lists speak of steps that come before."""
    before: dict[str, set[str]] = {}
    for part in parts:
        before[part.name] = set(part.needs).union(*(before[name] for name in part.needs))
        asked = {"if": list(part.condition) if isinstance(part.condition, dict) else []}
        path = (part.for_each or {}).get("path", [])
        asked["for_each"] = path[1:2] if path[:1] == ["results"] else []
        for key, names in asked.items():
            for name in names:
                if name not in before[part.name]:
                    fields.refuse(
                        f"{part.pointer}/{key}",
                        f"{name!r} is not before {part.name!r}: add it to its needs",
                    )
