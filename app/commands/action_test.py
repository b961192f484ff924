"""`dpe action test`: run a handler, show the rows that it would write, write none."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from app import terminal
from app.client import client_settings
from app.commands.action_files import read_folder
from app.stack_file import environment
from app.terminal import json_option
from worker.errors import DpeError, Invalid

MARKS = {"inserted": "+", "updated": "~", "deleted": "-"}


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--event", metavar="FILE|-", help="The event, JSON; none: an event without content.")
@click.option(
    "--limit", metavar="N", type=click.IntRange(0), default=20, show_default=True,
    help="Rows to show of each table.",
)  # fmt: skip
@json_option
def test(folder: Path, event: str | None, limit: int, as_json: bool) -> None:
    """Run the handler in DIR on an event, and show the rows that it would write: none is written.

    It runs here, in one transaction that is rolled back, on the database of the stack that
    `dpe up` runs under DPE_HOME, or on DPE_DATABASE_URL.  Nothing is pushed.  Exit code 1 where
    the handler fails.

    \b
    Example:
      dpe action test ./archive --event rows.json
    """
    files = read_folder(folder)
    asked = {
        "files": {path: base64.b64encode(content).decode() for path, content in files.items()},
        "event": _read(event),
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker.rehearsal"],
        check=False,
        input=json.dumps(asked).encode(),
        stdout=subprocess.PIPE,
        env=_environ(),
    )
    if not done.stdout:
        raise DpeError(f"the handler's process ended with exit code {done.returncode}")
    outcome = json.loads(done.stdout)
    if "refused" in outcome:
        raise Invalid(outcome["refused"], outcome["hint"])
    if as_json:
        terminal.print_json(outcome)
    else:
        # Numbers as they came: a float would show other digits.
        _print(json.loads(done.stdout, parse_float=str), limit)
    if outcome["status"] != "SUCCESS":
        sys.exit(1)


def _read(event: str | None) -> str | None:
    if event is None:
        return None
    content = sys.stdin.buffer.read() if event == "-" else Path(event).read_bytes()
    try:
        text = content.decode("utf-8-sig")
        json.loads(text)
    except ValueError as error:
        raise Invalid(f"the event in {event} is not JSON: {error}") from None
    return text


def _environ() -> dict[str, str]:
    settings = client_settings()
    own = {"DPE_HOME": str(settings.home), "DPE_DATABASE_URL": settings.database()}
    return {**environment(settings.home), **os.environ, **own}


def _print(outcome: dict[str, Any], limit: int) -> None:
    for line in outcome["log"]:
        click.echo(terminal.log_line(line))
    click.echo()
    error = outcome["error"] or {}
    terminal.print_fields(
        [
            ("status", outcome["status"]),
            ("took", terminal.lasted(float(outcome["duration"]))),
            ("result", outcome["result"]),
            *(("wrote", stats) for stats in outcome["stats"]),
            *((one["what"], one["file"]) for one in outcome["files"]),
            ("error", f"{error['type']}: {error['message']}" if error else None),
        ]
    )
    for table in outcome["tables"]:
        _print_table(table, limit)
    click.echo()
    terminal.note("nothing of it was kept" if outcome["tables"] else "no rows; nothing was kept")


def _print_table(table: dict[str, Any], limit: int) -> None:
    counts = ", ".join(f"{len(table[kind])} {kind}" for kind in MARKS)
    click.echo(f"\n{terminal.bold(table['table'])}: {counts}")
    for note in table["notes"]:
        click.echo(f"  {note}")
    rows = [
        (MARKS[kind], _changed(row) if kind == "updated" else row)
        for kind in MARKS
        for row in table[kind]
    ]
    if rows and limit:
        headers = list(dict.fromkeys(name for _, row in rows for name in row))
        shown = [[mark, *(row.get(name) for name in headers)] for mark, row in rows[:limit]]
        terminal.print_table(["", *headers], shown, empty="")
        if len(rows) > limit:
            click.echo(f"… and {len(rows) - limit} more")


def _changed(row: dict[str, Any]) -> dict[str, Any]:
    """The row as it would be, and what was there before where that is another value."""
    before, after = row["before"], row["after"]
    return {
        name: value if before.get(name) == value else f"{before.get(name)} → {value}"
        for name, value in after.items()
    }
