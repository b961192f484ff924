"""Datasets as handlers see them: `connect` to one, `bulk_insert` into a table of it."""

from worker.errors import DatasetError
from worker.lakehouse.bulk_insert import bulk_insert
from worker.lakehouse.connector import Connector, connect

__all__ = ["Connector", "DatasetError", "LogicalObject", "bulk_insert", "connect"]


class LogicalObject:
    """The platform's wrapper for described objects, of which nothing public is known."""

    def __init__(self, *_: object, **__: object) -> None:
        raise DatasetError(
            "LogicalObject is not available", 'use connect("dwh/<dataset>/") and its methods'
        )
