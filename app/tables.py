"""Tables: plan and build what a description says; list, show and drop what stands."""

from typing import Any

from flask import Blueprint, Response, request

from app import body, query
from app.answers import json_answer
from app.auth import needs
from app.dataset_connections import connection, main_connection
from app.resources import resources
from worker.errors import NotFound
from worker.store import tables
from worker.store.tables import Plan

routes = Blueprint("tables", __name__)

CREATED = 201


@routes.post("/dwh/v4/tables")
@needs("dwh:table:build")
def build() -> Response:
    """Make the table of this description, or bring the one that stands up to it."""
    description = body.json_object()
    with connection(description.get("dataset")) as conn:
        changes = tables.build(
            conn,
            description,
            allow_data_loss=query.flag("allow_data_loss"),
            if_plan=request.args.get("if_plan"),
        )
    built = {"dataset": description["dataset"], "name": description["name"], "changes": changes}
    return json_answer(built, CREATED)


@routes.post("/dwh/v4/tables/plan")
@needs("dwh:table:read")
def plan() -> Response:
    """What building this description would do; nothing is changed."""
    description = body.json_object()
    with connection(description.get("dataset")) as conn:
        return json_answer(_plan_json(tables.plan(conn, description)))


@routes.get("/dwh/v4/tables")
@needs("dwh:table:read")
def list_tables() -> Response:
    """The descriptions of all tables that were built; `?dataset=` narrows, `?all=` adds others."""
    dataset = request.args.get("dataset")
    others = query.flag("all")
    found = described(others=others)
    return json_answer([table for table in found if dataset in {None, table["dataset"]}])


def described(*, others: bool = False) -> list[dict[str, Any]]:
    """The tables of all datasets, wherever they are."""
    apart = resources().settings.dataset_urls
    with main_connection() as conn:
        found = tables.list_tables(conn, others=others)
    for name in apart:
        with connection(name) as conn:
            there = tables.list_tables(conn, others=others)
        found += [table for table in there if table["dataset"].lower() == name]
    return found


@routes.get("/dwh/v4/tables/<dataset>/<name>")
@needs("dwh:table:read")
def show(dataset: str, name: str) -> Response:
    """One table: its description, or the one that would take it over."""
    with connection(dataset) as conn:
        return json_answer(tables.show(conn, dataset, name))


@routes.get("/dwh/v4/tables/<dataset>/<name>/diff")
@needs("dwh:table:read")
def diff(dataset: str, name: str) -> Response:
    """What building the table's own description again would do: what others have changed."""
    with connection(dataset) as conn:
        described = tables.show(conn, dataset, name)
        if described["built_at"] is None:
            raise NotFound(
                f"table {dataset}.{name} was not built here, so it differs from nothing",
                "take it over: dpe table show, then dpe table build",
            )
        return json_answer(_plan_json(tables.plan(conn, described)))


@routes.delete("/dwh/v4/tables/<dataset>/<name>")
@needs("dwh:table:drop")
def drop(dataset: str, name: str) -> Response:
    """Drop a table, one with rows only with `?allow_data_loss=true`."""
    with connection(dataset) as conn:
        changes = tables.drop(conn, dataset, name, allow_data_loss=query.flag("allow_data_loss"))
    return json_answer({"dataset": dataset, "name": name, "changes": changes})


def _plan_json(found: Plan) -> dict[str, Any]:
    return {
        "dataset": found.table.dataset,
        "name": found.table.name,
        "plan": found.id,
        "loses_data": found.loses_data,
        "steps": [step.as_json() for step in found.steps],
    }
