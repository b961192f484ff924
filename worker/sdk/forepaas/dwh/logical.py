"""`from forepaas.dwh.logical import LogicalObject`."""

from worker.lakehouse import LogicalObject

__all__ = ["LogicalObject"]
