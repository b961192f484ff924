"""What `dpe up --demo` shows once the stack is up: one start call becomes rows in Postgres."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import psycopg

from app import terminal
from app.client import Client
from app.commands.action_files import push_files, read_folder
from app.commands.follow import status_changes
from app.commands.table import build_table
from worker.errors import DpeError, NotFound
from worker.store.database import connect

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ACTION_ID = "dec0de000000000000000001"
KEY_NAME = "demo"
LIMIT_S = 30.0  # for a job of milliseconds: whoever looks on must not wait for ever
ORDERS: list[dict[str, Any]] = [
    {
        "customer": "Ngozi",
        "order_id": 90071992547409931,
        "remark": "more digits than a float holds",
    },
    {"customer": "Björn", "order_id": 2, "remark": "ring twice"},
    {"customer": "Mei", "order_id": 3},
    {"customer": "Tomás", "order_id": 4, "remark": None},
    {"customer": "Aïcha", "order_id": 5, "remark": "it's a gift 🎁"},
]


def show(environ: Mapping[str, str]) -> None:
    """Play the demo against the stack that `environ` (as `dpe env` prints it) describes.

    Whatever goes wrong is said in one line, and the stack stays up.
    """
    try:
        _play(environ)
    except DpeError as error:
        terminal.fail(f"the demo broke off: {error}", error.hint)
    except psycopg.Error as error:
        terminal.fail(f"the demo broke off: Postgres: {error}")
    sys.stdout.flush()


def _play(environ: Mapping[str, str]) -> None:
    if not EXAMPLES.is_dir():
        raise NotFound(
            "the demo needs the examples folder of the source",
            "run it in a clone of the repository",
        )
    client = Client(environ["DPE_URL"], environ["DPE_APIKEY"], environ["DPE_SECRETKEY"])

    _heading("1. The table, described in examples/tables/event_archive.json")
    built = build_table(client, EXAMPLES / "tables" / "event_archive.json")
    click.echo(f"   {built['dataset']}.{built['name']}: {'; '.join(built['changes']) or 'stands'}")

    _heading("2. The action, in examples/event_archive")
    pushed = push_files(client, ACTION_ID, read_folder(EXAMPLES / "event_archive"))
    click.echo(f'   pushed "{pushed["name"]}", id {pushed["id"]}, version {pushed["version"]}')

    _heading("3. An API key, and a token to call with")
    token = _token(client)

    _heading("4. The start call, with five rows")
    click.echo(_curl(client.url, token, ORDERS))
    answer = client.call("POST", f"/dpe/v3/actions/{ACTION_ID}/start?type=cam", ORDERS)
    click.echo(f"   answers {answer.status}: execution {answer.data['execution_id']} accepted")

    _heading("5. Its job")
    job: dict[str, Any] = {}
    changes = status_changes(client, answer.data["execution_id"], LIMIT_S)
    for status, elapsed_s, job in changes:  # noqa: B007 -- the last one is looked at below
        click.echo(f"   {elapsed_s:7.3f} s  {terminal.coloured(status)}")
    if job["status"] != "SUCCESS":
        raise DpeError(f"the job ended {job['status']}", f"dpe job logs {job['execution_id']}")

    _heading("6. The rows, as they stand in Postgres")
    _show_rows(environ["DPE_DATABASE_URL"])
    _show_next(client.url, token, environ)


def _token(client: Client) -> str:
    """Make the demo's key (once) and log in with it; in later runs with the stack's own."""
    keys = client.get("/iam/v4/keys").data
    known = [key for key in keys if key["name"] == KEY_NAME and not key["revoked_at"]]
    if known:
        click.echo(f"   the key {known[0]['apikey'][:8]}… is there from a run before")
        return client.token()
    made = client.call("POST", "/iam/v4/keys", {"name": KEY_NAME, "role": "DPE Editor"}).data
    click.echo(f"   apikey     {made['apikey']}")
    click.echo(f"   secretkey  {made['secretkey']}   (shown this once)")
    return Client(client.url, made["apikey"], made["secretkey"]).token()


def _show_rows(database_url: str) -> None:
    with connect(database_url, "dpe-demo") as conn:
        # Nothing is ever updated in this table: the place on disk is the order of arrival.
        rows = conn.execute(
            "SELECT order_id, customer, remark, received_on"
            " FROM data_prim.event_archive ORDER BY ctid DESC LIMIT 5"
        ).fetchall()
        count = conn.execute("SELECT count(*) FROM data_prim.event_archive").fetchone()
    headers = ["order_id", "customer", "remark", "received_on"]
    terminal.print_table(headers, rows[::-1], empty="none")
    total = count[0] if count else 0
    before = f", {total - len(rows)} of them from before" if total > len(rows) else ""
    click.echo(f"   data_prim.event_archive now has {total} rows{before}")


def _show_next(url: str, token: str, environ: Mapping[str, str]) -> None:
    _heading("Now you: this line works as it stands, for an hour")
    click.echo(_curl(url, token, [{"customer": "you", "order_id": 6, "remark": "hello"}]))
    click.echo()
    terminal.print_fields(
        [
            ("API", url),
            ("Flower", environ.get("DPE_FLOWER_URL")),
            ("your jobs", ".venv/bin/dpe job list"),
            ("a new token", ".venv/bin/dpe token"),
            ("the end", "Ctrl-C; the data stay, the next `make run` finds them"),
        ]
    )


def _curl(url: str, token: str, rows: list[dict[str, Any]]) -> str:
    """A line for a shell that works as it is printed."""
    lines = ",\n             ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    body = f"[{lines}]".replace("'", "'\\''")
    return (
        f"   curl -X POST '{url}/dpe/v3/actions/{ACTION_ID}/start?type=cam&token={token}' \\\n"
        f"     -H 'content-type: application/json' \\\n"
        f"     -d '{body}'"
    )


def _heading(text: str) -> None:
    click.echo()
    click.echo(terminal.bold(text))
