"""Starts checked against the table that the action feeds: 422 with each place, or a dry run."""

import json
from typing import Any

import psycopg
import pytest

from tests.app.conftest import MAIN, Caller
from worker.store import actions, tables

ROWS = [{"id": 1, "name": "ann"}, {"id": "one", "name": "bob"}, {"id": 3, "colour": "red"}]
GOOD = ROWS[:1]


def push(conn: psycopg.Connection, feeds: Any = "data_prim/event") -> str:
    config = {"display_name": "Archive", "params": {"feeds": feeds} if feeds else {}}
    files = {"main.py": MAIN, "forepaas.json": json.dumps(config).encode()}
    return actions.push(conn, None, files).id


@pytest.fixture
def table(conn: psycopg.Connection) -> None:
    attributes = [
        {"name": "id", "type": "Number", "format": "integer"},
        {"name": "name", "type": "String"},
    ]
    described = {"dataset": "data_prim", "name": "event", "attributes": attributes}
    tables.build(conn, described | {"primary_key": ["id"]})


def stored(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.usefixtures("table")
def test_rows_that_do_not_fit_are_refused_each_with_its_place(
    editor: Caller, conn: psycopg.Connection
) -> None:
    path = f"/dpe/v3/actions/{push(conn)}/start?validate=strict"
    answer = editor.post(path, json=ROWS)
    assert answer.status_code == 422
    assert answer.json["type"] == "urn:open-dpe:rows-refused"
    assert answer.json["error"] == "2 of 3 rows don't fit data_prim.event"
    assert answer.json["bad_rows"] == 2
    assert [(e["pointer"], e["column"]) for e in answer.json["errors"]] == [
        ("#/1/id", "id"),
        ("#/2/colour", None),
    ]
    assert 'invalid input syntax for type bigint: "one"' in answer.json["errors"][0]["detail"]
    assert stored(conn) == 0
    assert editor.post(path, json=GOOD).status_code == 202
    assert stored(conn) == 1


@pytest.mark.usefixtures("table")
def test_without_being_asked_nothing_is_checked(editor: Caller, conn: psycopg.Connection) -> None:
    start = f"/dpe/v3/actions/{push(conn)}/start"
    assert editor.post(start, json=ROWS).status_code == 202
    assert editor.post(f"{start}?validate=none", json=ROWS).status_code == 202


@pytest.mark.usefixtures("table")
def test_a_dry_run_says_what_would_happen_and_stores_nothing(
    editor: Caller, conn: psycopg.Connection
) -> None:
    id = push(conn)
    answer = editor.post(f"/dpe/v3/actions/{id}/start?dry_run=1", json=ROWS)
    assert answer.status_code == 200
    said = answer.json
    assert (said["dry_run"], said["id"], said["feeds"]) == (True, id, "data_prim.event")
    assert (said["rows"], said["bad_rows"], len(said["errors"])) == (3, 2, 2)
    strict = f"/dpe/v3/actions/{id}/start?dry_run=1&validate=strict"
    assert editor.post(strict, json=ROWS).status_code == 422
    assert editor.post(strict, json=GOOD).json["bad_rows"] == 0
    free = editor.post(f"/dpe/v3/actions/{push(conn, None)}/start?dry_run=1", json=ROWS).json
    assert (free["feeds"], free["rows"], free["errors"]) == (None, None, [])
    assert stored(conn) == 0


@pytest.mark.usefixtures("table")
def test_what_the_handler_fills_need_not_be_sent(editor: Caller, conn: psycopg.Connection) -> None:
    rows = [{"name": "ann"}]
    plain, filled = push(conn), push(conn, {"table": "data_prim.event", "filled": ["id"]})
    refused = editor.post(f"/dpe/v3/actions/{plain}/start?validate=strict", json=rows)
    assert refused.json["errors"] == [
        {"pointer": "#/0", "column": "id", "detail": "must have a value"}
    ]
    done = editor.post(f"/dpe/v3/actions/{filled}/start?validate=strict", json=rows)
    assert done.status_code == 202


@pytest.mark.parametrize(
    ("feeds", "status"),
    [(None, 409), ("event", 409), (7, 409), ({"filled": 1}, 409), ("data_prim/none", 404)],
)
def test_a_check_needs_a_table(
    editor: Caller, conn: psycopg.Connection, feeds: Any, status: int
) -> None:
    answer = editor.post(f"/dpe/v3/actions/{push(conn, feeds)}/start?validate=strict", json=GOOD)
    assert answer.status_code == status
    assert answer.json["hint"]


def test_a_check_asks_for_what_a_start_asks_for(editor: Caller, conn: psycopg.Connection) -> None:
    missing = f"/dpe/v3/actions/{'0' * 24}/start?dry_run=1"
    assert editor.post(missing, json=GOOD).status_code == 404
    unclear = f"/dpe/v3/actions/{push(conn)}/start?validate=perhaps"
    assert editor.post(unclear, json=GOOD).status_code == 400
    editor.delete("/iam/logout")
    assert editor.post(f"/dpe/v3/actions/{push(conn)}/start?dry_run=1").status_code == 401
