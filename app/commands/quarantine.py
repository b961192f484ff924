"""`dpe table quarantine …`: rows that their table did not take."""

import json
from pathlib import Path

import click

from app import terminal
from app.client import Client
from app.commands.table_name import TABLE, table_path
from app.terminal import json_option
from worker.errors import Invalid

id_option = click.option(
    "--id", "ids", metavar="N", type=click.IntRange(1), multiple=True, help="Only this; repeatable."
)


@click.group(name="quarantine")
def quarantine() -> None:
    """Look at rows that a table did not take, mend and replay them, or drop them."""


@quarantine.command(name="list")
@click.argument("name", metavar=TABLE)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 1000), default=100, show_default=True,
    help="How many at most.",
)  # fmt: skip
@click.option("--after", metavar="N", type=click.IntRange(1), help="Go on after this one.")
@json_option
def list_(name: str, limit: int, after: int | None, as_json: bool) -> None:
    """List a table's rows in quarantine, oldest first, each with the reason.

    \b
    Example:
      dpe table quarantine list data_prim.orders --json > rows.json
    """
    path = f"{table_path(name)}/quarantine"
    rows = Client.from_environ().get(path, limit=limit, after=after).data
    if as_json:
        terminal.print_json(rows)
        return
    terminal.print_table(
        ["ID", "EXECUTION", "ROW", "WHY", "DATA"],
        [
            (r["id"], r["execution_id"][:7], r["row_number"], r["reason"], json.dumps(r["data"]))
            for r in rows
        ],
        empty="nothing is in quarantine",
    )


@quarantine.command()
@click.argument("name", metavar=TABLE)
@id_option
@click.option(
    "--rows", metavar="@FILE", help="Mended rows, as `list --json` wrote them: only these go in."
)
@json_option
def replay(name: str, ids: tuple[int, ...], rows: str | None, as_json: bool) -> None:
    """Bring rows from quarantine into their table, each once; those that still don't fit stay.

    \b
    Examples:
      dpe table quarantine replay data_prim.orders
      dpe table quarantine replay data_prim.orders --rows @mended.json
    """
    asked: dict[str, object] = {"ids": list(ids)} if ids else {}
    if rows is not None:
        if not rows.startswith("@"):
            raise Invalid(f"--rows {rows}: write --rows @FILE")
        try:
            asked["rows"] = json.loads(Path(rows[1:]).read_bytes())
        except ValueError as error:
            raise Invalid(f"{rows[1:]} is not JSON: {error}") from error
    path = f"{table_path(name)}/quarantine/replay"
    done = Client.from_environ().call("POST", path, asked).data
    if as_json:
        terminal.print_json(done)
        return
    click.echo(f"{done['replayed']} rows went in, {done['left']} are left in quarantine")
    if done["errors"]:
        found = [(error["id"], error["reason"]) for error in done["errors"]]
        terminal.print_table(["ID", "WHY"], found, empty="")


@quarantine.command()
@click.argument("name", metavar=TABLE)
@id_option
@click.option("--yes", is_flag=True, help="Don't ask; asked is only on a terminal.")
@json_option
def drop(name: str, ids: tuple[int, ...], yes: bool, as_json: bool) -> None:
    """Delete rows from quarantine: all of the table's, or those of --id.

    \b
    Example:
      dpe table quarantine drop data_prim.orders --id 17
    """
    if not yes:
        what = f"{len(ids)} rows" if ids else "all rows"
        terminal.confirm(f"drop {what} of {name} from quarantine?")
    path = f"{table_path(name)}/quarantine"
    dropped = Client.from_environ().call("DELETE", path, query={"id": ids}).data
    if as_json:
        terminal.print_json(dropped)
    else:
        click.echo(f"{dropped['dropped']} rows dropped")
