"""`connect("data_store/<bucket>")`: files as handlers see them.

What a job writes or deletes is seen by itself at once, and by others when the job is committed.
"""

import contextlib
import os
import posixpath
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

import psycopg

from worker.data_store import STAGE, data_store
from worker.data_store import land as land_moves
from worker.errors import DatasetError
from worker.lakehouse.transaction import running_job
from worker.store import file_moves
from worker.store.claims import Claim

ADDRESS = "data_store"


@dataclass(frozen=True, slots=True)
class FileStat:
    """What there is to know of a file; `size` in bytes, `last_modified` in UTC."""

    name: str
    size: int
    last_modified: datetime | None


@dataclass(slots=True)
class _Written:
    """What one attempt has written: each file's name to where it waits; None: deleted."""

    job: Claim
    files: dict[str, str | None] = field(default_factory=dict)
    moves: list[file_moves.Owed] = field(default_factory=list)  # in the order of the calls
    count: int = 0


_written: _Written | None = None
_guard = threading.Lock()


class Bucket:
    """One bucket of the data store; without a name the whole store, whose files are `bucket/name`.

    Thread-safe; never closed.
    """

    def __init__(self, bucket: str = "") -> None:
        self.bucket = bucket

    def __repr__(self) -> str:
        return f"<Bucket {ADDRESS}/{self.bucket}>"

    def list(self, prefix: str = "") -> "list[FileStat]":
        """The files whose names begin with `prefix`, by name, whatever folders they are in."""
        store, start = data_store(), self._name("") if self.bucket else ""
        store.fs.invalidate_cache()
        base = store.path(start).rstrip("/")
        found: dict[str, FileStat] = {}
        there: Any = store.fs.find(base, detail=True)  # a dict, with detail
        for path, info in there.items():
            name = path[len(store.root) + 1 :]
            if not name.startswith(f"{STAGE}/"):
                found[name] = _stat(name, info)
        for name, source in _own().files.items():
            if not name.startswith(start):
                continue
            found.pop(name, None)
            if source is not None:
                found[name] = _stat(name, store.fs.info(store.path(source)))
        inside = [
            FileStat(name[len(start) :], stat.size, stat.last_modified)
            for name, stat in sorted(found.items())
        ]
        return [stat for stat in inside if stat.name.startswith(prefix)]

    def list_filename(self, prefix: str = "") -> "list[str]":
        """The names of those files."""
        return [stat.name for stat in self.list(prefix)]

    def get(self, filename: str) -> bytes:
        """A file's content.  Raises DatasetError where there is none."""
        content: Any = data_store().fs.cat_file(self._found(filename))
        return content

    def fget(self, filename: str, path: str | os.PathLike[str]) -> str:
        """Copy a file to a local path, which is returned.  Raises DatasetError."""
        data_store().fs.get_file(self._found(filename), os.fspath(path))
        return os.fspath(path)

    def put(self, filename: str, data: bytes | bytearray | str | BinaryIO) -> FileStat:
        """Write bytes, a text (as UTF-8), or what an open file gives."""
        content = data.encode() if isinstance(data, str) else data
        if not isinstance(content, (bytes, bytearray, memoryview)):
            content = content.read()
            content = content.encode() if isinstance(content, str) else content
        return self._write(filename, lambda fs, path: fs.pipe_file(path, bytes(content)))

    def fput(self, filename: str, path: str | os.PathLike[str]) -> FileStat:
        """Write what is in a local file.  Raises FileNotFoundError where that is not there."""
        local = os.fspath(path)
        os.stat(local)  # noqa: PTH116 -- before anything is written
        return self._write(filename, lambda fs, path: fs.put_file(local, path))

    def delete(self, filename: str) -> bool:
        """Delete a file; False where there is none."""
        if self._place(filename) is None:
            return False
        name = self._name(filename)
        own = _own()
        with _guard:
            own.moves.append((name, None))
            own.files[name] = None
        return True

    def stat(self, filename: str) -> FileStat:
        """Size and time of a file.  Raises DatasetError where there is none."""
        return _stat(filename, data_store().fs.info(self._found(filename)))

    def fcopy_to(
        self, filename: str, bucket: "Bucket | str", new_name: str | None = None
    ) -> FileStat:
        """Copy a file into another bucket, given by a connector or its name."""
        target = bucket if isinstance(bucket, Bucket) else bucket_at(bucket)
        source = self._found(filename)
        return target._write(new_name or filename, lambda fs, path: fs.cp_file(source, path))

    def _write(self, filename: str, write: Any) -> FileStat:
        name, store = self._name(filename), data_store()
        if "/" not in name:
            raise DatasetError(f"{name!r} names no bucket", f'connect("{ADDRESS}/<bucket>")')
        if store.fs.isdir(store.path(name)):
            raise DatasetError(f"{ADDRESS}/{name} is a folder, so it can't be a file")
        own = _own()
        with _guard:
            own.count += 1
            waiting = store.stage_name(own.job.execution_id, own.job.attempt, own.count)
        path = store.path(waiting)
        store.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        write(store.fs, path)
        store.keep(waiting)
        with _guard:
            own.moves.append((name, waiting))
            own.files[name] = waiting
        return _stat(filename, store.fs.info(path))

    def _found(self, filename: str) -> str:
        place = self._place(filename)
        if place is None:
            raise DatasetError(f"{ADDRESS}/{self._name(filename)}: there is no such file")
        return place

    def _place(self, filename: str) -> str | None:
        name, store = self._name(filename), data_store()
        own = _own()
        if name in own.files:
            waiting = own.files[name]
            return None if waiting is None else store.path(waiting)
        store.fs.invalidate_cache()
        path = store.path(name)
        return path if store.fs.isfile(path) else None

    def _name(self, filename: str) -> str:
        name = posixpath.join(self.bucket, filename) if self.bucket else filename
        parts = name.split("/")
        if "\0" in name or ".." in parts or STAGE in parts[:1] or filename.startswith("/"):
            raise DatasetError(f"{filename!r} can't be a file's name in {ADDRESS}/{self.bucket}")
        return name if not filename else posixpath.normpath(name)


