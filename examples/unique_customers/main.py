"""Of customers that came several times, keeps what is known last."""

import logging

import pandas as pd

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)


def keep_newest(event):
    """Write one row for each e-mail address of `event.content` to data_prim.customer.

    The same address may be written in many ways.  An older row than the table's changes nothing.
    """
    came = pd.DataFrame(event.content)
    came["email"] = came["email"].str.strip().str.lower()
    came["seen_at"] = pd.to_datetime(came["seen_at"], utc=True).dt.tz_localize(None)
    newest = came.sort_values("seen_at").drop_duplicates("email", keep="last")

    shop = connect("dwh/data_prim/")
    known = shop.select("customer", {"email": newest["email"].tolist()})
    seen = dict(zip(known["email"], known["seen_at"], strict=True))
    before = pd.to_datetime(newest["email"].map(seen))
    newer = newest[before.isna() | (newest["seen_at"] > before)]
    stats, error = bulk_insert(shop, "customer", newer)
    if error:
        raise RuntimeError(error)
    logger.notice("%d rows, %d of them worth keeping", len(came), len(newer))
    return {"came": len(came), "new": stats["inserts"], "changed": stats["updates"]}
