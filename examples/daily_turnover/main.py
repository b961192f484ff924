"""Sums up the sales of each shop and day, with the mean of its last seven days of trade."""

import logging

import pandas as pd

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)


def sum_up(event):
    """Read data_prim.sale, write data_mart.daily_turnover.

    `event.content` may be {"since": "2024-05-01"}: then only days from there on are written.  A day
    that was written before is replaced, since the table's primary key is (shop, day).
    """
    since = (event.content or {}).get("since", "0001-01-01")
    sales = connect("dwh/data_prim/").query("SELECT shop, amount, sold_at FROM sale")
    if sales.empty:
        logger.warning("there are no sales yet")
        return {"days": 0}

    daily = per_day(sales)
    daily = daily[daily["day"] >= pd.Timestamp(since)]
    stats, error = bulk_insert(connect("dwh/data_mart/"), "daily_turnover", daily)
    if error:
        raise RuntimeError(error)
    logger.notice("%d days are new, %d written again", stats["inserts"], stats["updates"])
    return {"days": len(daily)}


def per_day(sales):
    """One row for each shop and day: turnover, number of sales, mean of the last seven rows."""
    sales = sales.assign(day=sales["sold_at"].dt.normalize(), amount=sales["amount"].astype(float))
    daily = (
        sales.groupby(["shop", "day"])
        .agg(turnover=("amount", "sum"), sales=("amount", "size"))
        .round(2)
        .reset_index()
    )
    recent = daily.groupby("shop")["turnover"].rolling(7, min_periods=2).mean().round(2)
    # The first day of a shop has no mean yet: NaN here, NULL in the table.
    daily["weekly_mean"] = recent.reset_index(level=0, drop=True)
    return daily
