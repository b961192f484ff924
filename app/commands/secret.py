"""`dpe secret …`: what handlers are given and nobody is shown."""

import sys
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.terminal import json_option


@click.group()
def secret() -> None:
    """Set, list and remove the secrets that handlers are given."""


@secret.command(name="set")
@click.argument("name", metavar="NAME")
@json_option
def set_(name: str, as_json: bool) -> None:
    """Set a secret to what comes on stdin; on a terminal it is asked for, and not shown.

    In forepaas.json {"$secret": "NAME"} stands for it.  One line end at its end is left out.

    \b
    Example:
      dpe secret set shop_password < password.txt
    """
    if sys.stdin.isatty():
        value = click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True)
    else:
        value = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    made = Client.from_environ().call("PUT", _path(name), {"value": value}).data
    if as_json:
        terminal.print_json(made)
    else:
        click.echo(f"set {made['name']}")


@secret.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the secrets, without their values.

    \b
    Example:
      dpe secret list
    """
    found = Client.from_environ().get("/dpe/v3/secrets").data
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["NAME", "SET"],
        [(s["name"], terminal.utc_time(s["updated_at"])) for s in found],
        empty="no secrets yet: dpe secret set NAME",
    )


@secret.command()
@click.argument("name", metavar="NAME")
@json_option
def rm(name: str, as_json: bool) -> None:
    """Remove a secret; jobs that need it fail from then on.

    \b
    Example:
      dpe secret rm shop_password
    """
    answer = Client.from_environ().call("DELETE", _path(name)).data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"removed {name}")


def _path(name: str) -> str:
    return f"/dpe/v3/secrets/{quote(name, safe='')}"
