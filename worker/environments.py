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
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from uuid import uuid4

from uv import find_uv_bin

from worker.die_with_parent import die_with_parent
from worker.errors import DpeError
from worker.settings import current_settings

# What this process was started with; only `worker.inside` changes it.
here: tuple[str, ...] = ()

TOLD = 4_000  # characters of uv's own words, the last
ASKED = "requirements.json"  # in an environment: what it was made for


class EnvironmentFailed(DpeError):
    """An action's packages can't be installed; the text is uv's own."""

    title = "An action's packages can't be installed"


def folder() -> Path:
    """Where this machine's environments are, each with its lock beside it."""
    return current_settings().home / "environments"


def place(requirements: tuple[str, ...]) -> Path:
    """Where the environment with these packages is, or will be."""
    key = json.dumps([requirements, sys.version, _bounds(), _behind()])
    return folder() / hashlib.sha256(key.encode()).hexdigest()[:24]


def lock_of(environment: Path) -> Path:
    """A file, locked by those who make or remove the environment, and shared by its users.

    It is touched by each of them, so it tells when the environment was last used.  It is never
    removed: others may wait for it.
    """
    return environment.with_name(f"{environment.name}.lock")


def draft_of(environment: Path) -> Path:
    """A new place for what is being made, or removed; who has the lock may remove what is left."""
    return environment.with_name(f"draft-{environment.name}-{uuid4().hex}")


@contextlib.contextmanager
def used(requirements: tuple[str, ...]) -> Iterator[None]:
    """Have the environment, made where it lacks, and keep it until the block ends.

    Raises EnvironmentFailed.
    """
    target = place(requirements)
    while True:
        build(requirements)
        with lock_of(target).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if not target.exists():
                continue  # removed in between
            lock_of(target).touch()
            yield
            return


def made(requirements: tuple[str, ...]) -> int:
    """Which making of the environment is there: another number after it was removed."""
    return (place(requirements) / "pyvenv.cfg").stat().st_mtime_ns


def command(requirements: tuple[str, ...], module: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment variables that run one of our modules there."""
    # -P: the folder in which a worker was started is not one to import from.
    words = [str(place(requirements) / "bin" / "python"), "-P", "-m", module]
    return words, {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build(requirements: tuple[str, ...]) -> None:
    """Make the environment, or wait for whoever makes it; raises EnvironmentFailed.

    It is made beside its place and moved there whole, so a build that is killed leaves none.
    """
    target = place(requirements)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(target).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        draft = draft_of(target)
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
    (draft / ASKED).write_text(json.dumps(requirements))


def clean_cache() -> None:
    """Have uv forget what it has downloaded: it shares files with environments that are gone.

    Raises EnvironmentFailed where others are using it.
    """
    _uv("cache", "clean", "--quiet", UV_LOCK_TIMEOUT="5")


def _uv(*words: str, **environ: str) -> None:
    cache_folder = str(folder() / "cache")
    done = subprocess.run(  # noqa: S603 -- uv; no word of an action begins with a dash
        [find_uv_bin(), *words[:1], "--cache-dir", cache_folder, *words[1:]],
        check=False,
        env=os.environ | environ,
        preexec_fn=die_with_parent(),
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
