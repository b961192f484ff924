"""One run of the harness: a seed, a stack, callers, faults; then the checker and the figures."""

import contextlib
import json
import random
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.faults import check, figures, process_faults, sabotage, server_faults, workflows
from tests.faults.clients import ACTIONS, Clients
from tests.faults.faults import FAULTS, Done, NotHere, choose
from tests.faults.stack import FLOWER_ACCOUNT, Stack

ALL = (process_faults, server_faults)  # that have entered their faults into FAULTS
FLOWER_SETTLES_S = 10.0
LEFT_ALONE_S = 3.0  # so long a process may live on after its job was ended from outside


@dataclass
class Profile:
    """How much of what."""

    seed: int
    jobs: int = 10_000
    faults: int = 100
    rate: float = 40.0  # starts a second
    quiet_s: float = 5.0  # without faults, before and after
    pause_s: float = 1.0  # between two faults, on average
    settle_s: float = 60.0  # what the accepted jobs get to end in, after the last fault
    until_s: float | None = None  # a longer run: go on with faults for so many seconds
    only: list[str] = field(default_factory=list)  # these faults alone
    build: str | None = None  # of `sabotage.BUILDS`
    kind: str = "actions"  # what is started; or "workflows"


@dataclass
class Report:
    """What a run found and measured."""

    seed: int
    accepted: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    not_here: dict[str, str] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)  # what is wrong, and how often
    texts: list[str] = field(default_factory=list)  # a few of each kind
    flower: dict[str, Any] = field(default_factory=dict)
    jobs_per_s: dict[str, float] = field(default_factory=dict)
    longest_waits: list[dict[str, Any]] = field(default_factory=list)
    recovery: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Say = Callable[[str], None]


