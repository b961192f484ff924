"""Goes through all days of a long past, and says how far it is."""

import logging
import time

from forepaas.core.settings import PARAMS
from forepaas.dwh import connect

logger = logging.getLogger(__name__)

ROLL_UP = """
    INSERT INTO day_total (day, sales, turnover)
    SELECT sold_at::date, count(*), sum(amount) FROM data_prim.sale
    WHERE sold_at >= '{day}' AND sold_at < date '{day}' + 1 GROUP BY 1
    ON CONFLICT (day) DO UPDATE SET sales = excluded.sales, turnover = excluded.turnover
"""


def roll_up(event):
    """One statement a day; a line in the log every few seconds, which can be read while it runs."""
    mart, began, told = connect("dwh/data_mart/"), time.monotonic(), 0.0
    days = mart.query("SELECT DISTINCT sold_at::date::text AS day FROM data_prim.sale ORDER BY 1")
    for done, day in enumerate(days["day"], 1):
        mart.query(ROLL_UP.format(day=day))
        if time.monotonic() - told >= PARAMS["tell_every_s"] or done == len(days):
            told = time.monotonic()
            logger.info("%d of %d days, %.0f %%", done, len(days), 100 * done / len(days))
    return {"days": len(days), "seconds": round(time.monotonic() - began)}
