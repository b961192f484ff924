"""Rows of a handler into a table, as one statement or by COPY; what fails, in terms of the data."""

from collections.abc import Callable
from typing import Any

import psycopg

from worker.errors import DatasetError
from worker.lakehouse import by_copy, by_insert
from worker.lakehouse.columns import Layout, layout
from worker.lakehouse.counts import Counts
from worker.lakehouse.other_servers import connection
from worker.lakehouse.refusal import explained
from worker.lakehouse.source import Source, source
from worker.lakehouse.transaction import turn

SMALL = 500  # rows that go as one statement; more go by COPY


def write(dataset: str, table: str, data: Any, *, upsert: bool) -> Counts:
    """Write rows in a savepoint; raises DatasetError, and then none of them is there."""
    with turn:
        conn = connection(dataset)
        rows = source(f"{dataset}.{table}", data)
        known = layout(conn, dataset, table)
        try:
            return _write(conn, known, rows, upsert)
        except (DatasetError, psycopg.Error) as error:
            if conn.closed:
                raise
            # The table may have changed since its layout was read.
            fresh = layout(conn, dataset, table, fresh=True)
            if fresh == known:
                found = explained(conn, fresh, rows, error)
                raise found from None if found is error else error
        try:
            return _write(conn, fresh, rows, upsert)
        except (DatasetError, psycopg.Error) as error:
            found = explained(conn, fresh, rows, error)
            raise found from None if found is error else error


def _write(conn: psycopg.Connection, layout: Layout, rows: Source, upsert: bool) -> Counts:
    if not rows.rows:
        return Counts(0)
    if not rows.names:
        raise DatasetError(f"{layout.name}: the data has rows but no columns")
    write: Callable[..., Counts] = by_insert.write if rows.rows <= SMALL else by_copy.write
    return write(conn, layout, rows, upsert)
