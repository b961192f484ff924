"""Keeps every row that is posted, with the day on which it came."""

import logging
from datetime import UTC, datetime

import pandas as pd

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)


def archive(event):
    """Append the rows of `event.content` (a list of objects) to data_prim.event_archive."""
    if not isinstance(event.content, list):
        raise TypeError(f"a list of rows is needed, got {type(event.content).__name__}")
    logger.info("%d rows came by %s", len(event.content), event.type)

    rows = pd.DataFrame(event.content)
    rows["received_on"] = datetime.now(UTC).date().isoformat()

    stats, error = bulk_insert(connect("dwh/data_prim/"), "event_archive", rows)
    if error:
        raise RuntimeError(f"the rows were not kept: {error}")
    logger.notice("%d rows archived", stats["inserts"])
    return {"archived": stats["inserts"]}
