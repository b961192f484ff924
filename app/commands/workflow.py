"""`dpe workflow …`: files that say which actions run after which."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.commands.start import read_data, show_started
from app.terminal import json_option
from worker.errors import Conflict, Invalid
from worker.store.priorities import PRIORITIES


@click.group()
def workflow() -> None:
    """Push, list, show, start and delete workflows.

    A run of a workflow is a job: `dpe job show`, `logs`, `stop` and `retry` take it.
    """


@workflow.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--id", "workflow_id", metavar="24HEX", help="The workflow's id; made known if new.")
@json_option
def push(file: Path, workflow_id: str | None, as_json: bool) -> None:
    """Store FILE as a workflow's newest version; the very next start follows it.

    Without --id the workflow of the same display_name gets the new version; where the server knows
    none of that name, a new workflow is made.

    \b
    Example:
      dpe workflow push nightly.json
    """
    definition = _read(file)
    client = Client.from_environ()
    if workflow_id is None:
        workflow_id = _known_id(client, definition)
    if workflow_id is None:
        pushed = client.call("POST", "/dpe/v3/workflows", definition).data
    else:
        pushed = client.call("PUT", f"/dpe/v3/workflows/{workflow_id}", definition).data
    if as_json:
        terminal.print_json(pushed)
    else:
        terminal.print_fields((name, pushed[name]) for name in ("id", "name", "version"))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise Invalid(f"{file} is not JSON: {error}") from None


def _known_id(client: Client, definition: Any) -> str | None:
    name = definition.get("display_name") if isinstance(definition, dict) else None
    found = client.get("/dpe/v3/workflows").data if name else []
    same = [known["id"] for known in found if known["name"] == name]
    if len(same) > 1:
        raise Conflict(
            f"{len(same)} workflows are called {name!r}: {', '.join(same)}", "say which: --id 24HEX"
        )
    if not same:
        return None
    terminal.note(f'workflow "{name}" is known: a new version of {same[0]}')
    return same[0]


@workflow.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the workflows, oldest first.

    \b
    Example:
      dpe workflow list --json
    """
    found = Client.from_environ().get("/dpe/v3/workflows").data
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["ID", "NAME", "VERSION", "STAGES", "UPDATED"],
        [
            (w["id"], w["name"], w["version"], len(w["stages"]), terminal.utc_time(w["updated_at"]))
            for w in found
        ],
        empty="no workflows yet: dpe workflow push FILE",
    )


@workflow.command()
@click.argument("workflow_id", metavar="ID")
@json_option
def show(workflow_id: str, as_json: bool) -> None:
    """Show one workflow, by its id or its name. With --json, its definition as push takes it.

    \b
    Example:
      dpe workflow show Nightly --json > nightly.json
    """
    found = Client.from_environ().get(_path(workflow_id)).data
    if as_json:
        terminal.print_json(found["definition"])
        return
    terminal.print_fields(
        (name, found[name]) for name in ("id", "name", "version", "created_at", "updated_at")
    )
    click.echo(json.dumps(found["definition"], indent=2, ensure_ascii=False))


@workflow.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--data", metavar="@FILE|-|JSON", help="The event; none: an event without content.")
@click.option("--priority", type=click.Choice(PRIORITIES), help="Of all steps; default: their own.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 1 unless SUCCESS.")
@json_option
def start(
    workflow_id: str, data: str | None, priority: str | None, wait: bool, as_json: bool
) -> None:
    """Start a workflow, by its id or its name; every step gets the event of --data.

    \b
    Example:
      dpe workflow start Nightly --data '{"day": "2026-01-31"}' --wait
    """
    client = Client.from_environ()
    path = f"/dpe/v3/workflows/{client.get(_path(workflow_id)).data['id']}/start"
    asked = {"priority": priority, "event_type": "manual"}
    answer = client.call("POST", path, read_data(data), query=asked).data
    show_started(client, answer, wait=wait, as_json=as_json)


@workflow.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Don't ask; asked is only on a terminal.")
@json_option
def delete(workflow_id: str, yes: bool, as_json: bool) -> None:
    """Take a workflow out of service; runs that were started go on.

    \b
    Example:
      dpe workflow delete Nightly --yes
    """
    if not yes:
        terminal.confirm(f"Delete workflow {workflow_id}?")
    answer = Client.from_environ().call("DELETE", _path(workflow_id)).data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"deleted {answer['id']} ({answer['name']})")


def _path(workflow_id: str) -> str:
    return f"/dpe/v3/workflows/{quote(workflow_id, safe='')}"
