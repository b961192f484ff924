"""`dpe table …`: tables are described in a JSON file, then built."""

import json
from pathlib import Path
from typing import Any

import click

from app import terminal
from app.client import Client
from app.terminal import json_option
from worker.errors import Invalid


@click.group()
def table() -> None:
    """Build and list tables."""


@table.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
def build(file: Path, as_json: bool) -> None:
    """Build the table that FILE describes: dataset, name, attributes, primary_key, indexes.

    A table that stands already gets the attributes that it lacks; nothing is taken away.

    \b
    Example:
      dpe table build examples/tables/event_archive.json
    """
    built = build_table(Client.from_environ(), file)
    if as_json:
        terminal.print_json(built)
    else:
        done = "; ".join(built["changes"]) or "nothing had to change"
        click.echo(f"built {built['dataset']}.{built['name']}: {done}")


def build_table(client: Client, file: Path) -> dict[str, Any]:
    """Have a described table built; raise Invalid where the file is not JSON."""
    try:
        described = json.loads(file.read_bytes())
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}") from error
    return client.call("POST", "/dwh/v4/tables", described).data


@table.command(name="list")
@click.option("--dataset", help="Only those of this dataset.")
@json_option
def list_(dataset: str | None, as_json: bool) -> None:
    """List the tables that were built.

    \b
    Example:
      dpe table list --dataset data_prim
    """
    tables = Client.from_environ().get("/dwh/v4/tables").data
    tables = [t for t in tables if dataset in {None, t["dataset"]}]
    if as_json:
        terminal.print_json(tables)
        return
    terminal.print_table(
        ["DATASET", "TABLE", "ATTRIBUTES"],
        [
            (
                t["dataset"],
                t["name"],
                ", ".join(f"{a['name']} {a['type']}" for a in t.get("attributes", [])),
            )
            for t in tables
        ],
        empty="no tables yet: dpe table build FILE.json",
    )
