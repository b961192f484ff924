"""One job: claim, load, call, keep the result.

The handler's rows, the job's log and its SUCCESS are one transaction.  Whatever raises, or loses
the claim, leaves nothing of it behind.
"""

import contextlib
import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import UUID

import orjson
import psycopg
from celery import Task
from celery.exceptions import Ignore
from redis import RedisError

import worker.lakehouse  # noqa: F401 -- pandas and all, once, before the fork: its memory is shared
from worker import broker
from worker.broker import celery
from worker.errors import ClaimLost, DpeError
from worker.load import Action, load, settings_of
from worker.logs import NOTICE, JobLog
from worker.settings import current_settings
from worker.slots import Slots
from worker.store import claims
from worker.store.database import connect
from worker.store.publishing import Message

logger = logging.getLogger("worker.run")


@dataclass(slots=True)
class Child:
    """The process that jobs run in: set once, right after the fork."""

    worker_id: UUID
    index: int
    slots: Slots
    folder: Path  # where actions' files are laid out
    jobs_taken: int = 0
    log: JobLog | None = None  # of the running job
    record: psycopg.Connection | None = None  # autocommit: claims and live log lines
    conn: psycopg.Connection | None = None  # the jobs' transactions
    rest: deque[tuple[str, str]] = field(default_factory=deque)  # of the message under way
    send_event: Callable[..., None] | None = None  # to those who watch: Flower


child: Child | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What a handler is called with.

    `content` is the decoded JSON body (None: there was none).  `execution_id` stays the same over
    all attempts of a job: it is the token to give to a service that must do a thing only once.
    """

    type: str
    content: Any
    execution_id: str
    attempt: int


class InsertFailed(DpeError):
    """A bulk_insert of this job failed, and the handler went on as if it had not."""


class JobFailed(Exception):
    """How a failed job's end reaches Celery, so that Flower shows it; the record has it all."""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, for those who watch."""

    status: str
    error: str = ""


@celery.task(name="run", bind=True, ignore_result=True, throws=(JobFailed,))
def run(self: Task, *others: list[str]) -> None:
    """The one task.  Its id is the execution id of its (first) job.

    `others`, (execution id, action's name) each, are further jobs of the same message.  Each has
    its own transaction, status and log.  They are run after the first; where that takes long they
    go back to the broker, so that a slow job holds up nobody.
    """
    this = _this_process()
    if not others:
        _tell_celery(execute(this, UUID(self.request.id)))
        return
    this.rest.extend((id, name) for id, name in others)
    timer = threading.Timer(HOLD_UP_S, hand_back, [this.rest])
    timer.start()
    try:
        first = execute(this, UUID(self.request.id))
        while this.rest:
            with contextlib.suppress(IndexError):  # the timer was quicker
                id, name = this.rest.popleft()
                _run_watched(this, id, name)
    finally:
        timer.cancel()
        hand_back(this.rest)
    _tell_celery(first)


HOLD_UP_S = 0.1


def hand_back(rest: deque[tuple[str, str]]) -> None:
    """Publish again what is left of a message, each job by itself."""
    messages = []
    while rest:
        with contextlib.suppress(IndexError):
            id, name = rest.popleft()
            messages.append(Message(UUID(id), name, datetime.now(UTC)))
    with contextlib.suppress(RedisError):  # then the watch finds them
        broker.publish(messages)


def _tell_celery(end: End | None) -> None:
    if end is None:
        raise Ignore  # whoever has it, or ended it, tells of it
    if end.status != "SUCCESS":
        raise JobFailed(end.error)


def _run_watched(this: Child, id: str, name: str) -> None:
    """Run a job that came with another's message, and send the events that Celery would send."""
    send = this.send_event or (lambda *_, **__: None)
    send("task-received", uuid=id, name=name, args="()", kwargs="{}", root_id=id, retries=0)
    send("task-started", uuid=id)
    began = time.monotonic()
    end = execute(this, UUID(id))
    if end is None:
        return
    if end.status == "SUCCESS":
        send("task-succeeded", uuid=id, result="None", runtime=time.monotonic() - began)
    else:
        send("task-failed", uuid=id, exception=f"JobFailed({end.error!r})", traceback="")


def execute(this: Child, execution_id: UUID) -> End | None:
    """Run one attempt of a job to its end; None: it was not ours to run (any more)."""
    job = _claim(this, execution_id)
    if job is None:
        return None  # another has it, it has ended, or this worker must not claim now
    this.slots.take(this.index, job.execution_id, job.attempt)
    this.jobs_taken += 1
    claims.running = job
    try:
        return _attempt(this, job)
    except ClaimLost as lost:
        logger.warning("%s", lost)
    except psycopg.OperationalError:
        # Postgres went away under the job.  The supervisor sees that the claim has no process
        # any more and puts the job back in line; where the commit had come through, it has ended.
        logger.warning("the database went away under job %s", execution_id, exc_info=True)
        _drop_connections(this)
    finally:
        claims.running = this.log = None
        this.slots.release(this.index)
    return None


def _attempt(this: Child, job: claims.Claim) -> End:
    with JobLog(logging.INFO, lambda part, lines: _store_log(this, job, part, lines)) as log:
        this.log, began, action = log, time.monotonic(), None
        try:
            # Not on the job's connection: its transaction begins with the handler's first
            # statement, so a long handler holds no lock on the engine's tables.
            record, _ = _connections(this)
            action = load(record, job.action_id, job.version, this.folder)
            log.begin(action.log_level, f'"{job.name}" BEGIN (custom) action.')
            result = _call(action, job)
            encoded = _encoded(result, log)
            log.add(NOTICE, "dpe", _end_line(job, began))
            claims.succeed(job, encoded, log.last_part())
            return End("SUCCESS")
        except ClaimLost:
            raise
        except BaseException as error:
            if job.conn.closed:
                # Whatever the handler made of it, the cause is the lost connection.
                raise psycopg.OperationalError("the job's connection is closed") from error
            end = _fail(action, job, error, log, began)
            if not isinstance(error, (Exception, SystemExit)):
                raise  # KeyboardInterrupt and the like are meant for the worker as well
            return end


