"""`dpe action webhook`: an address for senders that can't log in."""

import sys

import click

from app import terminal
from app.client import Client
from app.commands.action_files import action_path
from app.terminal import json_option
from worker.errors import Invalid


@click.command()
@click.argument("action_id", metavar="ID")
@click.option(
    "--form",
    type=click.Choice(["standard", "github", "stripe"]),
    default="standard",
    show_default=True,
    help="How the sender signs.",
)
@click.option("--secret-from-stdin", is_flag=True, help="The sender's own secret; else a new one.")
@click.option("--remove", is_flag=True, help="Refuse its calls from now on.")
@json_option
def webhook(
    action_id: str, form: str, secret_from_stdin: bool, remove: bool, as_json: bool
) -> None:
    """Make or replace an action's webhook, and print its secret, this once.

    Its calls need no session: they are signed with the secret.

    \b
    Example:
      dpe action webhook 5eaf0db7f6f51d5255974217 --form github
    """
    client = Client.from_environ()
    id = client.get(action_path(action_id)).data["id"]
    path = f"{action_path(id)}/webhook"
    if remove:
        answer = client.call("DELETE", path).data
        terminal.print_json(answer) if as_json else click.echo(f"removed the webhook of {id}")
        return
    secret = sys.stdin.read().strip() if secret_from_stdin else None
    if secret == "":
        raise Invalid("nothing came on stdin: the sender's secret is missing")
    made = client.call("PUT", path, {"form": form, "secret": secret}).data
    made["url"] = client.url + made["url"]
    if as_json:
        terminal.print_json(made)
        return
    terminal.print_fields((field, made[field]) for field in ("id", "form", "url", "secret"))
    terminal.note("the secret is not shown again")
