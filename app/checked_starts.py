"""Starts that are checked before they are accepted, or that are only tried (`?dry_run=`).

What the event is checked against is the table that the action feeds, as its `forepaas.json` says.
"""

from typing import Any

import orjson
from flask import Response, request

from app import query
from app.answers import json_answer
from app.auth import check_session
from app.dataset_connections import connection
from app.resources import resources
from worker.errors import Conflict, NotFound, RowsRefused
from worker.store import actions, row_check
from worker.store.feeds import EXAMPLE, Feed, feed_of
from worker.store.row_check import Checked, Unfit


def wanted() -> bool:
    """Whether this request asks for a check or a dry run."""
    return "validate" in request.args or "dry_run" in request.args


def check(id: str, event: str | None) -> Response | None:
    """Check the event of a start; the answer of a dry run, or None: go on and accept it.

    Raises NotFound for an action or a table that there is not, Conflict where rows are to be
    checked and the action names no table, RowsRefused for rows that don't fit.
    """
    strict = query.choice("validate", "none", ("none", "strict")) == "strict"
    dry_run = query.flag("dry_run")
    if not strict and not dry_run:
        return None
    check_session()  # no statement that stores the start will ask
    with resources().pool.connection() as conn:
        action = actions.get(conn, id)
        if action is None or action.id != id:
            raise NotFound(f"action {id} not found", "GET /dpe/v3/actions lists those there are")
        feed = feed_of(action.config)
        if feed is None and strict:
            raise Conflict(
                f"action {action.name} does not say which table its event feeds",
                f"write {EXAMPLE} into its forepaas.json, and push it again",
            )
    found = None
    if feed is not None:
        with connection(feed.dataset) as conn:
            known = row_check.columns(conn, feed.dataset, feed.table)
            content = None if event is None else orjson.loads(event)
            found = row_check.check(conn, known, content, feed.filled)
    if strict and feed is not None and found is not None and found.errors:
        raise _refused(feed, found)
    if not dry_run:
        return None
    return json_answer(
        {
            "dry_run": True,
            "id": action.id,
            "name": action.name,
            "version": action.version,
            "feeds": None if feed is None else f"{feed.dataset}.{feed.table}",
            "rows": None if found is None else found.rows,
            "bad_rows": None if found is None else found.bad_rows,
            "errors": [] if found is None else [_as_json(unfit) for unfit in found.errors],
        }
    )


def _refused(feed: Feed, found: Checked) -> RowsRefused:
    shown = ""
    if found.bad_rows > len({unfit.row for unfit in found.errors}):
        shown = f"; the first {len(found.errors)} errors are listed"
    return RowsRefused(
        f"{found.bad_rows} of {found.rows} rows don't fit {feed.dataset}.{feed.table}{shown}",
        "mend them and send all again: nothing was stored",
        found.bad_rows,
        [_as_json(unfit) for unfit in found.errors],
    )


def _as_json(unfit: Unfit) -> dict[str, Any]:
    return {"pointer": unfit.pointer, "column": unfit.column, "detail": unfit.reason}
