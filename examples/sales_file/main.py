"""Loads one CSV file of sales; which one, the step of the workflow says."""

import io
import logging

import pandas as pd

from forepaas.core.settings import PARAMS
from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)


def load(event):
    """Put a file of the bucket into data_prim.sale; return its name and how many lines it has.

    It is the step's item (`for_each`), or else the parameter `file`.
    """
    name = event.item or PARAMS["file"]
    content = connect(f"data_store/{PARAMS['bucket']}").get(name)
    sales = pd.read_csv(io.BytesIO(content), dtype={"amount": str})
    stats, error = bulk_insert(connect("dwh/data_prim/"), "sale", sales)
    if error:
        raise RuntimeError(error)
    logger.notice("%s: %d new, %d again", name, stats["inserts"], stats["updates"])
    return {"file": name, "sales": len(sales)}
