"""One attempt of one job: claim, load, call, keep the result.

The handler's rows, the job's log and its SUCCESS are one transaction.  Whatever raises, or loses
the claim, leaves nothing of it behind.
"""

import contextlib
import logging
import os
import time
import traceback
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from uuid import UUID

import orjson
import psycopg
from redis import RedisError

import worker.lakehouse  # noqa: F401 -- pandas and all, once, before the fork: its memory is shared
from worker import broker, elsewhere, environments, pandas_texts
from worker.child import Child, this_process
from worker.content import decoded
from worker.described import described, from_the_handler_on
from worker.errors import ClaimLost, DpeError
from worker.hand_back import hand_back
from worker.lakehouse import buckets, other_servers
from worker.load import Action, load, settings_of
from worker.logs import NOTICE, JobLog
from worker.masking import masked, masked_json
from worker.memory import limited
from worker.store import claims, ending, jobs, turns
from worker.store.publishing import Message
from worker.store.retry import is_outage, outage_pause_s
from worker.store.workflow_steps import Given
from worker.store.workflow_steps import given as given_to

logger = logging.getLogger("worker.attempt")

pandas_texts.keep_as_objects()  # in all processes that call handlers


@dataclass(frozen=True, slots=True)
class Event:
    """What a handler is called with.

    `content` is the decoded JSON body (None: there was none).  `execution_id` stays the same over
    all attempts of a job: it is the token to give to a service that must do a thing only once.
    In a workflow, `results` has what the steps before returned, by their names, and `item` what
    the step is done for, of those that its `for_each` goes over.
    """

    type: str
    content: Any
    execution_id: str
    attempt: int
    results: dict[str, Any] = field(default_factory=dict)
    item: Any = None


