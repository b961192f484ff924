"""`dpe start action`: the call that makes a job of an event."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.commands.follow import end_with, wait_for
from app.terminal import json_option
from worker.errors import Invalid
from worker.store.priorities import PRIORITIES


@click.group()
def start() -> None:
    """Start an action."""


@start.command(name="action")
@click.argument("action_id", metavar="ID")
@click.option("--data", metavar="@FILE|-|JSON", help="The event; none: an event without content.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Default: the action's own.")
@click.option("--delay", metavar="DURATION", help='Begin after so long at the earliest: "1h 10m".')
@click.option("--not-before", metavar="TIME", help="Begin at this time at the earliest (ISO 8601).")
@click.option("--expires", metavar="DURATION", help="Not begun so long after it is due, it ends.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 1 unless SUCCESS.")
@click.option(
    "--check", type=click.Choice(["strict", "dry-run"]),
    help="Against the table that it feeds; strict: refuse bad rows; dry-run: only say which.",
)  # fmt: skip
@json_option
def start_action(  # noqa: PLR0913, PLR0917 -- its options
    action_id: str,
    data: str | None,
    priority: str | None,
    delay: str | None,
    not_before: str | None,
    expires: str | None,
    wait: bool,
    check: str | None,
    as_json: bool,
) -> None:
    """Start an action on the rows of --data: JSON text, @FILE, or - for stdin.

    \b
    Examples:
      dpe start action 5eaf0db7f6f51d5255974217 --data @rows.json --wait
      echo '[{"event_id": 1}]' | dpe start action 5eaf0db7f6f51d5255974217 --data -
    """
    client = Client.from_environ()
    asked = {"priority": priority, "event_type": "manual"}
    asked |= {"delay": delay, "not_before": not_before, "expires": expires}
    asked |= {
        "validate": "strict" if check == "strict" else None,
        "dry_run": "true" if check == "dry-run" else None,
    }
    path = f"/dpe/v3/actions/{quote(action_id, safe='')}/start"
    answer = client.call("POST", path, read_data(data), query=asked).data
    if check == "dry-run":
        show_tried(answer, as_json=as_json)
        return
    show_started(client, answer, wait=wait, as_json=as_json)


def show_tried(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what a dry run answered."""
    if as_json:
        terminal.print_json(answer)
        return
    checked = f"{answer['bad_rows']} of {answer['rows']} don't fit"
    unchecked = "not checked: forepaas.json has no params.feeds"
    terminal.print_fields(
        [
            ("action", f"{answer['name']}, version {answer['version']}"),
            ("feeds", answer["feeds"] or "says nothing"),
            ("rows", checked if answer["feeds"] else unchecked),
        ]
    )
    errors = [(error["pointer"], error["column"], error["detail"]) for error in answer["errors"]]
    if errors:
        terminal.print_table(["PLACE", "COLUMN", "WHY"], errors, empty="")


def show_started(client: Client, answer: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    """Print what a start answered, or follow its job to the end and print that.

    Leaves with exit code 1 where the job that was waited for did not succeed.
    """

    execution_id = answer["execution_id"]
    if not wait:
        if as_json:
            terminal.print_json(answer)
        else:
            terminal.print_fields([("execution_id", execution_id), ("status", answer["status"])])
        return
    if not as_json:
        terminal.note(f"job {execution_id}")
    job = wait_for(client, execution_id, quiet=as_json)
    if as_json:
        terminal.print_json(job)
    else:
        terminal.print_job(job)
    end_with(job)


def read_data(data: str | None) -> bytes | None:
    """The event's bytes as they are: the API judges them, and keeps them byte for byte."""
    if data is None:
        return None
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    if data == "@":
        raise Invalid("--data @ names no file", "write --data @FILE, or --data - for stdin")
    return Path(data[1:]).read_bytes()
