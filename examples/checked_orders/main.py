"""Takes the orders that fit their table, and leaves the others to a person."""

import logging

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)


def take(event):
    """Write `event.content` to data_prim.checked_order.

    forepaas.json says that rows which don't fit go into quarantine: look at them, mend and replay
    them with `dpe table quarantine`.  It names the table, too: a start may ask for a check.
    """
    stats, error = bulk_insert(connect("dwh/data_prim/"), "checked_order", event.content)
    if error:
        raise RuntimeError(error)
    if stats["quarantined"]:
        logger.warning("%d orders have to be looked at", stats["quarantined"])
    return {"taken": stats["inserts"] + stats["updates"], "quarantined": stats["quarantined"]}
