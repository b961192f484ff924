"""Closes a day once, however often and by however many it is asked for at the same time."""

import logging
from datetime import UTC, datetime

from forepaas.dwh import connect

logger = logging.getLogger(__name__)

CLOSE = """
    INSERT INTO closed_day (day, sales, closed_by)
    SELECT date '{day}', count(*), '{by}' FROM data_prim.sale WHERE sold_at::date = '{day}'
    ON CONFLICT (day) DO NOTHING
"""


def close(event):
    """Close `event.content["day"]`, or today.

    Nothing is locked and nobody is asked whether another one runs: the day is the table's key, so
    of two that come at the same time the second waits for the first one's end, and finds it done.
    """
    given = (event.content or {}).get("day") or datetime.now(UTC).date().isoformat()
    day = datetime.strptime(given, "%Y-%m-%d").date()  # noqa: DTZ007 -- a date has no zone
    mart = connect("dwh/data_mart/")
    closed = mart.query(CLOSE.format(day=day, by=event.execution_id)).iloc[0, 0] == 1
    logger.notice("%s %s", day, "is closed" if closed else "was closed before")
    return {"day": str(day), "closed": bool(closed)}
