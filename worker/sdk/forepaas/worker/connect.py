"""`from forepaas.worker.connect import connect`."""

from worker.lakehouse import connect

__all__ = ["connect"]
