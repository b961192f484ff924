"""One run of a handler whose rows are looked at and then rolled back: `dpe action test`.

A process of its own: `python -m worker.rehearsal` reads `{"files": {path: base64}, "event": …}`
from stdin, the event being JSON text or null, and writes what came of it to stdout.  All happens in
one transaction that never commits, even the push of the action.
"""

import base64
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import psycopg

from worker import environments, logs
from worker.attempt import call, encoded, end_line
from worker.described import described
from worker.errors import DpeError
from worker.lakehouse import buckets, other_servers
from worker.load import load
from worker.logs import NOTICE, JobLog
from worker.settings import current_settings
from worker.store import actions, claims, row_changes
from worker.store.database import connect
from worker.store.requirements import requirements_of

INSIDE = "inside"  # said to the process that has the packages


def rehearse(database_url: str, files: dict[str, bytes], event: str | None) -> dict[str, Any]:
    """Run an action's handler on an event (JSON text), roll it back, and tell what it has done.

    The outcome has status, error, result, duration (seconds), log, stats, tables (the changed rows
    of each, as `row_changes` has them) and files.  Raises Invalid for files that are no action.
    """
    with (
        tempfile.TemporaryDirectory(prefix="dpe-actions-") as folder,
        connect(database_url, "dpe-rehearsal", autocommit=False) as conn,
        row_changes.beside(conn, database_url) as other,
        _job(conn, files, event) as job,
    ):
        kept: list[dict[str, str]] = []
        with JobLog(logging.INFO, lambda _, lines: kept.extend(orjson.loads(lines))) as log:
            outcome = _run(job, Path(folder), log)
        changed = written = []
        if outcome["status"] == "SUCCESS":  # what failed leaves nothing
            changed = [asdict(table) for table in row_changes.changes(conn, other)]
            written = _files(job)
        return {
            **outcome,
            "log": kept + orjson.loads(log.last_part()[1]),
            "stats": job.stats,
            "tables": changed,
            "files": written,
        }


@contextlib.contextmanager
def _job(
    conn: psycopg.Connection, files: dict[str, bytes], event: str | None
) -> Iterator[claims.Claim]:
    action = actions.push(conn, None, files)
    job = claims.Claim(
        execution_id=uuid4(),
        attempt=1,
        action_id=action.id,
        version=action.version,
        name=action.name,
        event=event,
        event_type="manual",
        failures=0,
        run_id=None,
        step=None,
        item=None,
        conn=conn,
    )
    claims.running = job
    try:
        yield job
    finally:
        claims.running = None
        other_servers.release(job)
        conn.rollback()
        buckets.discard(job)


def _run(job: claims.Claim, folder: Path, log: JobLog) -> dict[str, Any]:
    result, error, began = None, None, time.monotonic()
    try:
        action = load(job.conn, job.action_id, job.version, folder)
        log.begin(action.log_level, f'"{job.name}" BEGIN (custom) action.')
        result = encoded(call(action, job, None), log)
    except (Exception, SystemExit) as raised:
        error = described(raised)
        log.add(logging.ERROR, "dpe", error["traceback"])
    log.add(NOTICE, "dpe", end_line(job, began))
    return {
        "status": "FAILED" if error else "SUCCESS",
        "error": error,
        "result": None if result is None else orjson.loads(result),
        "duration": time.monotonic() - began,
    }


def _files(job: claims.Claim) -> list[dict[str, str]]:
    return [
        {"file": target, "what": "deleted" if source is None else "written"}
        for target, source in buckets.owed(job)
    ]


def main() -> None:
    """Read what is asked from stdin, answer on stdout, which the handler can't reach."""
    answer = os.dup(1)
    os.dup2(2, 1)
    given = sys.stdin.buffer.read()
    asked = orjson.loads(given)
    files = {path: base64.b64decode(text) for path, text in asked["files"].items()}
    logs.install()
    try:
        requirements = requirements_of(actions.read_config(files))
        if requirements and INSIDE not in sys.argv:
            words, environ = environments.command(requirements, "worker.rehearsal")
            with environments.used(requirements):
                done = subprocess.run(  # noqa: S603 -- our own module
                    [*words, INSIDE], check=False, input=given, stdout=answer, env=environ
                )
            sys.exit(done.returncode)
        outcome = rehearse(current_settings().database(), files, asked["event"])
    except DpeError as error:
        outcome = {"refused": str(error), "hint": error.hint}
    except psycopg.OperationalError as error:
        outcome = {"refused": f"the database does not answer: {error}", "hint": "run `dpe up`"}
    with os.fdopen(answer, "wb") as out:
        out.write(orjson.dumps(outcome, default=str))


if __name__ == "__main__":
    main()
