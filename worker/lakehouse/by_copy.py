"""Many rows into a table: COPY, or COPY into a temporary table and merge.

Rows are encoded in chunks of a few megabytes, each while the one before it is under way.  A chunk
goes in Postgres' binary form where all its columns have one, else as text: a COPY ends where the
form changes, and the next begins.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import pyarrow as pa
from psycopg import sql

from worker.lakehouse import binary, text
from worker.lakehouse.columns import Column, Layout, check_encodable, layout, match, texts
from worker.lakehouse.counts import Counts
from worker.lakehouse.keys import check_key, on_conflict
from worker.lakehouse.source import Source, to_arrow
from worker.lakehouse.transaction import savepoint

CHUNK_BYTES = 2_000_000  # what a chunk is aimed at
FIRST_ROWS = 4_096  # of the first chunk, from whose size the next ones' rows are reckoned
MAX_ROWS = 65_536


TEXT, BINARY = sql.SQL(""), sql.SQL("(FORMAT BINARY)")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows as Postgres reads them, and in which form."""

    form: sql.SQL
    data: memoryview


def write(conn: psycopg.Connection, known: Layout, rows: Source, upsert: bool) -> Counts:
    """Insert, or upsert where the table has a key; raises DatasetError or psycopg.Error."""
    target = sql.Identifier(known.dataset, known.table)
    with savepoint(conn):
        # In binary form the wrong type would pass for another of the same width: so the layout is
        # read under a lock that no change of the table can have beside it.
        conn.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(target))
        fresh = layout(conn, known.dataset, known.table, fresh=True)
        columns = match(fresh, rows.names, [values[0] for values in rows.values(0, 1)])
        if not (upsert and check_key(fresh, columns)):
            copy(conn, target, fresh, columns, rows)
            return Counts(rows.rows, rows.rows)
        return _merge(conn, target, fresh, columns, rows)


def _merge(
    conn: psycopg.Connection,
    target: sql.Identifier,
    layout: Layout,
    columns: list[Column],
    rows: Source,
) -> Counts:
    stage = sql.Identifier("pg_temp", "dpe_stage")
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    key = sql.SQL(", ").join(sql.Identifier(name) for name in layout.key)
    conn.execute(
        sql.SQL("CREATE TEMP TABLE dpe_stage ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0").format(
            names, target
        )
    )
    copy(conn, stage, layout, columns, rows)
    # Rows that were copied into a table of our own lie there in the order in which they came.
    row = conn.execute(
        sql.SQL(
            "WITH written AS (INSERT INTO {} ({}) SELECT DISTINCT ON ({}) {} FROM {}"
            " ORDER BY {}, ctid DESC{}) SELECT count(*) FILTER (WHERE made),"
            " count(*) FILTER (WHERE NOT made) FROM written"
        ).format(target, names, key, names, stage, key, on_conflict(conn, layout, columns))
    ).fetchone()
    inserts, updates = row or (0, 0)
    doubled = rows.rows - inserts - updates
    if len(columns) == len(layout.key):  # then rows that are there stay as they are, uncounted
        keys = conn.execute(
            sql.SQL("SELECT count(*) FROM (SELECT DISTINCT {} FROM {}) AS keys").format(key, stage)
        ).fetchone()
        doubled = rows.rows - (keys or (0,))[0]
    conn.execute("DROP TABLE pg_temp.dpe_stage")
    return Counts(rows.rows, inserts, updates, doubled)


def copy(
    conn: psycopg.Connection,
    target: sql.Identifier,
    layout: Layout,
    columns: list[Column],
    rows: Source,
    *,
    by_text: bool = False,
) -> None:
    """Send all rows to a table that has these columns; raises DatasetError or psycopg.Error.

    With `by_text` in the text form only: as one COPY, whose lines are the rows.
    """
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    with ExitStack() as open_copy:
        sink, form = None, None
        for chunk in _ahead(_chunks(layout, columns, rows, by_text)):
            if sink is None or chunk.form != form:
                _end(sink, form)
                open_copy.close()
                form = chunk.form
                command = sql.SQL("COPY {} ({}) FROM STDIN {}").format(target, names, form)
                sink = open_copy.enter_context(conn.cursor().copy(command))
                if form is BINARY:
                    sink.write(binary.BEGIN)
            sink.write(chunk.data)
        _end(sink, form)


def _end(sink: psycopg.Copy | None, form: sql.SQL | None) -> None:
    if sink is not None and form is BINARY:
        sink.write(binary.END)


def _chunks(layout: Layout, columns: list[Column], rows: Source, by_text: bool) -> Iterator[Chunk]:
    start, count = 0, FIRST_ROWS
    while start < rows.rows:
        part = range(start, min(start + count, rows.rows))
        chunk = _encode(layout, columns, rows, part, by_text)
        yield chunk
        per_row = max(1, len(chunk.data) // len(part))
        start, count = part.stop, max(1, min(MAX_ROWS, CHUNK_BYTES // per_row))


def _encode(
    layout: Layout, columns: list[Column], rows: Source, part: range, by_text: bool
) -> Chunk:
    def as_text(at: int) -> pa.Array:
        values = rows.column(at, part.start, part.stop)
        found = texts(layout, columns[at], values, part.start + 1)
        try:
            return pa.array(found, pa.large_string())
        except UnicodeEncodeError:
            check_encodable(layout, columns[at], found, part.start + 1)
            raise

    arrays: list[pa.Array | None] = [None] * len(columns)
    if not by_text:
        arrays = [to_arrow(rows.array(at, part.start, part.stop)) for at in range(len(columns))]
        fields = []
        for at, column in enumerate(columns):
            field = binary.field(column.type, arrays[at])
            if field is None and column.type in binary.TEXTS:
                arrays[at] = as_text(at)
                field = binary.field(column.type, arrays[at])
            if field is None:
                break
            fields.append(field)
        if len(fields) == len(columns):
            return Chunk(BINARY, binary.rows(fields, len(part)))
    lines = [
        array if array is not None and text.reads_alike(column.type, array) else as_text(at)
        for at, (column, array) in enumerate(zip(columns, arrays, strict=True))
    ]
    return Chunk(TEXT, text.rows(lines))


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks, the next one always being made in a thread."""
    with ThreadPoolExecutor(1, "dpe-encode") as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk
