"""Datasets: which there are, and what SQL each takes."""

from typing import Any

from flask import Blueprint, Response

from app import body
from app.answers import json_answer
from app.auth import needs
from app.dataset_connections import main_connection, shown
from app.resources import resources
from worker.store import datasets

routes = Blueprint("datasets", __name__)


@routes.get("/dwh/v4/datasets")
@needs("dwh:dataset:read")
def list_datasets() -> Response:
    """All that are there, or have something set."""
    return json_answer(_all())


@routes.put("/dwh/v4/datasets/<dataset>")
@needs("dwh:dataset:write")
def set_dialect(dataset: str) -> Response:
    """Set what SQL the dataset's connectors take."""
    dialect = body.string(body.json_object(), "dialect")
    with resources().pool.connection() as conn:
        datasets.set_dialect(conn, dataset, dialect)
    return json_answer(next(one for one in _all() if one["name"] == dataset))


def _all() -> list[dict[str, Any]]:
    with main_connection() as there:
        tables = datasets.tables_of(there)
    with resources().pool.connection() as conn:
        return _with_urls(datasets.list_datasets(conn, tables))


def _with_urls(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those on a server of their own with its `url`, without secrets, and with no count."""
    urls = resources().settings.dataset_urls
    known = {one["name"].lower() for one in found}
    found += [{"name": n, "dialect": "postgres", "tables": None} for n in urls if n not in known]
    told = [
        {**one, "url": shown(url), "tables": None} if url else one
        for one in found
        for url in [urls.get(one["name"].lower())]
    ]
    return sorted(told, key=lambda one: one["name"])
