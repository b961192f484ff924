"""Amounts of other currencies in the home currency."""

from decimal import Decimal

from forepaas.core.settings import PARAMS

# As text in forepaas.json, so that a rate has just the digits that are written there.
RATES = {PARAMS["home_currency"]: Decimal(1)} | {
    currency: Decimal(rate) for currency, rate in PARAMS["rates"].items()
}


def in_home_currency(amount, currency):
    """To the cent.  Raises KeyError for a currency without a rate."""
    return (Decimal(str(amount)) * RATES[currency]).quantize(Decimal("0.01"))
