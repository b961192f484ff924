"""What a run of a workflow consists of, and where it stands; nothing here asks Postgres.

A plan is made when a run starts, and never changes.  Where the run stands follows from the plan
and from the jobs of its steps alone: so whoever looks, and however often, finds the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from worker.store.job_settings import above

FAILURES = frozenset({"FAILED", "TIMEOUT", "STOPPED"})
MAX_ITEMS = 1000  # that one step may be done for


@dataclass(frozen=True, slots=True)
class Step:
    """One action (or workflow, which then has a `plan` of its own) of a run."""

    name: str
    stage: int  # its place in the plan's stages
    id: str  # of the action or workflow
    version: int
    title: str  # the action's or workflow's name
    needs: list[str] = field(default_factory=list)
    disabled: bool = False
    # "success", "failure", "always", or the statuses asked of earlier steps; None: nothing is asked
    condition: str | dict[str, list[str]] | None = None
    for_each: dict[str, Any] | None = None  # {"items": […]}, or {"path": ["event", "content", …]}
    stop_on_failure: bool = False
    timeout_s: float | None = None
    priority: int = 1
    under: dict[str, Any] = field(default_factory=dict)  # settings below the action's own
    over: dict[str, Any] = field(default_factory=dict)  # settings above them
    plan: dict[str, Any] | None = None

    @property
    def runs_after_a_failure(self) -> bool:
        """Whether it may start when a failed step has stopped the rest."""
        if isinstance(self.condition, dict):
            return any(FAILURES & set(statuses) for statuses in self.condition.values())
        return self.condition in {"failure", "always"}


@dataclass(frozen=True)
class Plan:
    """The steps of a run, each after all that it needs."""

    stages: list[str]
    steps: list[Step]
    # Of a retry: what the earlier run has done, {step: {place in its list: execution id}}.
    kept: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Plan":
        return cls(
            stored["stages"], [Step(**step) for step in stored["steps"]], stored.get("kept") or {}
        )

    @cached_property
    def before(self) -> dict[str, set[str]]:
        """All that comes before each step."""
        before: dict[str, set[str]] = {}
        for step in self.steps:
            before[step.name] = set(step.needs).union(*(before[name] for name in step.needs))
        return before

    @property
    def kept_ids(self) -> list[str]:
        """The executions of an earlier run that this one has not to do again."""
        return [id for ids in self.kept.values() for id in ids.values()]

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has not ended, with its row locked."""

    execution_id: UUID
    name: str
    plan: dict[str, Any]
    standings: dict[str, dict[str, Any]]  # of the steps that are decided
    run_id: UUID | None  # of a workflow within a workflow
    key_id: int | None
    item: Any
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Ran:
    """The jobs of one step, together."""

    step: str
    open: int
    statuses: list[str]
    began: datetime
    ended: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a step stands; neither ended, nor skipped, nor with items: it waits or runs."""

    status: str | None = None  # once it has ended
    skipped: str | None = None  # why it will never start
    error: str | None = None  # why it failed without a job
    items: dict[int, Any] | None = None  # ready: it is to be started for each of these

    @property
    def decided(self) -> bool:
        return self.status is not None or self.skipped is not None

    @property
    def failed(self) -> bool:
        return self.status in FAILURES

    def as_kept(self) -> dict[str, str | None]:
        """What is kept of it once it is decided."""
        return {"status": self.status, "skipped": self.skipped, "error": self.error}


class NoList(Exception):
    """What a step is to be done for each of is no list."""


def stand(
    plan: Plan,
    decided: Mapping[str, Standing],
    ran: Mapping[str, Ran],
    items_of: Callable[[Step], list[Any]],
) -> dict[str, Standing]:
    """Where each step stands, given what was decided before, and the jobs of those started.

    `items_of` gives the list that a ready step is done for each of; it may raise NoList.
    """
    standings: dict[str, Standing] = {}
    known = {name: _started(jobs) for name, jobs in ran.items()} | dict(decided)
    halted_by = next(
        (s.name for s in plan.steps if s.stop_on_failure and s.name in known
         and known[s.name].failed), None)  # fmt: skip
    for step in plan.steps:
        standing = known.get(step.name)
        if standing is None:
            standing = _not_started(plan, step, standings, halted_by, items_of)
        standings[step.name] = standing
        if standing.failed and step.stop_on_failure and halted_by is None:
            halted_by = step.name
    return standings


def _started(ran: Ran) -> Standing:
    if ran.open:
        return Standing()
    failures = sorted(FAILURES & set(ran.statuses))
    if failures:
        return Standing(failures[0] if len(failures) == 1 else "FAILED")
    return Standing("SUCCESS")


def _not_started(
    plan: Plan,
    step: Step,
    standings: Mapping[str, Standing],
    halted_by: str | None,
    items_of: Callable[[Step], list[Any]],
) -> Standing:
    if halted_by is not None and not step.runs_after_a_failure:
        return Standing(skipped=f"{halted_by} failed, and stops the rest")
    if not all(standings[name].decided for name in step.needs):
        return Standing()
    unmet = "disabled" if step.disabled else _unmet(plan, step, standings)
    if unmet:
        return Standing(skipped=unmet)
    try:
        items = items_of(step)
    except NoList as error:
        return Standing("FAILED", error=str(error))
    kept = plan.kept.get(step.name, {})
    left = {nth: item for nth, item in enumerate(items) if str(nth) not in kept}
    return Standing(items=left) if left else Standing("SUCCESS")


def _unmet(plan: Plan, step: Step, standings: Mapping[str, Standing]) -> str | None:
    """Why the step's condition does not hold; None: it does."""
    failed = [s.name for s in plan.steps if s.name in plan.before[step.name]
              and standings[s.name].failed]  # fmt: skip
    match step.condition:
        case "success" if failed:
            return f"{', '.join(failed)} failed"
        case "failure" if not failed:
            return "nothing before it failed"
        case dict() as asked:
            for name, statuses in asked.items():
                standing = standings[name]
                if standing.status not in statuses:
                    is_ = standing.status or "skipped"
                    return f"{name} is {is_} and not {' or '.join(statuses)}"
    return None


def settings(config: Mapping[str, Any], under: Mapping[str, Any], over: Mapping[str, Any]) -> dict:
    """An action's `forepaas.json` as it holds in a step: `over`, then its own, then `under`.

    All of it stands in `params` then, what is set at the file's top too.
    """
    whole = above(under, config)
    return {**whole, "params": {**whole["params"], **over}}


def at_path(value: Any, path: Sequence[str]) -> list[Any]:
    """The list at a path of keys and places in JSON; raises NoList naming what lacks."""
    for at, key in enumerate(path[1:], start=1):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise NoList(f"for_each: {'.'.join(path[: at + 1])} is not there") from None
    where = ".".join(path)
    if not isinstance(value, list):
        raise NoList(f"for_each: {where} must be a list, got {type(value).__name__}")
    if len(value) > MAX_ITEMS:
        raise NoList(f"for_each: {where} has {len(value)} items; at most {MAX_ITEMS} can be")
    return value