def run(profile: Profile, say: Say, folder: Path | None = None) -> Report:
    """Do one run; `say` is told what happens.

    `folder` (None: a temporary one) gets the logs, the callers' record and the list of faults; it
    is deleted where all is well, unless it was named.
    """
    keep, folder = folder, folder or Path(tempfile.mkdtemp(prefix="dpe-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    report, began = Report(profile.seed), time.monotonic()
    stack = Stack(folder, sabotage.build(profile.build, folder))
    try:
        stack.start()
        _drive(stack, profile, report, say)
    finally:
        stack.end()
    report.seconds = round(time.monotonic() - began, 1)
    if report.findings or keep:
        say(f"logs and the callers' record: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _drive(stack: Stack, profile: Profile, report: Report, say: Say) -> None:
    key = stack.make_key()
    clients = Clients(
        port=stack.port,
        key=key,
        actions=_push(stack, profile.kind),
        seed=profile.seed,
        rate=profile.rate,
        kind=profile.kind,
    )
    times = [time.time()]
    clients.start()
    stack.rest(profile.quiet_s)
    times.append(time.time())
    faults = _do_faults(stack, profile, report, clients, say)
    times.append(time.time())
    stack.rest(profile.quiet_s)
    clients.end()
    times.append(time.time())
    say("no more starts; waiting until the accepted jobs have ended")
    with stack.database() as conn:
        _settle(stack, conn, profile.settle_s)
        stack.rest(LEFT_ALONE_S)
        record = stack.folder / "record.jsonl"
        clients.write(record)
        starts = check.read_record(record)
        _check(stack, conn, key, starts, report, profile.kind)
        report.accepted = clients.accepted
        report.faults = dict(Counter(fault.name for fault in faults))
        for name, at in (("before", 0), ("during", 1), ("after", 2)):
            report.jobs_per_s[name] = round(
                figures.jobs_per_second(conn, times[at], times[at + 1]), 1
            )
        report.longest_waits = figures.longest_waits(conn, starts)
        recoveries = figures.recoveries(conn, faults)
        report.recovery = figures.by_kind(recoveries)
        noted = [asdict(one.fault) | {"seconds": one.seconds} for one in recoveries]
        (stack.folder / "faults.json").write_text(json.dumps(noted, indent=1))
        (stack.folder / "report.json").write_text(json.dumps(report.as_dict(), indent=1))


def _push(stack: Stack, kind: str) -> dict[str, str]:
    """Push what is to be started; return its ids."""
    stack.build_tables()
    actions = {name: stack.push(name, config) for name, config in ACTIONS.items()}
    if kind == "workflows":
        stack.push_workflow(workflows.INNER)
        return {name: stack.push_workflow(workflows.definition(name)) for name in ACTIONS}
    return actions


def _do_faults(
    stack: Stack, profile: Profile, report: Report, clients: Clients, say: Say
) -> list[Done]:
    rng, done = random.Random(profile.seed), list[Done]()
    names = profile.only or list(FAULTS)
    # Each kind once, in any order; then by weight.
    first = rng.sample(names, len(names))
    until = time.monotonic() + (profile.until_s or 0.0)

    def enough() -> bool:
        if len(done) < profile.faults or clients.accepted < profile.jobs:
            return False
        return time.monotonic() > until

    while not enough():
        name = first.pop() if first else choose(rng, names)
        try:
            one = _do(name, stack, rng)
        except NotHere as error:
            names.remove(name)
            report.not_here[name] = str(error)
            say(f"{name}: not here: {error}")
            continue
        if one is not None:
            done.append(one)
            say(f"{len(done)} faults, {clients.accepted} accepted: {name}")
        elif all(other.name != name for other in done):  # no chance came for it: another time
            first.insert(0, name)
        stack.rest(rng.uniform(0, 2 * profile.pause_s))
    while stack.laters:
        stack.rest(0.1)
    return done


def _do(name: str, stack: Stack, rng: random.Random) -> Done | None:
    try:
        one = FAULTS[name][1](stack, rng)
    except psutil.NoSuchProcess:  # it ended by itself in between
        return None
    if one is not None:
        one.name = name
    return one


def _settle(stack: Stack, conn: psycopg.Connection, timeout_s: float) -> None:
    """Wait until nothing is left to do, or the time is over: the checker says what was left."""
    deadline = time.monotonic() + timeout_s
    left = "SELECT count(*) FROM dpe.jobs WHERE ended_at IS NULL"
    while conn.execute(left.encode()).fetchone() != (0,) and time.monotonic() < deadline:
        stack.rest(0.1)


def _check(
    stack: Stack,
    conn: psycopg.Connection,
    key: tuple[str, str],
    starts: list[dict[str, Any]],
    report: Report,
    kind: str,
) -> None:
    look = workflows.check_runs if kind == "workflows" else check.check_database
    found, ends = look(conn, starts)
    statuses = dict(conn.execute("SELECT execution_id::text, status FROM dpe.jobs").fetchall())
    url = f"http://127.0.0.1:{stack.port}"
    login = json.dumps({"auth_mode": "apikey", "apikey": key[0], "secretkey": key[1]}).encode()
    with urllib.request.urlopen(f"{url}/iam/v4/login", login, timeout=30) as answer:
        token = json.loads(answer.read())["token"]
    check.check_api(url, token, statuses, found)
    report.ends = dict(ends)
    with _flower_settled(stack, statuses) as (wrong, known):
        for text in wrong:
            found.add("contradiction", text)
        report.flower = {"tasks": known, "wrong": len(wrong)}
    report.findings, report.texts = dict(found.counts), found.texts


@contextlib.contextmanager
def _flower_settled(stack: Stack, statuses: dict[str, str]) -> Iterator[tuple[list[str], int]]:
    """What Flower says when it has had a moment to hear of the last ends."""
    deadline = time.monotonic() + FLOWER_SETTLES_S
    while True:
        stack.rest(0.5)
        try:
            url = f"http://127.0.0.1:{stack.flower_port}"
            wrong, known = check.check_flower(url, FLOWER_ACCOUNT, statuses)
        except OSError as error:  # it has just been started again
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if time.monotonic() > deadline:
                raise
            continue
        if not wrong or time.monotonic() > deadline:
            yield wrong, known
            return
