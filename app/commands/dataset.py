"""`dpe dataset …`: what is set for a dataset."""

from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.terminal import json_option


@click.group()
def dataset() -> None:
    """List datasets, and set what SQL each takes."""


@dataset.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the datasets: what SQL each takes, and how many tables it has.

    \b
    Example:
      dpe dataset list
    """
    found = Client.from_environ().get("/dwh/v4/datasets").data
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["DATASET", "DIALECT", "TABLES", "SERVER"],
        [(d["name"], d["dialect"], d["tables"], d.get("url")) for d in found],
        empty="no datasets yet: dpe table build FILE.json makes one",
    )


@dataset.command(name="set")
@click.argument("name", metavar="NAME")
@click.option(
    "--dialect", required=True, type=click.Choice(["postgres", "trino"]), help="What query takes."
)
@json_option
def set_(name: str, dialect: str, as_json: bool) -> None:
    """Set what SQL the dataset's connectors take from handlers: Postgres' own, or Trino's.

    \b
    Example:
      dpe dataset set data_prim --dialect trino
    """
    path = f"/dwh/v4/datasets/{quote(name, safe='')}"
    changed = Client.from_environ().call("PUT", path, {"dialect": dialect}).data
    if as_json:
        terminal.print_json(changed)
    else:
        click.echo(f"{changed['name']} takes {changed['dialect']}")
