"""`dpe settings …`: what holds for jobs, and which level says so."""

import json
from typing import Any
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.terminal import json_option
from worker.errors import Invalid

PATH = "/dpe/v3/settings"


@click.group()
def settings() -> None:
    """Show what holds for jobs, and set the defaults of this installation.

    What counts is, from the strongest: a workflow's step, the action, the stage, the workflow, the
    installation (`environment`), what is built in.
    """


@settings.command()
@click.option("--action", metavar="ID", help="What holds for this action's jobs.")
@click.option("--workflow", metavar="ID", help="What holds for this workflow's runs and steps.")
@json_option
def show(action: str | None, workflow: str | None, as_json: bool) -> None:
    """Show each setting, its value and the level that says so; by default of the installation.

    \b
    Examples:
      dpe settings show
      dpe settings show --action "Load sales"
      dpe settings show --workflow Nightly --json
    """
    if action and workflow:
        raise Invalid("--action and --workflow: one of them")
    client = Client.from_environ()
    if action:
        found = client.get(f"/dpe/v3/actions/{quote(action, safe='')}/settings").data
    elif workflow:
        found = client.get(f"/dpe/v3/workflows/{quote(workflow, safe='')}/settings").data
    else:
        found = client.get(PATH).data
    if as_json:
        terminal.print_json(found)
    elif workflow:
        _print(found["settings"])
        terminal.print_table(
            ["STEP", "RUNS", "SETTING", "VALUE", "SET BY"],
            [
                (step["step"], step["runs"], s["name"], _shown(s["value"]), s["level"])
                for step in found["steps"]
                for s in step["settings"]
            ],
            empty="no steps",
        )
    else:
        _print(found)


@settings.command(name="set")
@click.argument("given", metavar="NAME=VALUE...", nargs=-1, required=True)
@json_option
def set_(given: tuple[str, ...], as_json: bool) -> None:
    """Set defaults of the installation; each VALUE is JSON, or a plain text.

    \b
    Examples:
      dpe settings set timeout=30m max_memory="512 MB"
      dpe settings set 'retry={"max_attempts": 3, "backoff": "10s"}'
      dpe settings set timeout=null                    no limit
    """
    named = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise Invalid(f"{one!r} is not NAME=VALUE")
        named[name] = _value(value)
    _change(as_json, lambda known: known | named)


@settings.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
def unset(names: tuple[str, ...], as_json: bool) -> None:
    """Take defaults of the installation back: what is built in holds again.

    \b
    Example:
      dpe settings unset timeout
    """
    _change(as_json, lambda known: {n: v for n, v in known.items() if n not in names})


def _change(as_json: bool, change: Any) -> None:
    client = Client.from_environ()
    known = {s["name"]: s["value"] for s in client.get(PATH).data if s["level"] == "environment"}
    found = client.call("PUT", PATH, change(known)).data
    if as_json:
        terminal.print_json(found)
    else:
        _print(found)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print(settings: list[dict[str, Any]]) -> None:
    rows = [(s["name"], _shown(s["value"]), s["level"]) for s in settings]
    terminal.print_table(["SETTING", "VALUE", "SET BY"], rows, empty="no settings")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
