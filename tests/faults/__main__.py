"""`make faults`, `make soak`: run the harness and print what it found."""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.run import Profile, Report, run
from tests.faults.sabotage import BUILDS

WIDTH = 34


def main() -> int:
    """Run the seeds asked for; 0 where none was lost, doubled or contradicted."""
    words = _parser().parse_args()
    terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        end = "\n" if not terminal or "faults," not in text else "\r"
        print(f"{stamp} {text:<100}" if terminal else f"{stamp} {text}", end=end, file=sys.stderr)

    reports = []
    for seed in range(words.seed, words.seed + words.seeds):
        profile = Profile(
            seed=seed,
            jobs=words.jobs,
            faults=words.faults,
            rate=words.rate,
            until_s=words.seconds,
            only=words.only or [],
            build=words.build,
            kind=words.profile,
        )
        say(f"seed {seed}: {words.build or 'the product'}")
        report = run(profile, say, words.keep and words.keep / f"seed-{seed}")
        reports.append(report)
        if words.json:
            print(json.dumps(report.as_dict()), flush=True)
        else:
            _show(report)
    if len(reports) > 1 and not words.json:
        _show_sum(reports)
    return 1 if any(report.findings for report in reports) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds in a row")
    parser.add_argument("--jobs", type=int, default=10_000, help="at least so many of each seed")
    parser.add_argument("--faults", type=int, default=100, help="at least so many of each seed")
    parser.add_argument("--rate", type=float, default=40.0, help="starts a second")
    parser.add_argument("--seconds", type=float, help="go on with faults for so long")
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="this fault alone")
    parser.add_argument("--build", choices=list(BUILDS), help="a build that is broken on purpose")
    parser.add_argument("--profile", default="actions", choices=["actions", "workflows"],
                        help="what is started")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for logs and records")
    parser.add_argument("--json", action="store_true", help="one JSON object a seed")
    return parser


def _show(report: Report) -> None:
    good = not report.findings
    print(f"seed {report.seed}: {_coloured('passed' if good else 'FAILED', good)}")
    print(
        f"  {report.accepted} accepted, {sum(report.faults.values())} faults in"
        f" {report.seconds:.0f} s: {_lost(report)} lost, {_doubled(report)} doubled"
    )
    print(f"  {'ended':<{WIDTH}} {_pairs(report.ends)}")
    print(f"  {'jobs/s':<{WIDTH}} {_pairs(report.jobs_per_s)}")
    longest = report.longest_waits[0]["seconds"] if report.longest_waits else 0.0
    print(f"  {'longest wait of a job':<{WIDTH}} {longest} s")
    print(f"  {'Flower':<{WIDTH}} {_pairs(report.flower)}")
    print("  work went on, after the fault or its healing")
    for row in report.recovery:
        mixed = f", {row['mixed']} over it with other faults between" if row["mixed"] else ""
        print(
            f"    {row['fault']:<{WIDTH}} within {row['limit_s']:g} s: {row['within']} of"
            f" {row['measured']}{mixed}; the longest {row['longest_s']:.2f} s"
        )
    print(f"  {'faults':<{WIDTH}} {_pairs(report.faults)}")
    for name, why in report.not_here.items():
        print(f"  not staged on this machine: {name}: {why}")
    for kind, count in report.findings.items():
        print(f"  {_coloured(f'{kind}: {count}', good=False)}")
    for text in report.texts:
        print(f"  {_coloured(text, good=False)}")
    sys.stdout.flush()


def _show_sum(reports: list[Report]) -> None:
    good = sum(not report.findings for report in reports)
    print(
        f"{good} of {len(reports)} seeds passed:"
        f" {sum(report.accepted for report in reports)} accepted starts,"
        f" {sum(sum(report.faults.values()) for report in reports)} faults,"
        f" {sum(map(_lost, reports))} lost, {sum(map(_doubled, reports))} doubled"
    )


def _lost(report: Report) -> int:
    return report.findings.get("lost", 0) + report.findings.get("never accepted", 0)


def _doubled(report: Report) -> int:
    return report.findings.get("doubled", 0)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _coloured(text: str, good: bool) -> str:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{32 if good else 31}m{text}\x1b[0m"


if __name__ == "__main__":
    sys.exit(main())
