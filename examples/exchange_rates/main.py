"""Brings the rates that an HTTP API has and the table has not yet."""

import json
import logging
from urllib.parse import urlencode
from urllib.request import urlopen

from forepaas.core.settings import PARAMS
from forepaas.dwh import bulk_insert, connect

logger = logging.getLogger(__name__)

PAGES_AT_MOST = 1000


def load(event):
    """Append to data_prim.exchange_rate what is newer than its newest row; page after page.

    The newest row is read in the job's own transaction: where the job is done again, it begins
    where the last one that succeeded has ended.
    """
    rates = connect("dwh/data_prim/")
    since = rates.query("SELECT coalesce(max(rate_id), 0) AS newest FROM exchange_rate").iloc[0, 0]
    loaded = 0
    for page in range(PAGES_AT_MOST):
        rows = fetch(since=int(since), page=page)
        if not rows:
            break
        _, error = bulk_insert(rates, "exchange_rate", rows)
        if error:
            raise RuntimeError(error)
        loaded += len(rows)
        logger.info("page %d: %d rates", page, len(rows))
    return {"since": int(since), "loaded": loaded}


def fetch(**query):
    """One page of the API: a list of rows, an empty one after the last."""
    with urlopen(f"{PARAMS['api']}?{urlencode(query)}", timeout=10) as answer:  # noqa: S310 -- it is ours
        return json.load(answer)
