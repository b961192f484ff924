"""Rows of tables: a few to look at, all of them as a file.

The file is written whole before it is sent.  So what breaks off is answered as an error, and the
transaction that keeps the rows still does not wait for a slow caller.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO

import psycopg
from flask import Blueprint, Response, request
from werkzeug.wsgi import wrap_file

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
# Of one process.  Each holds a thread and a connection until its file is written.
EXPORTS = 4
LONGEST = "1h"  # of a statement
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
    if not _under_way.acquire(blocking=False):
        raise Unavailable(f"{EXPORTS} exports are under way in this process", "try again later")
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed when the answer is sent
    try:
        _write(file, _export(format), dataset, name, limit)
    except BaseException:
        file.close()
        raise
    finally:
        _under_way.release()
    size = file.tell()
    file.seek(0)
    sent = wrap_file(request.environ, file)
    answer = Response(sent, content_type=FORMATS[format], direct_passthrough=True)
    answer.content_length = size
    answer.headers["Content-Disposition"] = f'attachment; filename="{_plain(name)}.{format}"'
    return answer


def _export(format: str) -> Export:
    if format == "csv":
        return table_rows.csv
    from app.parquet import parquet  # noqa: PLC0415 -- some 40 MB, of few processes' use

    return parquet


def _write(file: IO[bytes], export: Export, dataset: str, name: str, limit: int | None) -> None:
    """Raises NotFound; Unavailable where there is no room, or the database breaks off."""
    # A connection outside of the pool, which starts need.
    url = url_elsewhere(dataset) or resources().settings.database()
    with connect(url, "dpe-export", autocommit=False) as conn:
        # To this transaction the rows are those of this moment, for a while.
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        conn.execute(
            f"SET LOCAL statement_timeout = '{LONGEST}'; SET LOCAL datestyle = 'ISO, YMD'".encode()
        )
        table = table_rows.readable(conn, dataset, name)
        try:
            for data in export(conn, table, limit):
                file.write(data)
            file.flush()
        except OSError as error:
            raise Unavailable(
                f"the file of the export can't be written in {tempfile.gettempdir()}:"
                f" {error.strerror}",
                "make room there, set TMPDIR to another folder, or ask for fewer rows (limit)",
            ) from None


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
