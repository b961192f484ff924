"""Prices posted orders, and keeps apart those that can't be priced, with the reason."""

import logging

from currencies import in_home_currency
from rules import discount, objection

from forepaas.core.settings import PARAMS
from forepaas.dwh import connect
from forepaas.dwh.connector import bulk_insert

logger = logging.getLogger(__name__)

# Read once, when the module is imported: a new version of the action brings new parameters.
HOME = PARAMS["home_currency"]
CHANNEL = PARAMS.get("channel", "web")


def price(event):
    """Write each order of `event.content` to data_prim.priced_order or data_prim.refused_order."""
    priced, refused = [], []
    for order in event.content:
        reason = objection(order)
        if reason:
            refused.append({"order_id": order.get("order_id"), "reason": reason, "original": order})
            continue
        net = in_home_currency(order["amount"], order["currency"])
        off = discount(net, order.get("customer_group"))
        priced.append(
            {
                "order_id": order["order_id"],
                "currency": HOME,
                "channel": CHANNEL,
                "net": net,
                "discount": off,
                "to_pay": net - off,
                "express": bool(order.get("express")),
            }
        )

    orders = connect("dwh/data_prim/")
    for table, rows in (("priced_order", priced), ("refused_order", refused)):
        if rows:
            bulk_insert(orders, table, rows)
    logger.notice("%d orders priced, %d refused", len(priced), len(refused))
    return {"priced": len(priced), "refused": len(refused)}
