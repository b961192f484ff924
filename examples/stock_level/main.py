"""Keeps the stock of each article up to date, in SQL: MERGE what moved, DELETE what is gone."""

import logging

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)

MERGE = """
    MERGE INTO stock_level AS level
    USING (
        SELECT article, sum(change) AS change, max(moved_at) AS moved_at
        FROM stock_movement WHERE NOT booked GROUP BY article
    ) AS moved
    ON level.article = moved.article
    WHEN MATCHED THEN
        UPDATE SET pieces = level.pieces + moved.change, last_moved_at = moved.moved_at
    WHEN NOT MATCHED THEN
        INSERT (article, pieces, last_moved_at)
        VALUES (moved.article, moved.change, moved.moved_at)
"""


def book(event):
    """Book the movements of `event.content`: [{"article": …, "change": -3, "moved_at": …}, …].

    All statements are one transaction: a movement is never booked twice, nor half.
    """
    stock = connect("dwh/data_prim/")
    rows = [{**row, "booked": False} for row in event.content]
    _, error = bulk_insert(stock, "stock_movement", rows)
    if error:
        raise RuntimeError(error)

    changed = stock.query(MERGE).iloc[0, 0]
    stock.query("UPDATE stock_movement SET booked = true WHERE NOT booked")
    # Articles whose number ends in -OLD are not bought again.
    gone = stock.query("DELETE FROM stock_level WHERE pieces = 0 AND article LIKE '%-OLD'").iloc[
        0, 0
    ]
    short = stock.query("SELECT article FROM stock_level WHERE pieces < 0 ORDER BY article")
    if len(short):
        raise ValueError(f"more was taken than there is: {', '.join(short['article'])}")
    logger.notice("%d articles changed, %d are gone", changed, gone)
    return {"changed": int(changed), "gone": int(gone)}
