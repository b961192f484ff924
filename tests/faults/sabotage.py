"""Builds of the product that are broken on purpose: the harness must find each of them out.

Each is a copy of the source in which one safeguard is taken away by a change of its text.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "worker")


@dataclass(frozen=True)
class Sabotage:
    """One safeguard, where it stands and what is put in its place."""

    what: str
    file: str
    safeguard: str
    instead: str


BUILDS = {
    "no_fence": Sabotage(
        "a worker that lost its claim can commit",
        "worker/store/migrations/0032_told_jobs.sql",
        "WHERE execution_id = id AND attempt = owner_attempt AND status = 'PROCESSING'",
        "WHERE execution_id = id",
    ),
    "status_apart": Sabotage(
        "the rows are committed before the status, in a transaction of their own",
        "worker/store/ending.py",
        'parts = [b"BEGIN;"] * is_idle +',
        'parts = ([b"BEGIN;"] if is_idle else [b"COMMIT;", b"BEGIN;"]) +',
    ),
    "no_watch": Sabotage(
        "nobody keeps the watch",
        "worker/watch.py",
        "if not workers.take_watch(conn, INTERVAL_S):",
        "if True:",
    ),
}


def build(name: str | None, folder: Path) -> Path:
    """Copy the source into `folder`, broken as `name` says (None: not at all); return the copy.

    A safeguard that is not found just once is an error: then this file must follow the product.
    """
    copy = folder / "source"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    if name is not None:
        sabotage = BUILDS[name]
        path = copy / sabotage.file
        text = path.read_text()
        if text.count(sabotage.safeguard) != 1:
            raise ValueError(f"{sabotage.file} does not hold once: {sabotage.safeguard!r}")
        path.write_text(text.replace(sabotage.safeguard, sabotage.instead))
    return copy
