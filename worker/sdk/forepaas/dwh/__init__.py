"""`from forepaas.dwh import connect, bulk_insert`."""

from forepaas.dwh import connect as _module  # noqa: F401 -- so that it is importable by its path
from worker.lakehouse import bulk_insert, connect

__all__ = ["bulk_insert", "connect"]
