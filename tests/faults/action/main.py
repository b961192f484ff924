"""What the jobs of the harness do: half of the rows, then the trouble, then the other half."""

import os
import signal
import time

import pandas as pd

from forepaas.core.settings import CONFIG
from forepaas.dwh import bulk_insert, connect


class Refused(Exception):
    """What the jobs that are meant to fail raise."""


def handle(event):
    """Write the rows of `event.content`, as its `does` says.

    `event.content` is {"event": its name, "rows": how many, "does": …, "sleep": seconds}.
    """
    content = of_step(event)
    rows = pd.DataFrame(
        {
            "event": content["event"],
            "number": range(content["rows"]),
            "attempt": event.attempt,
            "execution_id": event.execution_id,
        }
    )
    dwh = connect("dwh/faults/")
    half = len(rows) // 2
    insert(dwh, "line", rows[:half])
    trouble(content["does"], content.get("sleep", 0), event.attempt)
    insert(dwh, "line", rows[half:])
    total = rows.groupby("event", as_index=False).agg(rows=("number", "size"))
    insert(dwh, "total", total)
    return {"rows": len(rows)}


def of_step(event):
    """The event's content; in a workflow the trouble is in step b alone, and rows name the step."""
    if "step" not in CONFIG:
        return event.content
    name = f"{event.content['event']}/{CONFIG['step']}/{event.item}"
    calm = {} if CONFIG["step"] == "b" else {"does": "write", "sleep": 0}
    return event.content | {"event": name} | calm


def trouble(does, sleep_s, attempt):
    """What an author's own code may do in the middle of a transaction."""
    if sleep_s:
        time.sleep(sleep_s)
    if does == "fail" or (does == "fail at first" and attempt == 1):
        raise Refused("as it was asked to")
    if does == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def insert(dwh, table, rows):
    """Bulk-insert, and raise what it says."""
    _, error = bulk_insert(dwh, table, rows)
    if error:
        raise RuntimeError(error)
