"""The process that jobs run in: what it holds, and its two connections to Postgres."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg

from worker.events import JobEvents
from worker.lead import Lead
from worker.logs import JobLog
from worker.settings import current_settings
from worker.slots import Slots
from worker.store import claims
from worker.store.database import connect
from worker.store.ending import JobConnection

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, see getrusage(2)


@dataclass(slots=True)
class Child:
    """One forked process; its connections are opened by its first job, never before (F20)."""

    worker_id: UUID
    index: int
    slots: Slots
    folder: Path  # where actions' files are laid out
    events: JobEvents
    lead: Lead
    jobs_taken: int = 0
    slow_bundles: int = 0  # how many in a row have been, see `worker.run`
    has_next: bool = False  # the next job is in hand
    log: JobLog | None = None  # of the running job
    record: psycopg.Connection | None = None  # autocommit: claims and live log lines
    conn: psycopg.Connection | None = None  # the jobs' transactions

    def connections(self) -> tuple[psycopg.Connection, psycopg.Connection]:
        """The two connections of a child: for claims and live log lines, and for the jobs' rows."""
        if self.record is None or self.record.closed:
            name = claims.session_name(self.worker_id, os.getpid(), "record")
            self.record = connect(current_settings().database(), name)
            # A claim or a log line may be lost in a crash of Postgres: it ends the attempt as well,
            # and the job is claimed anew.  So neither waits for the disk.
            self.record.execute("SET synchronous_commit = off")
        if self.conn is None or self.conn.closed:
            name = claims.session_name(self.worker_id, os.getpid())
            self.conn = connect(
                current_settings().database(), name, autocommit=False, kind=JobConnection
            )
            # A statement whose client is gone must not go on, nor keep its locks.
            self.conn.execute("SET client_connection_check_interval = '500ms'")
            self.conn.commit()
        return self.record, self.conn

    @property
    def is_cut_off(self) -> bool:
        """Whether the record was lost since it was asked last."""
        return self.record is None or self.record.closed

    def disconnect(self) -> None:
        """Drop both: the next job opens new ones.  An end that waits is sent, where that works."""
        if isinstance(self.conn, JobConnection) and not self.conn.closed:
            self.conn.send_end()
        for conn in (self.conn, self.record):
            if conn is not None:
                conn.close()
        self.conn = self.record = None

    def is_worn(self) -> bool:
        """Whether it has done enough, and is to be replaced by a fresh one (F13)."""
        settings = current_settings()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
        return self.jobs_taken >= settings.max_jobs_per_child or peak > settings.max_child_bytes

    def store_log(self, job: claims.Claim, part: int, lines: bytes) -> None:
        """Keep log lines of the running job."""
        if self.record is not None:
            claims.add_log(self.record, job, part, lines)


_this: Child | None = None


def become(child: Child) -> None:
    """Say what this process is; once, right after the fork."""
    global _this  # noqa: PLW0603 -- there is one, and Celery calls us without arguments
    _this = child


def this_process() -> Child:
    """What this process is; raises RuntimeError where it was not forked by `dpe worker`."""
    if _this is None:
        raise RuntimeError("this process was not forked by `dpe worker`")
    return _this
