"""The order in which the broker hands jobs out; what is stored of one is its place here."""

PRIORITIES = ("high", "default", "low")
DEFAULT_PRIORITY = 1
