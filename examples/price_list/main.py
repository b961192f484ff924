"""Replaces a supplier's part of the price list by what came, all of it or nothing."""

import logging

import pandas as pd

from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)


def reload(event):
    """`event.content` is {"supplier": "ACME", "prices": [{"article": …, "price": …}, …]}.

    Nobody sees the list without the supplier: deleting and loading are one transaction.
    """
    supplier = event.content["supplier"]
    prices = pd.DataFrame(event.content["prices"], columns=["article", "price"])
    if prices.empty:
        raise ValueError(f"{supplier} sent no prices: the old ones stay")
    prices["supplier"] = supplier
    shop = connect("dwh/data_prim/")
    gone = shop.delete("price_list", {"supplier": supplier})
    _, error = bulk_insert(shop, "price_list", prices)
    if error:
        raise RuntimeError(error)
    logger.notice("%s: %d prices instead of %d", supplier, len(prices), gone)
    return {"before": gone, "now": len(prices)}
