"""Connections to Postgres: a pool for the many threads of the API, one for each worker process."""

import asyncio
import re
import select
from collections.abc import Callable, Iterable, Sequence
from struct import pack
from typing import Any, TypeVar

import psycopg
from psycopg import errors, generators, waiting
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

Row = TypeVar("Row")
RawRow = tuple[bytes | None, ...]

# A dead network must end in an error, not in a wait: libpq's own defaults wait for minutes.
# Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
LIVELY: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}


def connect(
    database_url: str,
    name: str,
    *,
    autocommit: bool = True,
    kind: type[psycopg.Connection] = psycopg.Connection,
) -> psycopg.Connection:
    """Open one connection; `name` is what `pg_stat_activity` shows.

    Times are UTC in every session, so that text and timestamps agree on all hosts.
    """
    return kind.connect(
        database_url,
        autocommit=autocommit,
        application_name=name,
        options="-c timezone=UTC",
        **LIVELY,
    )


class LoopConnection:
    """The connection of an event loop for statements that come over and over.

    It is opened when it is needed, and anew where it is lost.  Its statements are prepared, planned
    once, and sent by libpq itself, and the event loop watches the connection for good: psycopg's
    cursor takes as much processor time as all else that such a request costs this process.
    """

    def __init__(self, database_url: str, name: str) -> None:
        self._database_url = database_url
        self._name = name
        self._conn: psycopg.AsyncConnection[TupleRow] | None = None
        self._fileno = -1
        self._transformer = Transformer()
        self._prepared: dict[bytes, bytes] = {}
        self._ready: asyncio.Future[int] | None = None  # what a statement waits for

    async def rows(
        self,
        statement: bytes,
        values: Sequence[bytes],
        make_row: Callable[..., Row],
        formats: Sequence[Format] | None = None,
    ) -> list[Row]:
        """Run a statement with `$1` and so on; `make_row` gets the columns of each row it returns.

        `values` are as Postgres reads them, as text but where `formats` says otherwise.  For one
        caller at a time.  Raises psycopg.Error.
        """
        result = await self._run(statement, values, formats)
        return self._transformer.load_rows(0, result.ntuples, lambda row: make_row(*row))

    async def raw_rows(self, statement: bytes, values: Sequence[bytes]) -> list[RawRow]:
        """As `rows`, but as Postgres writes them; `load` makes Python's values of one."""
        result = await self._run(statement, values, None)
        value, columns = result.get_value, range(result.nfields)
        return [tuple([value(row, at) for at in columns]) for row in range(result.ntuples)]

    def load(self, row: Sequence[bytes | None]) -> Sequence[Any]:
        """The values of a row of the statement that was run last."""
        return self._transformer.load_sequence(row)

    async def close(self) -> None:
        """Close it, where it is open."""
        conn, self._conn, self._ready = self._conn, None, None
        if conn is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fileno)
            loop.remove_writer(self._fileno)
            await conn.close()

    async def _run(
        self, statement: bytes, values: Sequence[bytes], formats: Sequence[Format] | None
    ) -> PGresult:
        pgconn = await self._open()
        try:
            name = self._prepared.get(statement)
            if name is None:
                name = b"s%d" % len(self._prepared)
                pgconn.send_prepare(name, statement)
                await self._result(pgconn)
                self._prepared[statement] = name
            pgconn.send_query_prepared(name, values, formats)
            result = await self._result(pgconn)
        except BaseException:
            if self._ready is not None or pgconn.status != ConnStatus.OK:
                await self.close()
            raise
        self._transformer.set_pgresult(result)
        return result

    async def _open(self) -> PGconn:
        conn = self._conn
        if conn is None or conn.closed or _has_word(self._fileno):
            await self.close()
            conn = self._conn = await psycopg.AsyncConnection.connect(
                self._database_url,
                autocommit=True,
                application_name=self._name,
                options="-c timezone=UTC -c plan_cache_mode=force_generic_plan",
                **LIVELY,
            )
            self._transformer, self._prepared = Transformer(conn), {}
            self._fileno = conn.fileno()
            asyncio.get_running_loop().add_reader(self._fileno, self._wake, waiting.READY_R)
        return conn.pgconn

    async def _result(self, pgconn: PGconn) -> PGresult:
        """Of the one statement that was sent; raises what it failed with."""
        loop = asyncio.get_running_loop()
        executing = generators.execute(pgconn)
        try:
            wanted = next(executing)
            while True:
                # Of an error uvloop tells once, maybe while there was something else to read.
                if _has_word(self._fileno):
                    wanted = executing.send(waiting.READY_R)
                    continue
                self._ready = loop.create_future()
                if wanted & waiting.WAIT_W:  # not all of it is sent
                    loop.add_writer(self._fileno, self._wake, waiting.READY_W)
                ready = await self._ready
                if wanted & waiting.WAIT_W:
                    loop.remove_writer(self._fileno)
                wanted = executing.send(ready)
        except StopIteration as done:
            self._ready = None
            [result] = done.value
        if result.status not in {ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK}:
            raise errors.error_from_result(result, encoding="utf-8")
        return result

    def _wake(self, ready: int) -> None:
        if self._ready is None:
            # Called late, when all was read; or it is the farewell, for the next statement to find.
            if self._conn is not None and _has_word(self._fileno):
                asyncio.get_running_loop().remove_reader(self._fileno)
        elif not self._ready.done():
            self._ready.set_result(ready)


