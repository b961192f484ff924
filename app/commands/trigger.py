"""`dpe trigger …`: what starts actions and workflows by the clock."""

import json
from typing import Any
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.commands.start import read_data
from app.terminal import json_option
from worker.errors import Invalid


@click.group()
def trigger() -> None:
    """Add, list, show, pause, resume and remove triggers; see when they tick."""


@trigger.command()
@click.argument("name", metavar="NAME")
@click.option("--cron", required=True, metavar="EXPR", help="Five fields, like '30 2 * * *'.")
@click.option("--action", "action_id", metavar="ID", help="What to start, by id or name;")
@click.option("--workflow", "workflow_id", metavar="ID", help="one of the two.")
@click.option("--timezone", metavar="ZONE", help="Like Europe/Paris; default UTC.")
@click.option("--data", metavar="@FILE|-|JSON", help="The event; default: trigger and tick.")
@click.option(
    "--catch-up",
    type=click.Choice(["none", "last", "all"]),
    help="What ticks missed in an outage start; default none.",
)
@click.option("--catch-up-limit", type=int, metavar="N", help="Of all, the newest; default 100.")
@click.option(
    "--overlap",
    type=click.Choice(["allow", "skip"]),
    help="At a tick, when the run before goes on; default allow.",
)
@json_option
def add(name: str, data: str | None, as_json: bool, **given: Any) -> None:
    """Make a trigger that starts an action or a workflow by the clock, or change the one there is.

    \b
    Examples:
      dpe trigger add nightly --cron '30 2 * * *' --timezone Europe/Paris --workflow Nightly
      dpe trigger add tidy --cron '*/10 * * * *' --action ID --overlap skip
    """
    words = {"action_id": "action", "workflow_id": "workflow"}
    body = {words.get(k, k): value for k, value in given.items() if value is not None}
    text = read_data(data)
    if text is not None:
        try:
            body["event"] = json.loads(text)
        except ValueError as error:
            raise Invalid(f"--data is not JSON: {error}") from None
    _print(Client.from_environ().call("PUT", _path(name), body).data, as_json)


@trigger.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the triggers: what each starts, when, and its next tick.

    \b
    Example:
      dpe trigger list
    """
    found = Client.from_environ().get("/dpe/v3/triggers").data
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["NAME", "CRON", "TIMEZONE", "STARTS", "NEXT"],
        [(t["name"], t["cron"], t["timezone"], _starts(t), _next(t)) for t in found],
        empty="no triggers yet: dpe trigger add NAME --cron EXPR --action ID",
    )


@trigger.command()
@click.argument("name", metavar="NAME")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one trigger, and what became of its newest ticks.

    \b
    Example:
      dpe trigger show nightly
    """
    found = Client.from_environ().get(_path(name)).data
    _print(found, as_json)
    if not as_json and found["ticks"]:
        click.echo()
        terminal.print_table(
            ["TICK", "OUTCOME", "EXECUTION", "ERROR"],
            [
                (terminal.utc_time(t["tick"]), t["outcome"], t["execution_id"], t["error"])
                for t in found["ticks"]
            ],
            empty="",
        )


@trigger.command()
@click.argument("name", metavar="NAME")
@json_option
def pause(name: str, as_json: bool) -> None:
    """Let a trigger start nothing until it is resumed.

    \b
    Example:
      dpe trigger pause nightly
    """
    _print(Client.from_environ().call("POST", f"{_path(name)}/pause").data, as_json)


@trigger.command()
@click.argument("name", metavar="NAME")
@json_option
def resume(name: str, as_json: bool) -> None:
    """Let a paused trigger tick again, from now on; what came meanwhile is not caught up.

    \b
    Example:
      dpe trigger resume nightly
    """
    _print(Client.from_environ().call("POST", f"{_path(name)}/resume").data, as_json)


@trigger.command()
@click.argument("name", metavar="NAME")
@json_option
def rm(name: str, as_json: bool) -> None:
    """Remove a trigger; runs that it started go on.

    \b
    Example:
      dpe trigger rm nightly
    """
    answer = Client.from_environ().call("DELETE", _path(name)).data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"removed {answer['name']}")


@trigger.command(name="next")
@click.argument("name", metavar="NAME")
@click.option("--count", type=click.IntRange(1, 100), default=5, metavar="N", help="Default 5.")
@json_option
def next_(name: str, count: int, as_json: bool) -> None:
    """Show when a trigger ticks next, in UTC and in its own time zone.

    \b
    Example:
      dpe trigger next nightly --count 10
    """
    answer = Client.from_environ().get(f"{_path(name)}/next", count=count).data
    if as_json:
        terminal.print_json(answer)
        return
    if answer["paused"]:
        terminal.note(f"{name} is paused: dpe trigger resume {name}")
    terminal.print_table(
        ["UTC", answer["timezone"]],
        [(terminal.utc_time(tick["tick"]), tick["local"]) for tick in answer["next"]],
        empty="it never ticks again",
    )


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_fields(
        [
            ("name", found["name"]),
            ("starts", _starts(found)),
            ("cron", f"{found['cron']} ({found['timezone']})"),
            ("event", found.get("event", "its name and its tick")),
            ("catch_up", _catch_up(found)),
            ("overlap", found["overlap"]),
            ("next", _next(found)),
        ]
    )


def _starts(found: dict[str, Any]) -> str:
    return next(f"{kind} {found[kind]}" for kind in ("action", "workflow") if kind in found)


def _catch_up(found: dict[str, Any]) -> str:
    word = found["catch_up"]
    return f"{word}, at most {found['catch_up_limit']}" if word == "all" else word


def _next(found: dict[str, Any]) -> str | None:
    return "paused" if found["paused"] else terminal.utc_time(found["next_at"])


def _path(name: str) -> str:
    return f"/dpe/v3/triggers/{quote(name, safe='')}"
