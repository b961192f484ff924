"""Rows of tables: a few to look at, all of them as a file that is sent while it is read."""

import threading
from collections.abc import Callable, Iterator

import psycopg
from flask import Blueprint, Response, request

from app import query
from app.auth import needs
from app.dataset_connections import connection, url_elsewhere
from app.resources import resources
from worker.errors import Unavailable
from worker.store import table_rows
from worker.store.catalogue import Standing
from worker.store.database import connect

routes = Blueprint("table_rows", __name__)

DEFAULT_LIMIT, MAX_LIMIT = 20, 1000
# Of one process.  Each holds a thread and a connection of its own for as long as it takes.
EXPORTS = 4
STALLED_S = 60.0  # a caller that takes nothing for so long is left
LONGEST = "1h"
MAX_ROWS = 2**63 - 1
FORMATS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

_under_way = threading.BoundedSemaphore(EXPORTS)

Export = Callable[[psycopg.Connection, Standing, int | None], Iterator[bytes]]


@routes.get("/dwh/v4/tables/<dataset>/<name>/rows")
@needs("dwh:row:read")
def head(dataset: str, name: str) -> Response:
    """The first rows, in the order of the primary key."""
    limit = query.count("limit", DEFAULT_LIMIT, MAX_LIMIT)
    with connection(dataset) as conn:
        rows = table_rows.head(conn, dataset, name, limit)
    return Response(rows, mimetype="application/json")


@routes.get("/dwh/v4/tables/<dataset>/<name>/export")
@needs("dwh:row:read")
def export(dataset: str, name: str) -> Response:
    """All rows as they stood at one moment, as CSV or Parquet."""
    format = query.choice("format", "csv", FORMATS)
    limit = query.count("limit", 0, MAX_ROWS) or None
    conn = _connection(dataset)
    try:
        _make_stand_still(conn)
        table = table_rows.readable(conn, dataset, name)
        # Of a stalled caller nothing else would be noticed for hours.
        socket = request.environ.get("gunicorn.socket")
        if socket is not None:
            socket.settimeout(STALLED_S)
        answer = Response(_export(format)(conn, table, limit), content_type=FORMATS[format])
    except BaseException:
        _end(conn)
        raise
    answer.call_on_close(lambda: _end(conn))
    answer.headers["Content-Disposition"] = f'attachment; filename="{_plain(name)}.{format}"'
    return answer


def _export(format: str) -> Export:
    if format == "csv":
        return table_rows.csv
    from app.parquet import parquet  # noqa: PLC0415 -- some 40 MB, of few processes' use

    return parquet


def _connection(dataset: str) -> psycopg.Connection:
    """A connection outside of the pool, which starts need; give it back to `_end`."""
    if not _under_way.acquire(blocking=False):
        raise Unavailable(f"{EXPORTS} exports are under way in this process", "try again later")
    try:
        url = url_elsewhere(dataset) or resources().settings.database()
        conn = connect(url, "dpe-export", autocommit=False)
    except BaseException:
        _under_way.release()
        raise
    return conn


def _make_stand_still(conn: psycopg.Connection) -> None:
    """Begin a transaction to which the rows are those of this moment, for a while."""
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.read_only = True
    conn.execute(
        f"SET LOCAL statement_timeout = '{LONGEST}'; SET LOCAL datestyle = 'ISO, YMD';"
        f" SET LOCAL idle_in_transaction_session_timeout = '{STALLED_S}s'".encode()
    )


def _end(conn: psycopg.Connection) -> None:
    conn.close()
    _under_way.release()


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
