"""`bulk_insert`: rows into a table, and what became of them.

Rows go in through the job's own transaction, inside a savepoint: an insert that fails leaves
nothing of itself, and the handler may go on.  That it failed is kept with the job all the same.
"""

import logging
from collections.abc import Callable
from typing import Any

import psycopg

from worker.errors import DatasetError
from worker.lakehouse import by_copy, by_insert
from worker.lakehouse.columns import Layout, layout
from worker.lakehouse.counts import Counts
from worker.lakehouse.refusal import explained
from worker.lakehouse.source import Source, source
from worker.lakehouse.transaction import running_job, turn
from worker.store.retry import is_outage

logger = logging.getLogger("dpe")  # stands in the job's log

SMALL = 500  # rows that go as one statement; more go by COPY


def bulk_insert(
    connector: Any,
    table: str,
    data: Any,
    source_default_schema: Any = None,
    batch_size: int | None = None,
    statistics: bool = False,
) -> tuple[dict[str, Any], str | None]:
    """Write rows into a table of the connector's dataset; return (stats, error).

    `data` is a DataFrame or a list of dicts, matched to the table's columns by name.  A table
    with a primary key is upserted (of rows with the same key the last one wins), one without is
    appended to.  `stats` has records, inserts, updates, skipped, warnings, and the table.  `error`
    is None, or the text of what is wrong, with rows counted from 1; then none of the rows is
    there.  It is kept with the job too, which ends FAILED unless its forepaas.json has
    `"params": {"on_insert_error": "continue"}`.

    `source_default_schema`, `batch_size` and `statistics` are taken and not needed: a table knows
    its types, batches are sized by their bytes, and statistics are always there.
    """
    job = running_job()
    stats: dict[str, Any] = {
        "table": f"{connector.dataset}.{table}",
        "records": len(data) if hasattr(data, "__len__") else 0,
        "inserts": 0,
        "updates": 0,
        "skipped": 0,
        "warnings": [],
    }
    error = None
    try:
        counts = write(connector.dataset, table, data, upsert=True)
    except DatasetError as failure:
        error = f"{failure} ({failure.hint})" if failure.hint else str(failure)
        job.met_outage = job.met_outage or is_outage(failure)
    else:
        counts.add_to(stats)
    if error is not None:
        stats["skipped"] = stats["records"]
        stats["warnings"].append(error)
        job.insert_errors.append(error)
        logger.error("bulk_insert: %s", error)
    job.stats.append(stats)
    return stats, error


def write(dataset: str, table: str, data: Any, *, upsert: bool) -> Counts:
    """Write rows in a savepoint; raises DatasetError, and then none of them is there."""
    with turn:
        conn = running_job().conn
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
