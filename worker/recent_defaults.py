"""The installation's defaults, as a worker's child knows them: without asking for each job."""

import time
from typing import Any

import psycopg

from worker.store import job_settings

KNOWN_S = 2.0  # so long they are taken for what they were


class RecentDefaults:
    """The installation's defaults that a worker asks for, read again every few seconds."""

    def __init__(self) -> None:
        self._until = 0.0
        self._known: dict[str, Any] = {}

    def read(self, conn: psycopg.Connection) -> dict[str, Any]:
        """Those that were set, by their names."""
        if time.monotonic() > self._until:
            found = job_settings.read_defaults(conn)
            self._known = {n: found[n] for n in job_settings.OF_WORKERS if n in found}
            self._until = time.monotonic() + KNOWN_S
        return self._known


recent_defaults = RecentDefaults()
