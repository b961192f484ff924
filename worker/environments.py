"""Environments: for each set of packages that actions ask for, a Python that has them.

`uv` makes one below DPE_HOME/environments, the first time that a job of this machine needs it.  It
holds what was asked for and what that needs; behind it, on the same path, stands what this Python
has.  So the engine is importable there, and a package that was asked for comes before the engine's
own of that name.  The engine's requirements bound what can be asked for: pandas 2 can, a driver too
old for the engine is refused in words.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from functools import cache
from pathlib import Path
from uuid import uuid4

from uv import find_uv_bin

from worker.errors import DpeError
from worker.settings import current_settings

# What this process was started with; only `worker.inside` changes it.
here: tuple[str, ...] = ()

TOLD = 4_000  # characters of uv's own words, the last
STALE_S = 86_400.0


class EnvironmentFailed(DpeError):
    """An action's packages can't be installed; the text is uv's own."""

    title = "An action's packages can't be installed"


def python(requirements: tuple[str, ...]) -> Path:
    """Where the Python with these packages is, or will be."""
    key = json.dumps([requirements, sys.version, _bounds(), _behind()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    return current_settings().home / "environments" / digest / "bin" / "python"


def note_use(requirements: tuple[str, ...]) -> None:
    """Say that a job uses the environment now, so that it is not removed as unused."""
    target = python(requirements).parent.parent
    (target.parent / f"{target.name}.lock").touch()


def command(requirements: tuple[str, ...], module: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment variables that run one of our modules there."""
    # -P: the folder in which a worker was started is not one to import from.
    words = [str(python(requirements)), "-P", "-m", module]
    return words, {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build(requirements: tuple[str, ...]) -> None:
    """Make the environment, or wait for whoever makes it; raises EnvironmentFailed.

    It is made beside its place and moved there whole, so a build that is killed leaves none.
    """
    target = python(requirements).parent.parent
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        _sweep(target.parent)
        draft = target.parent / f"draft-{uuid4().hex}"
        try:
            _fill(draft, requirements)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _fill(draft: Path, requirements: tuple[str, ...]) -> None:
    _uv("venv", "--quiet", "--relocatable", "--python", sys.executable, str(draft))
    bounds = draft / "bounds.txt"
    bounds.write_text("\n".join(_bounds()))
    inside = str(draft / "bin" / "python")
    # Its own certificates know nothing of those that a company has added to its machines.
    _uv("pip", "install", "--quiet", "--system-certs", "--python", inside,
        "--constraints", str(bounds), "--", *requirements)  # fmt: skip
    (packages,) = (draft / "lib").glob("python*/site-packages")
    (packages / "zz_behind.pth").write_text("\n".join(_behind()))


def _uv(*words: str) -> None:
    cache_folder = str(current_settings().home / "environments" / "cache")
    done = subprocess.run(  # noqa: S603 -- uv; no word of an action begins with a dash
        [find_uv_bin(), *words[:1], "--cache-dir", cache_folder, *words[1:]],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise EnvironmentFailed(
            f"uv ended with exit code {done.returncode}: {done.stderr.strip()[-TOLD:]}",
            'see "dependencies" in forepaas.json',
        )


def _sweep(folder: Path) -> None:
    """Remove what builds that were killed have left, and environments that no job has used."""
    for draft in folder.glob("draft-*"):
        if _age_s(draft) > STALE_S:
            shutil.rmtree(draft, ignore_errors=True)
    for lock in folder.glob("*.lock"):
        if _age_s(lock) > current_settings().keep_environments_s:
            _remove(lock)


def _remove(lock: Path) -> None:
    """Remove an environment, unless it is being made; its lock stays, others may wait for it."""
    with lock.open() as held, contextlib.suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Out of the way at once: who looks for it meanwhile makes it anew.
        gone = lock.with_name(f"draft-{uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            lock.with_suffix("").rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@cache
def _bounds() -> list[str]:
    """The engine's own requirements, without extras: no package may be older than that."""
    try:
        needed = importlib.metadata.requires("open-dpe") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    plain = [line for line in needed if "extra ==" not in line]
    return [re.sub(r"\[[^]]*\]", "", line) for line in plain]


@cache
def _behind() -> list[str]:
    """The folders that this Python finds its packages and the engine in."""
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    found = [str(Path(entry).absolute()) for entry in sys.path if entry and Path(entry).is_dir()]
    return [
        entry
        for entry in dict.fromkeys(found)
        if entry not in standard and os.path.basename(entry) != "lib-dynload"  # noqa: PTH119
    ]
