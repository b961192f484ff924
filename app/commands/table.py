"""`dpe table …`: tables are described in a JSON file, then built."""

import json
from pathlib import Path
from typing import Any

import click

from app import terminal
from app.client import Client
from app.commands.quarantine import quarantine
from app.commands.table_name import TABLE, table_path
from app.commands.table_rows import export, head
from app.terminal import json_option
from worker.errors import Invalid

data_loss_option = click.option(
    "--allow-data-loss", is_flag=True, help="Do also what loses rows or values."
)


@click.group()
def table() -> None:
    """Build tables, look at them, and export their rows."""


for command in (head, export, quarantine):
    table.add_command(command)


@table.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@data_loss_option
@json_option
def build(file: Path, allow_data_loss: bool, as_json: bool) -> None:
    """Build the table that FILE describes: dataset, name, attributes, primary_key, indexes.

    A table that stands already is brought to its description, and taken over where it was not
    built here.  The steps are shown before, and on a terminal asked for.  Steps that lose data are
    taken with --allow-data-loss only.

    \b
    Example:
      dpe table build examples/tables/event_archive.json
    """
    client = Client.from_environ()
    described = _described(file)
    plan = client.call("POST", "/dwh/v4/tables/plan", described).data
    if plan["steps"] and plan["steps"][0]["step"] != "create":
        terminal.note("\n".join(_lines(plan)))
        if allow_data_loss or not plan["loses_data"]:
            terminal.confirm("do it?")
    query = {"if_plan": plan["plan"], "allow_data_loss": "true" if allow_data_loss else None}
    built = client.call("POST", "/dwh/v4/tables", described, query=query).data
    if as_json:
        terminal.print_json(built)
    else:
        done = "; ".join(built["changes"]) or "nothing had to change"
        click.echo(f"built {built['dataset']}.{built['name']}: {done}")


def build_table(client: Client, file: Path) -> dict[str, Any]:
    """Have a described table built; raise Invalid where the file is not JSON."""
    return client.call("POST", "/dwh/v4/tables", _described(file)).data


@table.command(name="list")
@click.option("--dataset", help="Only those of this dataset.")
@click.option("--all", "others", is_flag=True, help="Also those that were not built here.")
@json_option
def list_(dataset: str | None, others: bool, as_json: bool) -> None:
    """List the tables that were built.

    \b
    Example:
      dpe table list --dataset data_prim
    """
    query = {"dataset": dataset, "all": "true" if others else None}
    tables = Client.from_environ().get("/dwh/v4/tables", **query).data
    if as_json:
        terminal.print_json(tables)
        return
    terminal.print_table(
        ["DATASET", "TABLE", "ATTRIBUTES"],
        [
            (
                t["dataset"],
                t["name"],
                ", ".join(f"{a['name']} {a['type']}" for a in t.get("attributes", []))
                or f"{t.get('kind', '')}, not built here",
            )
            for t in tables
        ],
        empty="no tables yet: dpe table build FILE.json",
    )


@table.command()
@click.argument("name", metavar=TABLE)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one table: its attributes, key, indexes and size.

    With --json it is the description as `dpe table build` takes it: so a table that was not built
    here is taken over.

    \b
    Example:
      dpe table show data_prim.orders --json > orders.json && dpe table build orders.json
    """
    shown = Client.from_environ().get(table_path(name)).data
    if as_json:
        terminal.print_json(shown)
        return
    stands = shown["standing"]
    indexes = [", ".join([i] if isinstance(i, str) else i) for i in shown.get("indexes") or []]
    key = shown.get("primary_key") or []
    terminal.print_fields(
        [
            ("table", f"{shown['dataset']}.{shown['name']}"),
            ("description", shown.get("description")),
            ("built", terminal.utc_time(shown["built_at"]) or "not here"),
            ("primary key", ", ".join([key] if isinstance(key, str) else key) or None),
            ("indexes", "; ".join(indexes) or None),
            ("stands", f"{stands['kind']}, {stands['bytes']} bytes" if stands else "no more"),
            ("rows, about", stands["rows_about"] if stands else None),
        ]
    )
    click.echo()
    terminal.print_table(
        ["ATTRIBUTE", "TYPE", "DESCRIPTION"],
        [(a["name"], _type(a), a.get("description")) for a in shown["attributes"]],
        empty="no attributes",
    )


@table.command()
@click.argument("what", metavar="TABLE|FILE")
@json_option
def diff(what: str, as_json: bool) -> None:
    """Show what building FILE would change, or what others changed in TABLE since it was built.

    Nothing is done.  TABLE is written DATASET.NAME.

    \b
    Example:
      dpe table diff orders.json
    """
    client = Client.from_environ()
    if what.endswith(".json") or Path(what).is_file():
        plan = client.call("POST", "/dwh/v4/tables/plan", _described(Path(what))).data
    else:
        plan = client.get(f"{table_path(what)}/diff").data
    if as_json:
        terminal.print_json(plan)
    else:
        click.echo("\n".join(_lines(plan)))


@table.command()
@click.argument("name", metavar=TABLE)
@click.option("--yes", is_flag=True, help="Don't ask; asked is only on a terminal.")
@data_loss_option
@json_option
def drop(name: str, yes: bool, allow_data_loss: bool, as_json: bool) -> None:
    """Drop a table; one that has rows only with --allow-data-loss.

    \b
    Example:
      dpe table drop data_prim.orders --allow-data-loss
    """
    if not yes:
        terminal.confirm(f"drop {name}?")
    query = {"allow_data_loss": "true" if allow_data_loss else None}
    dropped = Client.from_environ().call("DELETE", table_path(name), query=query).data
    if as_json:
        terminal.print_json(dropped)
    else:
        click.echo("; ".join(dropped["changes"]))


def _described(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}") from error


def _lines(plan: dict[str, Any]) -> list[str]:
    """A plan as people read it."""
    name = f"{plan['dataset']}.{plan['name']}"
    lines = [
        f"  {step['step']} {step['what']}" + ("  (loses data)" if step["loses_data"] else "")
        for step in plan["steps"]
    ]
    return [f"{name}:", *lines] if lines else [f"{name}: nothing differs"]


def _type(attribute: dict[str, Any]) -> str:
    exact = attribute.get("column_type") or attribute.get("format")
    return f"{attribute['type']} ({exact})" if exact else attribute["type"]
