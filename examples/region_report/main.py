"""Five threads ask for figures at once, all through one connector."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)

REGIONS = {
    "north": ["Lille", "Rouen"],
    "east": ["Metz", "Nancy"],
    "south": ["Nice", "Arles"],
    "west": ["Brest", "Nantes"],
    "centre": ["Paris", "Tours"],
}

sales = connect("dwh/data_prim/")


def report(event):
    """Write one row a region to data_mart.region_report, as of `event.content["as_of"]`."""
    as_of = event.content["as_of"]
    with ThreadPoolExecutor(max_workers=5) as threads:
        rows = list(threads.map(lambda region: figures(region, as_of), REGIONS))
    bulk_insert(connect("dwh/data_mart/"), "region_report", pd.DataFrame(rows))
    return {row["region"]: row["sales"] for row in rows}


def figures(region, as_of):
    """One region's row.  A region without a sale has no best shop."""
    found = sales.select("sale", {"shop": REGIONS[region]})
    best = found.groupby("shop")["amount"].sum().idxmax() if len(found) else None
    logger.info("%s: %d sales", region, len(found))
    return {
        "region": region,
        "as_of": as_of,
        "sales": len(found),
        "turnover": round(found["amount"].sum(), 2),
        "best_shop": best,
    }
