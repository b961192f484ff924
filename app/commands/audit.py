"""`dpe audit`: who changed, stopped and started what."""

import click

from app import terminal
from app.client import Client
from app.terminal import json_option


@click.command()
@click.option("--starts", is_flag=True, help="The starts, of jobs that are kept; else the changes.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N")
@json_option
def audit(starts: bool, limit: int, as_json: bool) -> None:
    """List who changed and stopped what, the newest first.

    \b
    Example:
      dpe audit --limit 100
    """
    query = {"limit": limit, "starts": "true" if starts else None}
    found = Client.from_environ().get("/iam/v4/audit", **query).data
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["WHEN", "WHO", "FROM", "WHAT", "ON", "ANSWER", "MADE"],
        [
            (
                terminal.utc_time(e["at"]),
                e["who"],
                e["address"],
                e["permission"],
                f"{e['method'] or ''} {e['path']}".strip(),
                e["status"],
                e["made"],
            )
            for e in found
        ],
        empty="nothing was changed yet",
    )
