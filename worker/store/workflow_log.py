"""What a run's own log says: the beginnings and ends of the workflow, its stages and its steps."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from worker.store.workflow_plan import Plan, Ran, Run, Standing, Step


def lines(
    run: Run,
    plan: Plan,
    ran: Mapping[str, Ran],
    standings: Mapping[str, Standing],
    *,
    over: bool,
) -> list[dict[str, str]]:
    """The lines that an advance adds: what was decided since the last one, and what starts now."""
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    news = _News(run, plan, ran, standings)
    said = [*news.ends(), *news.begins()]
    if not ran and not run.standings:
        said.insert(0, ("notice", f'"{run.name}" BEGIN workflow'))
    if over:
        said.append(("notice", f'"{run.name}" END workflow.{_since(run.started_at)}'))
    return [{"at": at, "level": level, "logger": "dpe", "message": text} for level, text in said]


class _News:
    def __init__(
        self, run: Run, plan: Plan, ran: Mapping[str, Ran], standings: Mapping[str, Standing]
    ) -> None:
        self.plan, self.ran, self.standings = plan, ran, standings
        self.before = set(run.standings)

    def ends(self) -> Iterator[tuple[str, str]]:
        for step in self.plan.steps:
            if self.standings[step.name].decided and step.name not in self.before:
                yield self._end(step)
        for at, name in enumerate(self.plan.stages):
            names = {step.name for step in self.plan.steps if step.stage == at}
            decided = {name for name in names if self.standings[name].decided}
            if names == decided and not names <= self.before and self._began(names):
                yield "notice", f'"{name}" END stage {self._place(at)}'

    def begins(self) -> Iterator[tuple[str, str]]:
        for at, name in enumerate(self.plan.stages):
            steps = [step for step in self.plan.steps if step.stage == at]
            starting = [step for step in steps if self.standings[step.name].items]
            if starting and not self._began({step.name for step in steps}):
                tasks = sum(not step.disabled for step in steps)
                yield "notice", f'"{name}" BEGIN stage {self._place(at)} with {tasks} task(s)'
            for step in starting:
                yield "notice", f'"{step.name}" BEGIN {_what(step)}{self._times(step)}'

    def _end(self, step: Step) -> tuple[str, str]:
        standing, ran = self.standings[step.name], self.ran.get(step.name)
        if standing.skipped is not None:
            return "notice", f'"{step.name}" skipped: {standing.skipped}'
        took = f" Duration: {(ran.ended - ran.began).total_seconds():.3f} sec" if (
            ran and ran.ended) else ""  # fmt: skip
        text = f'"{step.name}" END {_what(step)}: {standing.status}.{took}'
        if standing.failed:
            return "error", f"{text} {standing.error or (ran and ran.error) or ''}".rstrip()
        return "notice", text

    def _times(self, step: Step) -> str:
        items = self.standings[step.name].items or {}
        return "" if step.for_each is None else f", {len(items)} times"

    def _began(self, names: set[str]) -> bool:
        return any(name in self.ran for name in names)

    def _place(self, at: int) -> str:
        return f"{at + 1}/{len(self.plan.stages)}"


def _what(step: Step) -> str:
    return "action" if step.plan is None else "workflow"


def _since(at: datetime) -> str:
    return f" Duration: {(datetime.now(UTC) - at).total_seconds():.3f} sec"
