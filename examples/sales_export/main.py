"""Writes the sales of a month into a CSV file, beside those of the other months."""

import logging
import re

from forepaas.core.settings import PARAMS
from forepaas.dwh import connect

logger = logging.getLogger(__name__)

SALES = """
    SELECT sale_id, shop, amount, sold_at FROM sale
    WHERE to_char(sold_at, 'YYYY-MM') = '{month}' ORDER BY sale_id
"""


def export(event):
    """`event.content` is {"month": "2024-05"}; the file is there only if the job succeeds."""
    month = event.content["month"]
    if not re.fullmatch(r"\d{4}-\d\d", month):  # it stands in the SQL
        raise ValueError(f"a month is written like 2024-05, got {month!r}")
    sales = connect("dwh/data_prim/").query(SALES.format(month=month))
    files = connect(f"data_store/{PARAMS['bucket']}")
    name = f"{month}.csv"
    written = files.put(name, sales.to_csv(index=False))
    logger.info("%s: %d sales, %d bytes", name, len(sales), written.size)
    return {"file": name, "sales": len(sales), "months": files.list_filename()}
