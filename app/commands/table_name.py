"""How a table is named on the command line."""

from urllib.parse import quote

from worker.errors import Invalid

TABLE = "DATASET.TABLE"


def table_path(name: str) -> str:
    """The address of `data_prim.orders` at the API; raises Invalid for what is no such name."""
    dataset, dot, table = name.partition(".")
    if not (dataset and dot and table):
        raise Invalid(f"{name!r} is no table's name", "write it like data_prim.orders")
    return f"/dwh/v4/tables/{quote(dataset, safe='')}/{quote(table, safe='')}"
