"""Tables: build what a description says, list what was built."""

from flask import Blueprint, Response, request

from app import body
from app.answers import json_answer
from app.auth import needs
from app.resources import resources
from worker.store import tables

routes = Blueprint("tables", __name__)

CREATED = 201


@routes.post("/dwh/v4/tables")
@needs("dwh:table:build")
def build() -> Response:
    """Make the table of this description, or bring the one that stands up to it."""
    description = body.json_object()
    with resources().pool.connection() as conn:
        changes = tables.build(conn, description)
    built = {"dataset": description["dataset"], "name": description["name"], "changes": changes}
    return json_answer(built, CREATED)


@routes.get("/dwh/v4/tables")
@needs("dwh:table:read")
def list_tables() -> Response:
    """The descriptions of all tables that were built; `?dataset=` narrows."""
    dataset = request.args.get("dataset")
    with resources().pool.connection() as conn:
        found = tables.list_tables(conn)
    return json_answer([table for table in found if dataset in {None, table["dataset"]}])