def _call(action: Action, job: claims.Claim) -> Any:
    context = {
        "execution_id": str(job.execution_id),
        "action_id": job.action_id,
        "action_version": job.version,
        "attempt": job.attempt,
        "dataplant_id": "open-dpe",
    }
    with settings_of(action, context):
        handler = action.handler()
        result = handler(Event(job.event_type, _content(job), str(job.execution_id), job.attempt))
    if job.insert_errors and not action.keeps_on_insert_error:
        raise InsertFailed("; ".join(job.insert_errors))
    return result


def _content(job: claims.Claim) -> Any:
    return None if job.event is None else orjson.loads(job.event)


def _fail(
    action: Action | None, job: claims.Claim, error: BaseException, log: JobLog, began: float
) -> End:
    trace = _trace(error)
    log.add(logging.ERROR, "dpe", trace)
    log.add(NOTICE, "dpe", _end_line(job, began))
    text = str(error) or repr(error)
    if isinstance(error, DpeError) and error.hint:
        text += f" ({error.hint})"
    kept = {"type": _kind(error), "message": text, "traceback": trace}
    pause_s = action.retry.pause_s(error, job.failures + 1) if action else None
    if pause_s is None:
        claims.fail(job, kept, log.last_part())
        return End("FAILED", text)
    log.add(NOTICE, "dpe", f'"{job.name}" is tried again in {pause_s:.1f} s')
    claims.fail_for_now(job, kept, pause_s, log.last_part())
    return End("RETRY", text)


def _trace(error: BaseException) -> str:
    """The traceback from the handler's first line on; our own frames above it say nothing."""
    frames = traceback.TracebackException.from_exception(error)
    frames.stack = _from_the_handler_on(frames.stack)
    return "".join(frames.format()).strip().replace("\0", "�")


def _from_the_handler_on(stack: traceback.StackSummary) -> traceback.StackSummary:
    for at, frame in enumerate(stack):
        if f"{os.sep}action_" in frame.filename:
            return traceback.StackSummary.from_list(stack[at:])
    return stack


def _kind(error: BaseException) -> str:
    module = type(error).__module__
    name = type(error).__qualname__
    return (
        name
        if module == "builtins" or module.startswith(("worker.", "action_"))
        else f"{module}.{name}"
    )


def _end_line(job: claims.Claim, began: float) -> str:
    return f'"{job.name}" END (custom) action. Duration: {time.monotonic() - began:.3f} sec'


def _encoded(result: Any, log: JobLog) -> bytes | None:
    if result is None:
        return None
    try:
        return orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        log.add(
            logging.WARNING,
            "dpe",
            f"the result is no JSON ({type(result).__name__}): its text is kept",
        )
        return orjson.dumps(repr(result)[:10_000].encode("utf-8", "replace").decode())


def _claim(this: Child, execution_id: UUID) -> claims.Claim | None:
    """Claim, and where Postgres is away wait for it: the message is in this process' hands."""
    while True:
        try:
            record, conn = _connections(this)
            return claims.claim(record, conn, execution_id, this.worker_id, os.getpid())
        except psycopg.OperationalError as error:
            logger.warning("waiting for the database: %s", error)
            _drop_connections(this)
            time.sleep(0.3)


def _connections(this: Child) -> tuple[psycopg.Connection, psycopg.Connection]:
    """The two connections of a child: for claims and live log lines, and for the jobs' rows."""
    if this.record is None or this.record.closed:
        this.record = connect(current_settings().database(), "dpe-record")
        # A claim or a log line may be lost in a crash of Postgres: it ends the attempt as well,
        # and the job is claimed anew.  So neither waits for the disk.
        this.record.execute("SET synchronous_commit = off")
    if this.conn is None or this.conn.closed:
        name = claims.session_name(this.worker_id, os.getpid())
        this.conn = connect(current_settings().database(), name, autocommit=False)
        # A statement whose client is gone must not go on, nor keep its locks.
        this.conn.execute("SET client_connection_check_interval = '500ms'")
        this.conn.commit()
    return this.record, this.conn


def _store_log(this: Child, job: claims.Claim, part: int, lines: bytes) -> None:
    if this.record is not None:
        claims.add_log(this.record, job, part, lines)


def show_where_and_exit(_number: int, frame: FrameType | None) -> None:
    """End this process, whose job is no longer its own (stopped, timed out); its rows roll back.

    Before, note in the job's log where the handler was: that is what its author wants to know.
    """
    this = _this_process()
    with contextlib.suppress(Exception):
        if this.log is not None:
            where = "".join(_from_the_handler_on(traceback.extract_stack(frame)).format())
            this.log.add(logging.WARNING, "dpe", f"ended from outside while it was here:\n{where}")
            this.log.flush_live()
    os._exit(0)


def _drop_connections(this: Child) -> None:
    for conn in (this.conn, this.record):
        if conn is not None:
            conn.close()
    this.conn = this.record = None


def _this_process() -> Child:
    if child is None:
        raise RuntimeError("this process was not forked by `dpe worker`")
    return child
