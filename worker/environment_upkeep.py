"""Environments of this machine: which there are, and the end of those that nobody uses."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worker import environments
from worker.errors import Conflict, NotFound
from worker.settings import current_settings

logger = logging.getLogger("worker.environments")


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment as it stands on the disk."""

    name: str
    requirements: list[str]
    bytes: int
    used_at: datetime
    in_use: bool


def environments_here() -> list[Environment]:
    """All that are made, the one that was used last at the end."""
    found = [_look_at(path) for path in _places()]
    return sorted(found, key=lambda one: one.used_at)


def remove(name: str) -> int:
    """Remove one, and return its size in bytes; raises NotFound, and Conflict where it is used."""
    path = next((path for path in _places() if path.name == name), None)
    if path is None:
        raise NotFound(
            f"environment {name} not found", "`dpe environment list` lists this machine's"
        )
    size = _size(path)
    if not _remove(path):
        raise Conflict(f"environment {name} is in use", "wait until its jobs have ended")
    _clean_cache()
    return size


def sweep() -> None:
    """Remove those that no job has used for long, and what builds that were killed have left."""
    for draft in environments.folder().glob("draft-*-*"):
        with _locked(draft.with_name(draft.name.split("-")[1])) as is_ours:
            if is_ours:
                shutil.rmtree(draft, ignore_errors=True)
    oldest = datetime.now(UTC).timestamp() - current_settings().keep_environments_s
    unused = [path for path in _places() if _used_at(path).timestamp() < oldest]
    if [path for path in unused if _remove(path)]:
        _clean_cache()


def _places() -> list[Path]:
    return [asked.parent for asked in environments.folder().glob(f"*/{environments.ASKED}")
            if not asked.parent.name.startswith("draft-")]  # fmt: skip


def _look_at(path: Path) -> Environment:
    with _locked(path) as is_free:
        pass  # not for longer: a job may be about to use it
    return Environment(
        name=path.name,
        requirements=json.loads((path / environments.ASKED).read_text()),
        bytes=_size(path),
        used_at=_used_at(path),
        in_use=not is_free,
    )


def _remove(path: Path) -> bool:
    """False: it is in use."""
    with _locked(path) as is_ours:
        if is_ours:
            # Out of the way at once: who looks for it meanwhile makes it anew.
            gone = environments.draft_of(path)
            with contextlib.suppress(FileNotFoundError):
                path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        return is_ours


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Keep others from using or making the environment; False: one is at it."""
    with environments.lock_of(path).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _clean_cache() -> None:
    try:
        environments.clean_cache()
    except environments.EnvironmentFailed as error:
        logger.info("uv's downloads stay until the next environment is removed: %s", error)


def _used_at(path: Path) -> datetime:
    return datetime.fromtimestamp(environments.lock_of(path).stat().st_mtime, UTC)


def _size(path: Path) -> int:
    files = (Path(at) / name for at, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)
