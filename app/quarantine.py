"""Rows in quarantine: listed, brought into their table, dropped."""

from typing import Any

from flask import Blueprint, Response, request

from app import body, query
from app.answers import json_answer
from app.auth import needs
from app.dataset_connections import connection
from app.resources import resources
from worker.errors import Invalid
from worker.store import quarantine

routes = Blueprint("quarantine", __name__)

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MOST = 2**63 - 1  # of an id


@routes.get("/dwh/v4/tables/<dataset>/<name>/quarantine")
@needs("dwh:row:read")
def list_rows(dataset: str, name: str) -> Response:
    """The table's rows in quarantine, oldest first, those after `?after=`."""
    limit = query.count("limit", DEFAULT_LIMIT, MAX_LIMIT)
    after = query.count("after", 0, MOST)
    with connection(dataset) as conn:
        return json_answer(quarantine.list_rows(conn, dataset, name, limit, after))


@routes.post("/dwh/v4/tables/<dataset>/<name>/quarantine/replay")
@needs("dwh:row:write")
def replay(dataset: str, name: str) -> Response:
    """Bring rows into their table: those of `ids`, and those of `rows` as they are mended there."""
    asked = body.json_object(resources().settings.max_body_bytes) if body.received() else {}
    mended = _mended(asked.get("rows") or [])
    ids = asked.get("ids")
    if ids is None and mended:
        ids = list(mended)
    with connection(dataset) as conn:
        return json_answer(quarantine.replay(conn, dataset, name, _ids(ids), mended))


@routes.delete("/dwh/v4/tables/<dataset>/<name>/quarantine")
@needs("dwh:row:write")
def drop(dataset: str, name: str) -> Response:
    """Delete rows from quarantine: those of `?id=` (several times), or all of the table's."""
    given = request.args.getlist("id")
    strange = [text for text in given if not (text.isascii() and text.isdecimal())]
    if strange:
        raise Invalid(f"id must be a row's number in quarantine, got {strange[0]!r}")
    ids = [int(text) for text in given] or None
    with connection(dataset) as conn:
        return json_answer({"dropped": quarantine.drop(conn, dataset, name, _ids(ids))})


def _ids(given: Any) -> list[int] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(type(id) is int and 0 < id <= MOST for id in given):
        raise Invalid('"ids" must be a list of rows\' numbers in quarantine')
    return given


def _mended(given: Any) -> dict[int, Any]:
    """Rows as `list_rows` shows them, by their ids."""
    fine = isinstance(given, list) and all(isinstance(row, dict) for row in given)
    if not fine or not all({"id", "data"} <= row.keys() for row in given):
        raise Invalid('"rows" must be a list of {"id": …, "data": {…}}, as they are listed')
    _ids([row["id"] for row in given])
    return {row["id"]: row["data"] for row in given}
