"""Datasets: which there are, and what SQL each takes."""

from flask import Blueprint, Response

from app import body
from app.answers import json_answer
from app.auth import needs
from app.resources import resources
from worker.store import datasets

routes = Blueprint("datasets", __name__)


@routes.get("/dwh/v4/datasets")
@needs("dwh:dataset:read")
def list_datasets() -> Response:
    """All that are there, or have something set."""
    with resources().pool.connection() as conn:
        return json_answer(datasets.list_datasets(conn))


@routes.put("/dwh/v4/datasets/<dataset>")
@needs("dwh:dataset:write")
def set_dialect(dataset: str) -> Response:
    """Set what SQL the dataset's connectors take."""
    dialect = body.string(body.json_object(), "dialect")
    with resources().pool.connection() as conn:
        datasets.set_dialect(conn, dataset, dialect)
        found = datasets.list_datasets(conn)
    return json_answer(next(one for one in found if one["name"] == dataset))
