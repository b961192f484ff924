"""`--profile workflows`: every start is one of a workflow, and the checker holds its whole graph.

The trouble of a start is in one step (`TROUBLED`) of its first stage; what follows is a fan-out, a
workflow within the workflow, a step on failure alone, and a last one.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg

from tests.faults.check import (
    ENDED,
    Findings,
    Row,
    check_end,
    check_leftovers,
    check_rows,
    check_start,
)

TROUBLED = "b"
INNER = {
    "display_name": "inner",
    "stages": [
        {"actions": [{"action_conf": "plain", "name": "x"}]},
        {"actions": [{"action_conf": "plain", "name": "y"}]},
    ],
}
ALWAYS = Counter(["a/None", "b/None", "c/1", "c/2", "inner/None", "x/None", "y/None", "z/None"])
ON_FAILURE = "d/None"


def definition(action: str) -> dict[str, Any]:
    """The workflow whose troubled step runs this action."""
    stages: list[list[dict[str, Any]]] = [
        [{"name": "a"}, {"name": TROUBLED, "action_conf": action}],
        [{"name": "c", "for_each": [1, 2]}],
        [{"name": "inner", "workflow_conf": "inner"}],
        [{"name": "d", "if": "failure"}],
        [{"name": "z"}],
    ]
    entries = [
        [entry if "workflow_conf" in entry else {"action_conf": "plain"} | entry for entry in stage]
        for stage in stages
    ]
    return {"display_name": f"flow {action}", "stages": [{"actions": stage} for stage in entries]}


def check_runs(conn: psycopg.Connection, starts: list[Row]) -> tuple[Findings, Counter[str]]:
    """Hold Postgres against the record, as `check_database` does, step by step."""
    found, ends = Findings(), Counter[str]()
    jobs = {row["execution_id"]: row for row in _jobs(conn)}
    children: dict[str, list[Row]] = {}
    for job in jobs.values():
        children.setdefault(job["run_id"], []).append(job)
    rows = _Rows(conn)
    for start in starts:
        if not check_start(found, start, jobs):
            continue
        run = jobs.pop(start["execution_id"])
        ends[run["status"]] += 1
        check_end(found, start, run)
        steps = list(_below(run, children))
        for step in steps:
            jobs.pop(step["execution_id"])
        _check_graph(found, start, run, steps)
        for step in steps:
            _check_step(found, start, step, rows)
    for id, job in jobs.items():
        found.add("doubled", f"job {id} ({job['status']}) is in no caller's record")
    for event in rows.lines.keys() | rows.totals.keys():
        found.add("doubled", f"rows of {event}, which nobody started")
    check_leftovers(conn, found)
    return found, ends


class _Rows:
    """What the handlers have written, by the name that each step gives its rows."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.lines: dict[str, list[tuple[int, int, str]]] = {}
        for event, number, attempt, id in conn.execute(
            "SELECT event, number::int, attempt::int, execution_id FROM faults.line"
        ):
            self.lines.setdefault(event, []).append((number, attempt, id))
        self.totals = dict(conn.execute("SELECT event, rows::int FROM faults.total").fetchall())


def _jobs(conn: psycopg.Connection) -> Iterator[Row]:
    names = ("execution_id", "run_id", "step", "item", "status", "attempt", "is_run", "ends")
    for row in conn.execute(
        """
        SELECT execution_id::text, run_id::text, step, item, status, attempt, plan IS NOT NULL,
               (SELECT count(*) FROM dpe.job_logs l WHERE l.execution_id = j.execution_id
                AND l.lines LIKE '%%END workflow. %%'), error
        FROM dpe.jobs j
        """,
        [],
    ):
        yield dict(zip((*names, "error"), (*row[:-1], row[-1] or {}), strict=True))


def _below(run: Row, children: dict[str, list[Row]]) -> Iterator[Row]:
    for step in children.get(run["execution_id"], []):
        yield step
        yield from _below(step, children)


def _check_graph(found: Findings, start: Row, run: Row, steps: list[Row]) -> None:
    """Each step was started once, and as the graph has it; the run ended once."""
    who = f"{start['event']} ({start['does']}, {run['status']})"
    there = Counter(f"{step['step']}/{step['item']}" for step in steps)
    wanted = ALWAYS + Counter([ON_FAILURE] if run["status"] == "FAILED" else [])
    for name in there - wanted:
        found.add("doubled", f"{who} started {name} {there[name]} times")
    if run["status"] in {"SUCCESS", "FAILED"}:
        for name in wanted - there:
            found.add("lost", f"{who} never started {name}")
        for one in (run, *(step for step in steps if step["is_run"])):
            if one["ends"] != 1:
                found.add("doubled", f"{who}: {one['execution_id']} ended {one['ends']} times")


def _check_step(found: Findings, start: Row, step: Row, rows: _Rows) -> None:
    name = f"{start['event']}/{step['step']}/{step['item']}"
    who = f"step {name} ({start['does']}, {step['execution_id']})"
    if step["status"] not in ENDED:
        found.add("lost", f"{who} never ended: it is {step['status']}")
    elif step["status"] == "STOPPED" and start["does"] != "stop":
        found.add("wrong end", f"{who} is STOPPED, and nobody stopped it")
    elif step["step"] != TROUBLED and step["status"] not in {"SUCCESS", "STOPPED"}:
        found.add("wrong end", f"{who} is {step['status']}: {step['error'].get('message')}")
    if not step["is_run"]:
        there, total = rows.lines.pop(name, []), rows.totals.pop(name, None)
        mine = start | {"event": name, "execution_id": step["execution_id"]}
        check_rows(found, mine, step, there, total)
