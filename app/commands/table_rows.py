"""`dpe table head` and `dpe table export`: rows to look at, rows to take along."""

import io
import json
import sys
from pathlib import Path

import click

from app import terminal
from app.client import Client
from app.commands.table_name import TABLE, table_path
from app.terminal import json_option
from worker.errors import Invalid


@click.command()
@click.argument("name", metavar=TABLE)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 1000), default=20, show_default=True,
    help="How many at most.",
)  # fmt: skip
@json_option
def head(name: str, limit: int, as_json: bool) -> None:
    """Show the first rows of a table, in the order of its primary key where it has one.

    \b
    Example:
      dpe table head data_prim.orders --limit 5
    """
    received = io.BytesIO()
    Client.from_environ().download(f"{table_path(name)}/rows", received, limit=limit)
    if as_json:
        click.echo(received.getvalue().decode())  # untouched: numbers keep all their digits
        return
    # Numbers as they came: a float would show other digits.
    rows = json.loads(received.getvalue(), parse_float=str, parse_int=str)
    headers = list(rows[0]) if rows else []
    terminal.print_table(headers, [list(row.values()) for row in rows], empty="no rows")


@click.command()
@click.argument("name", metavar=TABLE)
@click.option(
    "--format", "format_", type=click.Choice(["csv", "parquet"]),
    help="Default: what FILE ends in, else csv.",
)  # fmt: skip
@click.option(
    "--out", "-o", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Where to; default stdout. It is there when it is whole.",
)  # fmt: skip
@click.option("--limit", metavar="N", type=click.IntRange(1), help="So many rows, and no order.")
def export(name: str, format_: str | None, out: Path | None, limit: int | None) -> None:
    """Write all rows of a table, as they stand at one moment, to FILE or to stdout.

    \b
    Example:
      dpe table export data_prim.orders --out orders.parquet
    """
    by_name = "parquet" if out is not None and out.suffix == ".parquet" else "csv"
    format_ = format_ or by_name
    client, path = Client.from_environ(), f"{table_path(name)}/export"
    if out is None:
        if format_ == "parquet" and sys.stdout.isatty():
            raise Invalid("Parquet is nothing to show on a terminal", "name a file: --out FILE")
        client.download(path, sys.stdout.buffer, format=format_, limit=limit)
        return
    part = out.with_name(out.name + ".part")
    try:
        with part.open("wb") as sink:
            client.download(path, sink, format=format_, limit=limit)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    terminal.note(f"{out}: {out.stat().st_size} bytes")
