"""The independent checker: SQL and HTTP against the callers' own record.

It uses nothing of the product's code.  What it finds wrong comes as sentences; none is what a run
must end with.
"""

import base64
import json
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Any

import psycopg

SHOWN = 5  # of each kind of finding
ENDED = {"SUCCESS", "FAILED", "TIMEOUT", "STOPPED"}

Row = dict[str, Any]


class Findings:
    """What is wrong, by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.texts.append(f"{kind}: {text}")


def read_record(record: Path) -> list[Row]:
    """What the callers wrote down."""
    return [json.loads(line) for line in record.read_text().splitlines()]


def check_database(conn: psycopg.Connection, starts: list[Row]) -> tuple[Findings, Counter[str]]:
    """Hold Postgres against the record; return what is wrong, and how the jobs ended."""
    found, ends = Findings(), Counter[str]()
    jobs = {
        str(id): {"status": status, "attempt": attempt, "error": error or {}}
        for id, status, attempt, error in conn.execute(
            "SELECT execution_id, status, attempt, error FROM dpe.jobs"
        )
    }
    lines: dict[str, list[tuple[int, int, str]]] = {}
    for event, number, attempt, id in conn.execute(
        "SELECT event, number::int, attempt::int, execution_id FROM faults.line"
    ):
        lines.setdefault(event, []).append((number, attempt, id))
    totals = dict(conn.execute("SELECT event, rows::int FROM faults.total").fetchall())

    for start in starts:
        if not check_start(found, start, jobs):
            continue
        job = jobs.pop(start["execution_id"])
        ends[job["status"]] += 1
        check_end(found, start, job)
        there, total = lines.pop(start["event"], []), totals.pop(start["event"], None)
        check_rows(found, start, job, there, total)
    # A start that no caller was told of: its answer was lost, and it was tried again in vain.
    for id, job in jobs.items():
        found.add("doubled", f"job {id} ({job['status']}) is in no caller's record")
    for event in lines.keys() | totals.keys():
        found.add("doubled", f"rows of {event}, which nobody started")
    check_leftovers(conn, found)
    return found, ends


def check_start(found: Findings, start: Row, jobs: Container[str]) -> bool:
    """A start was accepted, without contradictions, and its job is there; False: it is not."""
    for text in start["odd"]:
        found.add("contradiction", f"{start['event']}: {text}")
    if not start["execution_id"]:
        found.add("never accepted", f"{start['event']} after {start['tries']} tries")
        return False
    if start["execution_id"] not in jobs:
        found.add("lost", f"{start['event']} was accepted as {start['execution_id']}")
        return False
    return True


def check_end(found: Findings, start: Row, job: Row) -> None:
    """A job ended, as its caller was told and as it had to."""
    status, who = job["status"], f"{start['event']} ({start['does']}, {start['execution_id']})"
    if status not in ENDED:
        found.add("lost", f"{who} never ended: it is {status}")
        return
    if start["seen"] and start["seen"] != status:
        found.add("contradiction", f"{who} was shown as {start['seen']}, and is {status}")
    if start["stop"] == "STOPPED" and status != "STOPPED":
        found.add("contradiction", f"the stop of {who} was answered STOPPED, and it is {status}")
    allowed = {start["expected"]}
    if start["does"] == "stop":
        allowed = {"STOPPED", "SUCCESS"}
    if status in allowed:
        return
    error = job["error"].get("message")
    found.add("wrong end", f"{who} is {status} and not {start['expected']}: {error}")


def check_rows(
    found: Findings, start: Row, job: Row, there: list[tuple[int, int, str]], total: int | None
) -> None:
    """All rows of a job that succeeded are there, once; of any other there is none."""
    who = f"{start['event']} ({start['does']}, {job['status']}, attempt {job['attempt']})"
    if job["status"] != "SUCCESS":
        if there or total is not None:
            found.add("doubled", f"{who} left {len(there)} rows")
        return
    mine = [(n, job["attempt"], start["execution_id"]) for n in range(start["rows"])]
    for row in Counter(mine) - Counter(there):
        found.add("lost", f"{who} lacks the row {row}")
    for row in Counter(there) - Counter(mine):
        found.add("doubled", f"{who} has the row {row} too much")
    if total != start["rows"]:
        found.add("lost", f"{who}: its total is {total} and not {start['rows']}")


def check_leftovers(conn: psycopg.Connection, found: Findings) -> None:
    """Nothing still holds a transaction or a claim."""
    held = conn.execute(
        "SELECT application_name, state, query FROM pg_stat_activity"
        " WHERE application_name LIKE 'dpe-%' AND state LIKE 'idle in transaction%'"
        " AND state_change < now() - interval '1 second'"
    ).fetchall()
    for name, state, query in held:
        found.add("leftover", f"session {name} is {state} after {query[:80]}")
    claimed = conn.execute("SELECT execution_id FROM dpe.jobs WHERE status = 'PROCESSING'")
    for (id,) in claimed:
        found.add("leftover", f"the claim of {id} still stands")


def check_api(url: str, token: str, statuses: dict[str, str], found: Findings) -> None:
    """Every job as the API lists it is as Postgres has it."""
    listed: dict[str, str] = {}
    path = "/dpe/v3/jobs?limit=1000"
    while path:
        request = urllib.request.Request(
            urllib.parse.urljoin(url, path), headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            page = json.loads(answer.read())
            path = _next(answer.headers.get("Link"))
        listed |= {job["execution_id"]: job["status"] for job in page}
    for id in statuses.keys() ^ listed.keys():
        found.add("contradiction", f"job {id} is not both in the API and in Postgres")
    for id in statuses.keys() & listed.keys():
        if statuses[id] != listed[id]:
            found.add("contradiction", f"{id} is {statuses[id]}, the API says {listed[id]}")


def _next(link: str | None) -> str:
    return link.split(">")[0].lstrip("<") if link and 'rel="next"' in link else ""


# What Flower calls an end, and what the record may say then.
FLOWER = {
    "SUCCESS": {"SUCCESS"},
    "FAILURE": {"FAILED", "TIMEOUT"},
    "REVOKED": {"STOPPED"},
}


def check_flower(url: str, account: str, statuses: dict[str, str]) -> tuple[list[str], int]:
    """What Flower says otherwise than Postgres: (sentences, how many tasks it knows)."""
    basic = base64.b64encode(account.encode()).decode()
    request = urllib.request.Request(
        f"{url}/api/tasks?limit=1000000", headers={"Authorization": f"Basic {basic}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        tasks = json.loads(answer.read())
    wrong = []
    for id, task in tasks.items():
        status, state = statuses.get(id), task["state"]
        if status is None:
            wrong.append(f"Flower knows {id}, Postgres does not")
        elif status not in FLOWER.get(state, ()):
            wrong.append(f"{id} is {status}, Flower says {state}")
    return wrong, len(tasks)
