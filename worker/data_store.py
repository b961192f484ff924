"""Where buckets are: a folder, or any store that fsspec knows (S3 and its kin).

A job's file is first written under `.dpe/`, beside all buckets, and moved to its name once the job
is committed.  What is owed stands in Postgres (`worker.store.file_moves`): so a process that dies
in between leaves it to the watch, and a file that was moved already is not moved again.
"""

import logging
import os
from contextlib import suppress
from functools import cache
from typing import Any
from uuid import UUID

import fsspec
import psycopg
from fsspec.core import url_to_fs

from worker.settings import current_settings
from worker.store import file_moves
from worker.store.file_moves import Move

logger = logging.getLogger("worker.data_store")

STAGE = ".dpe"
BATCH = 100


class DataStore:
    """One store; names are `bucket/name`, with slashes on every system."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = url
        self.fs: fsspec.AbstractFileSystem
        self.fs, root = url_to_fs(url, **options)
        self.root = root.rstrip("/")
        self.is_local = "file" in (
            self.fs.protocol if isinstance(self.fs.protocol, tuple) else [self.fs.protocol]
        )

    def path(self, name: str) -> str:
        """Where a name lies in the store."""
        return f"{self.root}/{name}"

    def stage_name(self, execution_id: UUID, attempt: int, number: int) -> str:
        """The name under which a job's file number `number` waits."""
        return f"{STAGE}/{execution_id}.{attempt}/{number}"

    def keep(self, name: str) -> None:
        """See that what was written there survives the machine's fall."""
        if self.is_local:
            for path in (self.path(name), os.path.dirname(self.path(name))):  # noqa: PTH120
                handle = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def land(self, move: Move) -> None:
        """Bring a file to its name, or delete it; nothing where that was done before."""
        target = self.path(move.target)
        if move.source is None:
            with suppress(FileNotFoundError):
                self.fs.rm_file(target)
            return
        source = self.path(move.source)
        self.fs.invalidate_cache()
        if not self.fs.exists(source):
            return  # moved, by a process that died before it could say so
        self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        if self.is_local:
            os.replace(source, target)  # noqa: PTH105 -- in one step, and what was there is gone
        else:
            self.fs.mv(source, target)

    def discard(self, execution_id: UUID, attempt: int) -> None:
        """Remove what an attempt has written and nobody will want."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.path(f"{STAGE}/{execution_id}.{attempt}"), recursive=True)

    def staged(self) -> list[tuple[UUID, int]]:
        """The attempts that files wait for, or have waited for."""
        self.fs.invalidate_cache()
        try:
            names = self.fs.ls(self.path(STAGE), detail=False)
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            id, _, attempt = name.rstrip("/").rpartition("/")[2].partition(".")
            with suppress(ValueError):
                found.append((UUID(id), int(attempt)))
        return found


def data_store() -> DataStore:
    """The store of the settings: DPE_DATA_STORE, else a folder under DPE_HOME."""
    return _of_process(os.getpid())  # what holds connections must not be shared over a fork (F20)


@cache
def _of_process(_: int) -> DataStore:
    settings = current_settings()
    url = settings.data_store or str(settings.home / "data_store")
    return DataStore(url, settings.data_store_options)


def land(conn: psycopg.Connection, moves: list[Move]) -> bool:
    """Do moves that were taken, in order; whether all came about.  Those that don't stay owed."""
    stuck: set[str] = set()
    for move in moves:
        if move.target in stuck:
            continue  # else an older file would come after a newer one
        try:
            data_store().land(move)
        except Exception as error:  # whatever a store may raise
            logger.warning("%s could not be moved to its place: %s", move.target, error)
            file_moves.failed(conn, move, f"{type(error).__name__}: {error}")
            stuck.add(move.target)
        else:
            file_moves.done(conn, move)
    return not stuck


def land_left(conn: psycopg.Connection) -> int:
    """Do what the jobs' own processes left undone; return how much there was.  Commits."""
    with conn.transaction():
        moves = file_moves.take_left(conn, BATCH)
        if moves:
            land(conn, moves)
    return len(moves)


def sweep(conn: psycopg.Connection) -> int:
    """Remove what lost attempts have written; return of how many."""
    try:
        store = data_store()
        gone = file_moves.unneeded(conn, store.staged())
        for execution_id, attempt in gone:
            store.discard(execution_id, attempt)
    except psycopg.Error:
        raise
    except Exception as error:  # whatever a store may raise; the next round tries again
        logger.warning("the data store can't be swept: %s", error)
        return 0
    return len(gone)
