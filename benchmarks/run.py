"""The product against the tuned hand-written baseline, side by side: `make bench`.

Each figure is a ratio of two in the same run, since machines differ and are shared; rounds of the
two alternate.  Leaves benchmarks/result.json and benchmarks/result.svg.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psycopg

from app.embedded import Postgres, Valkey
from benchmarks import bulk_insert, load, measures, picture
from benchmarks.load import ROWS
from benchmarks.sides import Product, Side, baseline, empty, wait_for

HERE = Path(__file__).parent

# What is measured, what it is measured in, and what it is to reach.
GOALS = {
    "jobs/s, 16 connections": ("× baseline", ">=", 3.0),
    "starts accepted/s, 64 connections": ("× baseline", ">=", 3.0),
    "idle start to success seen, p50": ("× baseline", "<=", 0.7),
    "idle start to success seen, p99": ("× baseline", "<=", 0.7),
    "the same with ?wait, p50": ("× baseline", "<=", 0.6),
    "the same with ?wait, p99": ("× baseline", "<=", 0.6),
    "processor time of a job": ("× baseline", "<=", 0.6),
    "idle memory (PSS)": ("× baseline", "<=", 0.6),
    "starts accepted/s ÷ empty POSTs": ("", ">=", 0.6),
    "4 children ÷ 4 × one": ("", ">=", 0.8),
    "2 children ÷ 2 × one": ("", ">=", 0.8),
    "status polls/s beside 500 jobs/s": ("a second", ">=", 5000.0),
    "their p99": ("ms", "<=", 10.0),
    "starts beside them ÷ 500/s": ("", ">=", 0.9),
    "dpe up to first SUCCESS": ("s", "<=", 4.0),
    "1 M x 4 columns": ("× psql \\copy", ">=", 1.5),
    "500 k x 20 floats": ("× psql \\copy", ">=", 4.0),
    "extra memory, MB": ("MB", "<=", 64.0),
    "5 rows": ("× one INSERT", "<=", 1.3),
    "jobs/s over 1 M finished ones": ("× empty table", ">=", 0.95),
    "list p99 over 1 M finished ones": ("× empty table", "<=", 1.2),
}
# The two that differ by less than the machine does from one minute to the next take short turns.
TURNS, LISTS = 6, 1000  # calls of the list route, by one caller
GROUPS = ("sides", "empty", "scaling", "polls", "start", "bulk", "finished")


@dataclass
class Bench:
    """One run: its servers, and what was found."""

    home: Path
    postgres: Postgres
    valkey: Valkey
    conn: psycopg.Connection
    rounds: int
    starts: int
    found: dict[str, list[float]] = field(default_factory=dict)
    plain: dict[str, list[float]] = field(default_factory=dict)  # not as ratios

    def note(self, name: str, value: float) -> None:
        """Keep one round's figure, and say it."""
        self.found.setdefault(name, []).append(round(value, 4))
        print(f"  {name}: {value:.3g}", flush=True)

    def keep(self, name: str, value: float) -> None:
        """Keep a figure of this machine's, which says nothing by itself."""
        self.plain.setdefault(name, []).append(round(value, 5))

    def sides(self) -> None:
        """Product and baseline in turn."""
        product = self._product()
        for _ in range(self.rounds):
            with product.up() as side:
                ours = measures.both(side, self.conn, self.starts)
            with baseline(self.home, self.postgres, self.valkey) as side:
                theirs = measures.both(side, self.conn, self.starts)
            for name, value in ours.items():
                self.note(name, value / theirs[name])
                self.keep(f"product: {name}", value)
                self.keep(f"baseline: {name}", theirs[name])

    def empty(self) -> None:
        """Accepted starts against POSTs that do nothing, on the same server."""
        product = self._prepared()
        with product.process("api") as api, empty(self.home) as url:
            wait_for(product.answers, api)
            headers = product.headers()
            for _ in range(self.rounds):
                ours = load.load("POST", product.start_url, headers, 64, 3, ROWS).per_s
                nothing = load.load("POST", url, headers, 64, 3, ROWS).per_s
                self.note("starts accepted/s ÷ empty POSTs", ours / nothing)
                self.keep("empty POSTs/s", nothing)
            self.conn.execute("TRUNCATE dpe.jobs")

    def _prepared(self) -> Product:
        product = self._product()
        with product.up("--no-flower"):
            return product

    def scaling(self) -> None:
        """Jobs a second with one, two and four children, as far as there are cores for them."""
        product = self._prepared()
        counts = [count for count in (1, 2, 4) if count <= (os.cpu_count() or 1)]
        for _ in range(self.rounds):
            rates = {
                children: measures.scaling(product, self.conn, children, 600 * children)
                for children in counts
            }
            for children, rate in rates.items():
                self.keep(f"jobs/s, {children} children", rate)
            for children in counts[1:]:
                share = rates[children] / rates[1] / children
                self.note(f"{children} children ÷ {children} × one", share)

    def polls(self) -> None:
        """Status polls beside a steady load."""
        product = self._product()
        with product.up() as side:
            for _ in range(self.rounds):
                rate, p99_ms, starts = measures.polls(side)
                self.note("status polls/s beside 500 jobs/s", rate)
                self.note("their p99", p99_ms)
                self.note("starts beside them ÷ 500/s", starts)

    def start(self) -> None:
        """From nothing running to the first SUCCESS."""
        product = self._product()
        for name in ("DPE_DATABASE_URL", "DPE_BROKER_URL"):
            del product.environ[name]  # its own servers, as a newcomer has them
        for _ in range(self.rounds):
            self.note("dpe up to first SUCCESS", measures.first_success_s(product))

    def bulk(self) -> None:
        """Bulk inserts against psql, and against one INSERT."""
        values = bulk_insert.figures(self.postgres.url, self.home, self.rounds)
        for name, ones in values.items():
            for value in ones:
                self.note(name, value)

    def finished(self) -> None:
        """With a million finished jobs in the record, and with few, side by side and in turn."""
        few, many = self._database("few"), self._database("many")
        with (
            psycopg.connect(few, autocommit=True) as few_conn,
            psycopg.connect(many, autocommit=True) as many_conn,
        ):
            measures.finish_many(many_conn)
            with (
                self._product(few).up(prepared=True) as few_side,
                self._product(many, 1).up(prepared=True) as many_side,
            ):
                sides = [(few_side, few_conn), (many_side, many_conn)]
                for side, _ in sides * 30:
                    measures.latency_s(side)
                for _ in range(self.rounds):
                    self._compare(sides)

    def _compare(self, sides: list[tuple[Side, psycopg.Connection]]) -> None:
        rates: list[list[float]] = [[], []]
        for turn in range(TURNS):
            for at in (turn % 2, 1 - turn % 2):
                rates[at].append(measures.jobs_per_s(*sides[at], self.starts // TURNS))
        few, many = map(statistics.median, rates)
        self.note("jobs/s over 1 M finished ones", many / few)
        times = [[measures.list_s(side) for side, _ in sides] for _ in range(LISTS)]
        few, many = (measures.percentile(one, 99) for one in zip(*times, strict=True))
        self.note("list p99 over 1 M finished ones", many / few)

    def _database(self, name: str) -> str:
        """The address of a database of its own, made and migrated."""
        self.conn.execute(f"CREATE DATABASE {name}".encode())
        url = urlsplit(self.postgres.url)._replace(path=f"/{name}").geturl()
        with self._product(url).up("--no-flower"):
            return url

    def _product(self, database_url: str = "", number: int = 0) -> Product:
        return Product(self.home, database_url or self.postgres.url, self.valkey.url, number)


def main() -> None:
    """Measure, show, and keep."""
    options = _arguments()
    load.check()
    began, steal, slowed = time.monotonic(), steal_s(), slowed_share()
    with tempfile.TemporaryDirectory(prefix="dpe-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)
        postgres, valkey = Postgres(home), Valkey(home)
        postgres.start()
        valkey.start()
        try:
            with psycopg.connect(postgres.url, autocommit=True) as conn:
                bench = Bench(home, postgres, valkey, conn, options.rounds, options.starts)
                for group in options.only or GROUPS:
                    print(f"{group}, after {time.monotonic() - began:.0f} s", flush=True)
                    measure: Callable[[], None] = getattr(bench, group)
                    measure()
        finally:
            valkey.stop()
            postgres.stop()
    result = {
        "machine": machine(),
        "stolen_s": round(steal_s() - steal, 2),
        "slowed_share": round(slowed, 4),
        "took_s": round(time.monotonic() - began),
        "rounds": options.rounds,
        "figures": {name: spread(values) for name, values in bench.found.items()},
        "of this machine": {name: spread(values) for name, values in bench.plain.items()},
    }
    show(
        result["figures"],
        f"{result['machine']}; stolen by others: {result['stolen_s']} s of {result['took_s']} s;"
        f" memory slow in {slowed:.1%} of the time before",
    )
    if not options.only:
        (HERE / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        (HERE / "result.svg").write_text(picture.bars(result["figures"], GOALS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=measures.STARTS)
    parser.add_argument("--only", action="append", choices=GROUPS, help="a part; keeps no result")
    return parser.parse_args()


def spread(values: list[float]) -> list[float]:
    """Minimum, median, maximum."""
    return [min(values), statistics.median(values), max(values)]


def met(name: str, value: float) -> bool:
    """Whether a figure reaches its goal."""
    _, sign, goal = GOALS[name]
    return value >= goal if sign == ">=" else value <= goal


def show(figures: dict[str, list[float]], machine: str) -> None:
    """One table: minimum, median, maximum of the rounds, and the goal."""
    print(f"\n{machine}\n\n{'':36} {'min':>8} {'median':>8} {'max':>8}")
    for name, (low, middle, high) in figures.items():
        unit, sign, goal = GOALS[name]
        missed = "" if met(name, middle) else "   missed"
        print(f"{name:36} {low:8.3g} {middle:8.3g} {high:8.3g} {unit:14} {sign} {goal:g}{missed}")


def machine() -> str:
    """Cores, Python and what matters of the libraries."""
    names = ("celery", "kombu", "flask", "granian", "gunicorn", "psycopg", "pandas")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def steal_s() -> float:
    """Seconds that the hypervisor gave to others (proc_stat(5)); 0 where it is not told."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    return int(stat.read_text().split("\n", 1)[0].split()[8]) / os.sysconf("SC_CLK_TCK")


def slowed_share(seconds: float = 5.0, size: int = 2**24, reads: int = 20_000) -> float:
    """The share of an idle machine's time in which reads of memory take over three times as long.

    A host that works for others as well empties the caches of all of them.  No system counts that
    as stolen, and where it is more than a hundredth, each p99 is measured in it.
    """
    memory = np.ones(size, np.uint8)
    places = np.random.default_rng(1).integers(0, size, reads)
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        memory[places].sum()
        took.append(time.perf_counter() - began)
    usual = statistics.median(took)
    return sum(one for one in took if one > 3 * usual) / sum(took)


if __name__ == "__main__":
    main()
