"""What an order must have, and what is taken off its price."""

from decimal import Decimal

from currencies import RATES

from forepaas.core.settings import PARAMS

SMALLEST = Decimal(str(PARAMS["smallest_order"]))
DISCOUNTS = {group: Decimal(share) for group, share in PARAMS["discounts"].items()}


def objection(order):
    """Why the order can't be priced, or None."""
    missing = [name for name in ("order_id", "amount", "currency") if order.get(name) is None]
    if missing:
        return f"it has no {missing[0]}"
    if order["currency"] not in RATES:
        return f"no rate for {order['currency']}"
    if Decimal(str(order["amount"])) < SMALLEST:
        return f"under the smallest order of {SMALLEST}"
    return None


def discount(net, group):
    """What a customer group is let off, to the cent."""
    return (net * DISCOUNTS.get(group, Decimal(0))).quantize(Decimal("0.01"))
