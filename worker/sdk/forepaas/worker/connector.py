"""`from forepaas.worker.connector import bulk_insert`."""

from worker.lakehouse import bulk_insert

__all__ = ["bulk_insert"]
