"""Makes a report's table anew from a query: DROP, CREATE TABLE AS, and both are one step."""

import logging

from forepaas.core.settings import PARAMS
from forepaas.dwh import connect

logger = logging.getLogger(__name__)

REPORT = """
    DROP TABLE IF EXISTS best_shop;
    CREATE TABLE best_shop AS
    SELECT rank() OVER (ORDER BY sum(amount) DESC) AS place, shop,
           sum(amount) AS turnover, count(*) AS sales
    FROM data_prim.sale GROUP BY shop
"""


def report(event):
    """Make data_mart.best_shop; who reads it sees the old table until the job is done."""
    mart = connect("dwh/data_mart/")
    mart.query(REPORT)
    best = mart.select("best_shop", {"place": list(range(1, PARAMS["shown"] + 1))})
    logger.info("the best shops:\n%s", best.to_string(index=False))
    return {"shops": int(mart.query("SELECT count(*) FROM best_shop").iloc[0, 0])}
