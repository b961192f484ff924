"""Notes that a run of a workflow went wrong; elsewhere this would be a mail."""

from datetime import UTC, datetime

from forepaas.core.settings import CONFIG
from forepaas.dwh import bulk_insert, connect


def note(event):
    """Write one row: which run, and what it had done by then."""
    row = {
        "run_id": CONFIG["run_id"],
        "noted_at": datetime.now(UTC).isoformat(),
        "done": ", ".join(event.results) or "nothing",
    }
    _, error = bulk_insert(connect("dwh/data_prim/"), "failure_note", [row])
    if error:
        raise RuntimeError(error)
