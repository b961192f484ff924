"""How the end of an attempt gets to Postgres: at once, or with the first statement of the next job.

A child that is behind has its next job in hand when one ends.  Then the end waits for that job's
first statement, and both go in one query: a round trip less, of three.  Each job keeps a
transaction and a commit of its own, and none is held up: where the next job asks Postgres nothing,
`worker.bundle` sends what waits.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import Escaping, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from worker.errors import ClaimLost
from worker.store import workflow_runs
from worker.store.claims import Claim
from worker.store.publishing import Message

RV = TypeVar("RV")

NO_OWNER = "DP001"  # what `dpe.end_attempt` says to whoever lost the claim
_FINE = {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}


@dataclass(frozen=True, slots=True)
class End:
    """The call of `dpe.end_attempt` that ends one attempt.

    `values` are its arguments but the last, as Postgres reads them; None is NULL.
    """

    values: Sequence[bytes | None]
    at: float  # when the attempt ended, of time.monotonic()

    def text(self, conn: psycopg.Connection, *, commit: bool) -> tuple[bytes, int]:
        """The statements for the connection's transaction, and how many they are."""
        escape = Escaping(conn.pgconn).escape_literal
        written = [b"NULL" if value is None else bytes(escape(value)) for value in self.values]
        written.append(b"%f" % (time.monotonic() - self.at))
        call = b"SELECT dpe.end_attempt(%b);" % b",".join(written)
        is_idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
        parts = [b"BEGIN;"] * is_idle + [call] + [b"COMMIT;"] * commit
        return b"".join(parts), len(parts)


class JobConnection(psycopg.Connection[TupleRow]):
    """The connection of a child's jobs, one after the other, where the end of one may wait.

    Whatever is asked of it next, the end goes first: all that psycopg does comes through `wait`.
    """

    _waiting: tuple[End, Callable[[psycopg.Error | None], None]] | None = None

    def end_later(self, end: End, told: Callable[[psycopg.Error | None], None]) -> None:
        """Let the end of the running transaction's job wait; `told` is called when it is committed.

        With an error where it is not; then the transaction is rolled back, and nothing of it there.
        It is called under the lock of this connection.
        """
        self._waiting = end, told

    def send_end(self, at_least_s: float = 0.0) -> None:
        """Send the end that waits, if it has waited for so long."""
        with self.lock:
            if self._waiting and time.monotonic() - self._waiting[0].at >= at_least_s:
                self.send_end_with(b"")

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if self._waiting is not None:
            self.send_end_with(b"")
        return super().wait(gen, interval, timeout)

    @property
    def has_end(self) -> bool:
        """Whether an end waits: then its transaction is open, and over for whoever comes next."""
        return self._waiting is not None

    def send_end_with(self, following: bytes) -> list[PGresult]:
        """Send the end, and these statements with it; nothing where the end came to nothing.

        Then Postgres has skipped them, and they can be sent by themselves.
        """
        assert self._waiting is not None  # noqa: S101 -- our callers ask
        (end, told), self._waiting = self._waiting, None
        text, parts = end.text(self, commit=True)
        error, results = None, []
        try:
            results = _query(self, text + following)
            error = failure(results[:parts])
            if error is not None and not self.closed:
                _query(self, b"ROLLBACK")
        except psycopg.OperationalError as lost:
            error = lost
        told(error)
        return [] if error else results[parts:]


def query(conn: psycopg.Connection, text: bytes) -> list[PGresult]:
    """Send statements by libpq itself; their results, up to the first failure, which is the last.

    An end that waits goes with them.  Psycopg's own cursor takes twice the processor time, its
    pipeline three times.  The caller has the connection's lock.  Raises psycopg.OperationalError
    where the connection is lost.
    """
    if isinstance(conn, JobConnection) and conn.has_end:
        return conn.send_end_with(text) or _query(conn, text)
    return _query(conn, text)


def is_idle(conn: psycopg.Connection) -> bool:
    """Whether no transaction is open, but that of an end which waits."""
    idle = conn.pgconn.transaction_status == TransactionStatus.IDLE
    return idle or (isinstance(conn, JobConnection) and conn.has_end)