class InsertFailed(DpeError):
    """A bulk_insert of this job failed, and the handler went on as if it had not."""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, for those who watch; None: it was lost."""

    status: str | None
    error: str = ""
    waits: bool = False  # to be sent with the next job's first statement


def execute(this: Child, execution_id: UUID, job: claims.Claim | None = None) -> None:
    """Run one attempt of a job to its end, unless it is not ours to run (any more).

    `job` is its claim, where it has been made before.
    """
    if job is not None:
        job.began = time.monotonic()
    elif (job := _claim(this, execution_id)) is None:
        return  # another has it, it has ended, or this worker must not claim now
    this.slots.take(this.index, job.execution_id, job.attempt)
    this.jobs_taken += 1
    claims.running = job
    this.events.begin(job.execution_id, job.name)
    end = End(None)
    try:
        _, job.conn = this.connections()  # that of an earlier claim may have been lost since
        end = carry_out(this, job)
    except ClaimLost as lost:
        logger.warning("%s", lost)
    except psycopg.OperationalError:
        # Postgres went away under the job.  The supervisor sees that the claim has no process
        # any more and puts the job back in line; where the commit had come through, it has ended.
        logger.warning("the database went away under job %s", execution_id, exc_info=True)
        this.disconnect()
    finally:
        claims.running = this.log = None
        this.slots.release(this.index)
        if not end.waits:
            this.events.end(end.status, end.error)
    if end.status is not None and job.max_running is not None:
        _let_next_in(this, job.action_id)


def _let_next_in(this: Child, action_id: str) -> None:
    """Publish the job whose turn it is now; where this fails, the watch does it."""
    try:
        record, _ = this.connections()
        broker.publish(turns.let_in(record, action_id))
    except (psycopg.Error, RedisError) as error:
        logger.warning("the watch will see whose turn it is: %s", str(error).strip())


def carry_out(this: Child, job: claims.Claim, part: int = 1) -> End:
    """Run a claimed attempt, its log beginning with this part; raises ClaimLost."""
    with JobLog(logging.INFO, lambda part, lines: this.store_log(job, part, lines), part) as log:
        this.log, began, action = log, time.monotonic(), None
        try:
            # Not on the job's connection: its transaction begins with the handler's first
            # statement, so a long handler holds no lock on the engine's tables.
            record, _ = this.connections()
            given = given_to(record, job.run_id, job.step) if job.run_id and job.step else None
            action = load(record, job.action_id, job.version, this.folder, given)
            if action.requirements != environments.here:
                return End(*elsewhere.carry_out(this, job, action.requirements, log))
            log.begin(action.log_level, f'"{job.name}" BEGIN (custom) action.')
            result_json = _result(record, action, job, given, log)
            log.add(NOTICE, "dpe", end_line(job, began))
            if this.has_next and _ends_later(this, job, result_json, log):
                return End("SUCCESS", waits=True)
            following = ending.succeed(job, result_json, log.last_part())
            buckets.land(record, job)
            _hand_on(record, following)
            return End("SUCCESS")
        except ClaimLost:
            buckets.discard(job)
            raise
        except BaseException as error:
            if job.conn.closed or this.is_cut_off:
                # Whatever the handler made of it, the cause is the lost connection.
                raise psycopg.OperationalError("a connection of the job is closed") from error
            end = _fail(this, action, job, error, log, began)
            if not isinstance(error, (Exception, SystemExit)):
                raise  # KeyboardInterrupt and the like are meant for the worker as well
            return end
        finally:
            other_servers.release(job)


def _result(
    record: psycopg.Connection, action: Action, job: claims.Claim, given: Given | None, log: JobLog
) -> bytes | None:
    """Call the handler, and commit what it wrote on another server; the result, as JSON.

    Where an earlier attempt had come so far before it was lost, take over its result.
    """
    before = other_servers.committed_before(record, job)
    if before is None:
        result = encoded(call(action, job, given), log)
        other_servers.commit(record, job, result, buckets.owed(job))
        return result
    log.add(NOTICE, "dpe", f"attempt {before.attempt} had committed its rows: the job ends with it")
    job.stats[:] = before.stats
    return None if before.result is None else before.result.encode()


def _ends_later(this: Child, job: claims.Claim, result: bytes | None, log: JobLog) -> bool:
    """Let the job's end go to Postgres with the next job's first statement, where it can wait."""
    tell = this.events.ending()

    def told(error: psycopg.Error | None) -> None:
        if error is None:
            tell("SUCCESS")
            return
        tell(None)
        logger.warning("the end of job %s did not stand: %s", job.execution_id, error)
        if not isinstance(error, psycopg.OperationalError):
            # By itself it is told why; where another owns it by now, this does nothing.
            hand_back(this, [job])

    return not buckets.owed(job) and ending.succeed_later(job, result, log.last_part(), told)


def _hand_on(record: psycopg.Connection, following: list[Message]) -> None:
    """Publish what the end of a step has started; it is committed, so it runs in any case."""
    try:
        broker.publish(following)
    except RedisError:
        with contextlib.suppress(psycopg.Error):  # then the watch finds them a little later
            jobs.unpublished(record, [message.execution_id for message in following])


def call(action: Action, job: claims.Claim, given: Given | None) -> Any:
    """Import the handler, call it with its event, return what it returns; raises what it raises."""
    job.quarantines = action.quarantines
    event = job.event if given is None else given.event
    context = {
        "execution_id": str(job.execution_id),
        "action_id": job.action_id,
        "action_version": job.version,
        "attempt": job.attempt,
        "dataplant_id": "open-dpe",
    }
    if given is not None:
        context |= {"workflow_id": given.workflow_id, "run_id": str(job.run_id), "step": job.step}
    with settings_of(action, context), limited(action.max_memory):
        handler = action.handler()
        result = handler(
            Event(
                job.event_type,
                None if event is None else decoded(event),
                str(job.execution_id),
                job.attempt,
                {} if given is None else given.results,
                job.item,
            )
        )
    if job.insert_errors and not action.keeps_on_insert_error:
        raise InsertFailed("; ".join(job.insert_errors))
    return result


def _fail(
    this: Child,
    action: Action | None,
    job: claims.Claim,
    error: BaseException,
    log: JobLog,
    began: float,
) -> End:
    kept = described(error)
    text = kept["message"]
    log.add(logging.ERROR, "dpe", kept["traceback"])
    log.add(NOTICE, "dpe", end_line(job, began))
    pause_s = action.retry.pause_s(error, job.failures + 1) if action else None
    if pause_s is None and (job.met_outage or is_outage(error) or other_servers.lost_server(job)):
        pause_s = outage_pause_s(job.failures)
    if isinstance(error, other_servers.Undecided) or job.committed_elsewhere:
        pause_s = other_servers.UNDECIDED_PAUSE_S  # the rows may be there: it can't fail any more
    if pause_s is None:
        following = ending.fail(job, kept, log.last_part())
        buckets.discard(job)
        _hand_on(this.connections()[0], following)
        return End("FAILED", text)
    log.add(NOTICE, "dpe", f'"{job.name}" is tried again in {pause_s:.1f} s')
    ending.fail_for_now(job, kept, pause_s, log.last_part())
    buckets.discard(job)
    return End("RETRY", text)


def end_line(job: claims.Claim, began: float) -> str:
    """The last line of a job's log; `began` is of time.monotonic()."""
    return f'"{job.name}" END (custom) action. Duration: {time.monotonic() - began:.3f} sec'


def encoded(result: Any, log: JobLog) -> bytes | None:
    """A result as JSON, or its text where it is none."""
    if result is None:
        return None
    try:
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        return masked_json(orjson.dumps(result, option=options))
    except TypeError:
        log.add(
            logging.WARNING,
            "dpe",
            f"the result is no JSON ({type(result).__name__}): its text is kept",
        )
        return orjson.dumps(masked(repr(result))[:10_000].encode("utf-8", "replace").decode())


def _claim(this: Child, execution_id: UUID) -> claims.Claim | None:
    """Claim, and where Postgres is away wait for it: the message is in this process' hands."""
    while True:
        try:
            record, conn = this.connections()
            return claims.claim(record, conn, execution_id, this.worker_id, os.getpid())
        except psycopg.OperationalError as error:
            logger.warning("waiting for the database: %s", error)
            this.disconnect()
            time.sleep(0.3)


def show_where_and_exit(_number: int, frame: FrameType | None) -> None:
    """End this process, whose job is no longer its own (stopped, timed out); its rows roll back.

    Before, note in the job's log where the handler was: that is what its author wants to know.
    """
    this = this_process()
    with contextlib.suppress(Exception):
        elsewhere.show_where()
        if this.log is not None:
            where = "".join(from_the_handler_on(traceback.extract_stack(frame)).format())
            this.log.add(logging.WARNING, "dpe", f"ended from outside while it was here:\n{where}")
            this.log.flush_live()
    os._exit(0)
