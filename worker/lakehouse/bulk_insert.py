"""`bulk_insert`: rows into a table, and what became of them.

Rows go in through the job's own transaction, inside a savepoint: an insert that fails leaves
nothing of itself, and the handler may go on.  That it failed is kept with the job all the same.
"""

import logging
from typing import Any

from worker.errors import DatasetError
from worker.lakehouse.aside import is_of_rows, write_what_fits
from worker.lakehouse.counts import Counts
from worker.lakehouse.transaction import running_job
from worker.lakehouse.writing import write
from worker.masking import masked
from worker.store.quarantine import Aside
from worker.store.retry import is_outage

logger = logging.getLogger("dpe")  # stands in the job's log

QUARANTINE = "quarantine"


def bulk_insert(  # noqa: PLR0913, PLR0917 -- the first six are the platform's
    connector: Any,
    table: str,
    data: Any,
    source_default_schema: Any = None,
    batch_size: int | None = None,
    statistics: bool = False,
    on_error: str | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Write rows into a table of the connector's dataset; return (stats, error).

    `data` is a DataFrame or a list of dicts, matched to the table's columns by name.  A table
    with a primary key is upserted (of rows with the same key the last one wins), one without is
    appended to.  `stats` has records, inserts, updates, skipped, warnings, and the table.  `error`
    is None, or the text of what is wrong, with rows counted from 1; then none of the rows is
    there.  It is kept with the job too, which ends FAILED unless its forepaas.json has
    `"params": {"on_insert_error": "continue"}`.

    With `on_error="quarantine"`, or `"params": {"on_insert_error": "quarantine"}`, the rows that
    fit go in, and those that don't into the table's quarantine, each with the reason: `stats`
    counts them as "quarantined".  What is wrong with all of the data is an error as ever.

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
    error, keeps_aside = None, job.quarantines or on_error == QUARANTINE
    aside: list[Aside] = []
    try:
        counts, aside = _written(connector.dataset, table, data, keeps_aside)
    except DatasetError as failure:
        error = f"{failure} ({failure.hint})" if failure.hint else str(failure)
        job.met_outage = job.met_outage or is_outage(failure)
    else:
        counts.add_to(stats)
    if keeps_aside:
        stats["quarantined"] = len(aside)
    if aside:
        stats["records"] += len(aside)
        said = f"{len(aside)} rows are in quarantine; row {aside[0].number}: {aside[0].reason}"
        stats["warnings"].append(said)
        logger.warning("bulk_insert: %s.%s: %s", connector.dataset, table, said)
    if error is not None:
        stats["skipped"] = stats["records"]
        stats["warnings"].append(masked(error))
        job.insert_errors.append(error)
        logger.error("bulk_insert: %s", error)
    job.stats.append(stats)
    return stats, error


def _written(dataset: str, table: str, data: Any, keeps_aside: bool) -> tuple[Counts, list[Aside]]:
    try:
        return write(dataset, table, data, upsert=True), []
    except DatasetError as error:
        if not keeps_aside or not is_of_rows(error):
            raise
        return write_what_fits(dataset, table, data, error)