def _query(conn: psycopg.Connection, text: bytes) -> list[PGresult]:
    conn.pgconn.send_query(text)
    return psycopg.Connection.wait(conn, generators.execute(conn.pgconn))


def failure(results: Sequence[PGresult]) -> psycopg.Error | None:
    """What failed of some statements; None: nothing."""
    if results[-1].status in _FINE:
        return None
    return errors.error_from_result(results[-1], encoding="utf-8")


def succeed(job: Claim, result: bytes | None, log: tuple[int, bytes]) -> list[Message]:
    """Write status, result, stats and log into the job's transaction, and commit it.

    `result` is encoded JSON or None; `log` is (part, lines as JSON).  Returns what the end of a
    step has started, to be published.  Raises ClaimLost, and then the transaction is rolled back.
    """
    return _end(job, "SUCCESS", None, result, log)


def succeed_later(
    job: Claim,
    result: bytes | None,
    log: tuple[int, bytes],
    told: Callable[[psycopg.Error | None], None],
) -> bool:
    """As `succeed`, but sent with the next job's first statement; then `told` is called.

    False: this end can't wait, since more than its rows depends on it, and nothing is done.
    """
    conn = job.conn
    if (
        not isinstance(conn, JobConnection)
        or job.run_id is not None
        or job.max_running is not None
        or job.committed_elsewhere
        or conn.pgconn.transaction_status not in {TransactionStatus.IDLE, TransactionStatus.INTRANS}
    ):
        return False
    conn.end_later(_of(job, "SUCCESS", None, result, log), told)
    return True


def fail(job: Claim, error: dict[str, Any], log: tuple[int, bytes]) -> list[Message]:
    """Roll back what the handler wrote, and commit FAILED with its error; else as `succeed`."""
    job.conn.rollback()
    return _end(job, "FAILED", error, None, log)


def fail_for_now(job: Claim, error: dict[str, Any], pause_s: float, log: tuple[int, bytes]) -> None:
    """Roll back what the handler wrote, and put the job back in line, due in `pause_s` seconds.

    The wait stands in Postgres, so it survives any restart.  Raises ClaimLost.
    """
    job.conn.rollback()
    _end(job, "SUBMITTED", error, None, log, pause_s)


def _end(
    job: Claim,
    status: str,
    error: dict[str, Any] | None,
    result: bytes | None,
    log: tuple[int, bytes],
    pause_s: float = 0.0,
) -> list[Message]:
    end = _of(job, status, error, result, log, pause_s)
    try:
        if job.run_id is None or status == "SUBMITTED":
            _send(job, end, commit=True)
            return []
        # What follows in the workflow is committed with this end, or not at all.
        _send(job, end, commit=False)
        messages = workflow_runs.advance(job.conn, [job.run_id], queued=True)
        job.conn.commit()
    except psycopg.Error as failed:
        if failed.sqlstate != NO_OWNER:
            raise
        job.conn.rollback()
        raise ClaimLost(failed.diag.message_primary or NO_OWNER) from None
    return messages


def _send(job: Claim, end: End, *, commit: bool) -> None:
    # A worker that lost its claim stops at the call, which is an error then: so Postgres skips the
    # COMMIT sent with it.
    with job.conn.lock:
        text, _ = end.text(job.conn, commit=commit)
        error = failure(query(job.conn, text))
    if error is not None:
        raise error


def _of(
    job: Claim,
    status: str,
    error: dict[str, Any] | None,
    result: bytes | None,
    log: tuple[int, bytes],
    pause_s: float = 0.0,
) -> End:
    part, lines = log
    now = time.monotonic()
    values = (
        str(job.execution_id).encode(),
        b"%d" % job.attempt,
        status.encode(),
        b"%f" % pause_s,
        None if error is None else orjson.dumps(error, default=str),
        result,
        orjson.dumps(job.stats, default=str) if job.stats else None,
        b"%d" % part,
        lines,
        None if job.began is None else b"%f" % (now - job.began),
    )
    return End(values, now)
