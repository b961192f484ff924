"""A workflow as its author writes it, read and checked; nothing here asks Postgres.

    {"display_name": "Nightly", "params": {…},
     "stages": [{"stageName": "Load", "disable": false, "params": {…},
                 "actions": [{"action_conf": "<id or name>", "name": "load", "disable": false,
                              "needs": ["…"], "if": "failure", "for_each": "event.content.files",
                              "params": {…}}]}]}

Whatever is wrong is told with the JSON pointer (RFC 6901) of the place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, NoReturn

from worker.errors import Invalid
from worker.store import actions
from worker.store.durations import duration_s
from worker.store.retry import Retry
from worker.store.workflow_plan import FAILURES, MAX_ITEMS

WORDS = ("success", "failure", "always")
STATUSES = ("SUCCESS", *sorted(FAILURES))
# What may stand beside `params` as well as in it, at every level.
SETTINGS = ("timeout", "retry", "priority", "stop_on_failure")
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
    under: dict[str, Any]
    over: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow whose parts stand in an order in which each comes after those that it needs."""

    name: str | None
    timeout_s: float | None  # of a whole run
    stages: list[str]
    parts: list[Part]


def read(definition: Any) -> Definition:
    """Read a definition; raises Invalid naming place and cause."""
    if not isinstance(definition, dict):
        _refuse("", "a workflow must be an object")
    stages = definition.get("stages")
    if not isinstance(stages, list) or not stages:
        _refuse("/stages", 'must be a list of stages: [{"stageName": …, "actions": […]}]')
    entries = list(_entries(definition, stages))
    if not entries:
        _refuse("/stages", "no stage has an action")
    if len(entries) > MAX_STEPS:
        _refuse("/stages", f"there are {len(entries)} actions; at most {MAX_STEPS} can be")
    parts = _in_order(_parts(entries))
    _check_order(parts)
    return Definition(
        _text(definition, ("display_name", "name"), ""),
        _duration(definition, "run_timeout"),
        [
            _text(stage, ("stageName", "name"), f"/stages/{at}") or f"Stage {at + 1}"
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
    under: dict[str, Any]


def _entries(definition: dict[str, Any], stages: list[Any]) -> Iterator[_Entry]:
    of_workflow = _settings(definition, "")
    names: set[str] = set()
    for at, stage in enumerate(stages):
        pointer = f"/stages/{at}"
        if not isinstance(stage, dict) or not isinstance(stage.get("actions", []), list):
            _refuse(pointer, 'must be an object with a list of "actions"')
        under = {**of_workflow, **_settings(stage, pointer)}
        off = _flag(stage, "disable", pointer)
        for nth, written in enumerate(stage.get("actions", [])):
            where = f"{pointer}/actions/{nth}"
            if not isinstance(written, dict):
                _refuse(where, 'must be an object: {"action_conf": "<id or name of an action>"}')
            name = _text(written, ("name",), where)
            if name in names:
                _refuse(f"{where}/name", f"a step before it is called {name!r} as well")
            name = name or _free_name(_conf(written, where)[0], names)
            names.add(name)
            disabled = off or _flag(written, "disable", where)
            yield _Entry(where, name, at, written, disabled, under)


def _free_name(conf: str, names: set[str]) -> str:
    tries = (conf if n == 1 else f"{conf} {n}" for n in range(1, len(names) + 2))
    return next(name for name in tries if name not in names)


def _conf(written: dict[str, Any], where: str) -> tuple[str, bool]:
    given = {key: written[key] for key in ("action_conf", "workflow_conf") if key in written}
    if len(given) != 1:
        _refuse(where, 'must have "action_conf" or "workflow_conf", one of them')
    ((key, conf),) = given.items()
    if not isinstance(conf, str) or not conf:
        _refuse(f"{where}/{key}", f"must be an id or a name, got {conf!r}")
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
        _refuse(f"{where}/needs", f"must be a list of steps' names, got {needs!r}")
    for nth, name in enumerate(needs):
        if not isinstance(name, str) or name not in names:
            _refuse_step(f"{where}/needs/{nth}", name, names)
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
        under=entry.under,
        over=_settings(written, where),
    )


def _condition(given: Any, where: str, names: set[str]) -> str | dict[str, list[str]] | None:
    if given is None or given in WORDS:
        return given
    if not isinstance(given, dict) or not given:
        known = ", ".join(WORDS)
        _refuse(where, f'must be one of {known}, or {{"<step>": "FAILED"}}, got {given!r}')
    asked = {}
    for name, wanted in given.items():
        if name not in names:
            _refuse_step(f"{where}/{_escaped(name)}", name, names)
        statuses = wanted if isinstance(wanted, list) else [wanted]
        if not statuses or any(status not in STATUSES for status in statuses):
            known = ", ".join(STATUSES)
            _refuse(f"{where}/{_escaped(name)}", f"must be of {known}, got {wanted!r}")
        asked[name] = statuses
    return asked


def _for_each(given: Any, where: str, names: set[str]) -> dict[str, Any] | None:
    if given is None:
        return None
    if isinstance(given, list):
        if len(given) > MAX_ITEMS:
            _refuse(where, f"has {len(given)} items; at most {MAX_ITEMS} can be")
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
    return _refuse(
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
        _refuse(f"{by_name[names[0]][1].pointer}/needs", f"a cycle: {' needs '.join(names)}")
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
                    _refuse(
                        f"{part.pointer}/{key}",
                        f"{name!r} is not before {part.name!r}: add it to its needs",
                    )


def _settings(level: dict[str, Any], where: str) -> dict[str, Any]:
    params = level.get("params") or {}
    if not isinstance(params, dict):
        _refuse(f"{where}/params", "must be an object")
    given = {**params, **{name: level[name] for name in SETTINGS if name in level}}
    try:
        actions.timeout_of({"params": given})
        actions.priority_of({"params": given})
        Retry.of({"params": given})
    except Invalid as error:
        _refuse(where, str(error).removeprefix(f"{actions.CONFIG_FILE}: "))
    _flag(given, "stop_on_failure", where)
    return given


def _flag(level: Mapping[str, Any], name: str, where: str) -> bool:
    value = level.get(name) or False
    if not isinstance(value, bool):
        _refuse(f"{where}/{name}", f"must be true or false, got {value!r}")
    return value


def _text(level: dict[str, Any], keys: tuple[str, ...], where: str) -> str | None:
    for key in keys:
        value = level.get(key)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            _refuse(f"{where}/{key}", f"must be a text, and not empty, got {value!r}")
        if value is not None:
            return value
    return None


def _duration(level: dict[str, Any], key: str) -> float | None:
    value = level.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        _refuse(f"/{key}", f'must be a duration like "1h 10m", got {value!r}')
    return duration_s(value, f"/{key}:")


def _refuse_step(where: str, name: object, names: set[str]) -> NoReturn:
    _refuse(where, f"there is no step {name!r}; there are {', '.join(sorted(names))}")


def _refuse(where: str, why: str) -> NoReturn:
    raise Invalid(f"{where or '/'}: {why}")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