def _has_word(fileno: int) -> bool:
    """Whether there is something to read; on an idle connection that is the server's farewell.

    It asks the kernel, and takes no round trip.
    """
    poll = select.poll()  # not select(), which knows no descriptor above 1023
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))


def open_pool(
    database_url: str, size: int, name: str
) -> ConnectionPool[psycopg.Connection[TupleRow]]:
    """Open a pool of at most `size` connections; call it after the fork, never before (F20).

    A request waits at most 2 s for a connection; then `psycopg_pool.PoolTimeout`.
    """

    def check(conn: psycopg.Connection[TupleRow]) -> None:
        # A restart ends all of them, so all are replaced, and it costs no request; one by one, the
        # pool would pause for longer after each.
        if _has_word(conn.fileno()):
            pool.drain()
            raise psycopg.OperationalError("the server closed the connection")

    pool: ConnectionPool[psycopg.Connection[TupleRow]] = ConnectionPool(
        database_url,
        min_size=1,
        max_size=size,
        timeout=2.0,
        # The pool doubles its pauses for as long as an outage lasts, and would sleep on after it.
        # Made to give up early, it tries anew with the next request.
        reconnect_timeout=0.5,
        check=check,
        kwargs={
            "autocommit": True,
            "application_name": name,
            "options": "-c timezone=UTC",
            **LIVELY,
        },
        open=True,
    )
    return pool


_PLAIN = re.compile(r"[\w.:+, -]*", re.ASCII)


def plain_array(values: Iterable[object]) -> str:
    """An array as Postgres reads it, of ids, numbers, instants, truths or None.

    psycopg's own, which looks at each value for how to send it, takes a third of the processor time
    of a statement that has ten of them.  Raises ValueError for a value that needs quotes.
    """
    text = ",".join(["NULL" if value is None else str(value) for value in values])
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"not to be written without quotes: {text}")
    return "{" + text + "}"


TEXT_OID = 25


def binary_texts(values: Sequence[str | None]) -> bytes:
    """An array of texts in Postgres' binary format, in which nothing needs quotes.

    Its parts are those of array_recv (src/backend/utils/adt/arrayfuncs.c): dimensions, whether it
    has NULLs, the type of its elements; length and lower bound; then each with its length.
    """
    parts = [pack("!iiIii", 1, 1, TEXT_OID, len(values), 1)]
    for value in values:
        text = None if value is None else value.encode()
        parts.append(pack("!i", -1 if text is None else len(text)))
        parts.append(text or b"")
    return b"".join(parts)