def bucket_at(path: str) -> Bucket:
    """The bucket of an address, `data_store`, `data_store/<bucket>` or `<bucket>`."""
    parts = [part for part in str(path).split("/") if part]
    if parts and parts[0] == ADDRESS:
        parts = parts[1:]
    bucket = "/".join(parts)
    if len(parts) > 1 or bucket.startswith("."):
        raise DatasetError(f'connect({path!r}): the address must be "{ADDRESS}/<bucket>"')
    running_job()
    return Bucket(bucket)


def owed(job: Claim) -> list[file_moves.Owed]:
    """What is to become of the files that the job has written, once it is committed."""
    return list(_written.moves) if _written is not None and _written.job is job else []


def land(conn: psycopg.Connection, job: Claim) -> None:
    """Bring the files of a job that has just been committed to their names; never raises.

    `conn` commits by itself.  What does not come about is left to the watch.
    """
    if not _of(job):
        return
    try:
        with conn.transaction():
            moves = file_moves.take(conn, job.execution_id)
            whole = land_moves(conn, moves)
    except psycopg.Error:
        return  # the notes stand; the watch finds them
    if whole:
        _remove(job)


def discard(job: Claim) -> None:
    """Remove what an attempt has written and that was rolled back for certain, or has landed.

    Where its rows are elsewhere, and its end is not here, the next attempt brings the files in.
    """
    if not job.committed_elsewhere:
        _remove(job)


def _remove(job: Claim) -> None:
    if _of(job):
        with contextlib.suppress(Exception):  # the watch sweeps
            data_store().discard(job.execution_id, job.attempt)


def _of(job: Claim) -> bool:
    return _written is not None and _written.job is job and bool(_written.files)


def _own() -> _Written:
    global _written  # noqa: PLW0603 -- a process runs one job at a time, its threads share it
    job = running_job()
    with _guard:
        if _written is None or _written.job is not job:
            _written = _Written(job)
        return _written


def _stat(name: str, info: dict[str, Any]) -> FileStat:
    at = info.get("mtime") or info.get("LastModified") or info.get("created")
    if isinstance(at, int | float):
        at = datetime.fromtimestamp(at, UTC)
    if isinstance(at, datetime) and at.tzinfo is not None:
        at = at.astimezone(UTC)
    return FileStat(name, int(info.get("size") or 0), at)
