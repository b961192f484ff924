"""`dpe environment …`: the packages that actions of this machine's worker have asked for."""

from dataclasses import asdict
from typing import Any

import click

from app import terminal
from app.client import Client, Refused, Unreachable
from app.terminal import json_option
from worker.errors import Invalid, Unauthenticated
from worker.store.requirements import requirements_of


@click.group()
def environment() -> None:
    """List and remove the environments of packages that were installed on this machine."""


@environment.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the environments under DPE_HOME: size, last use, and the actions that ask for each.

    \b
    Example:
      dpe environment list
    """
    from worker.environment_upkeep import environments_here  # noqa: PLC0415 -- uv and all

    here = environments_here()
    askers = _askers() if here else None
    found = [
        {
            **asdict(one),
            "actions": None if askers is None else askers.get(tuple(one.requirements), []),
        }
        for one in here
    ]
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["NAME", "SIZE", "LAST USED", "PACKAGES", "ACTIONS"],
        [
            (
                one["name"],
                f"{one['bytes'] / 1e6:.1f} MB",
                "now" if one["in_use"] else terminal.utc_time(str(one["used_at"])),
                ", ".join(one["requirements"]),
                "?" if askers is None else ", ".join(a["name"] for a in one["actions"]),
            )
            for one in found
        ],
        empty="no environments here: one is made when a job first needs it",
    )


@environment.command()
@click.argument("name", metavar="NAME")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove an environment that no job uses now; the next job that needs it has it made anew.

    \b
    Example:
      dpe environment remove 3f1c0a9be2d4485c77a01f6d
    """
    from worker import environment_upkeep  # noqa: PLC0415 -- uv and all

    size = environment_upkeep.remove(name)
    if as_json:
        terminal.print_json({"name": name, "bytes": size, "removed": True})
    else:
        click.echo(f"removed {name}, {size / 1e6:.1f} MB")


def _askers() -> dict[tuple[str, ...], list[dict[str, Any]]] | None:
    """The actions by what they ask for; None, with a note, where the API can't be asked."""
    try:
        actions = Client.from_environ().get("/dpe/v3/actions").data
    except (Refused, Unreachable, Unauthenticated) as error:
        terminal.note(f"which actions ask for them is not known: {error}")
        return None
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for action in actions:
        try:
            requirements = requirements_of(action["config"])
        except Invalid:  # pushed before that was checked
            continue
        found.setdefault(requirements, []).append({"id": action["id"], "name": action["name"]})
    return found
