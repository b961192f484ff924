"""`dpe action …`: the folders with main.py and forepaas.json that jobs run."""

import json
from pathlib import Path

import click

from app import terminal
from app.client import Client
from app.commands.action_files import CONFIG_FILE, action_path, files_of, push_files, read_folder
from app.commands.action_test import test
from app.commands.action_versions import diff, rollback, versions
from app.commands.action_webhook import webhook
from app.terminal import json_option
from worker.errors import Conflict


@click.group()
def action() -> None:
    """Test, push, list, show, pull and delete actions; compare versions, go back to one."""


for command in (test, versions, diff, rollback, webhook):
    action.add_command(command)


@action.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--id", "action_id", metavar="24HEX", help="The action's id; made known if new.")
@json_option
def push(folder: Path, action_id: str | None, as_json: bool) -> None:
    """Store DIR as an action's newest version; the very next start runs it.

    DIR holds main.py, forepaas.json and further modules.  Left out: whatever begins with a dot,
    __pycache__, *.pyc and *.egg-info.

    Without --id the action of the same display_name gets the new version; where the server knows
    none of that name, a new action is made.  The same bytes again are no new version.

    \b
    Example:
      dpe action push ./archive --id 5eaf0db7f6f51d5255974217
    """
    files = read_folder(folder)
    client = Client.from_environ()
    if action_id is None:
        action_id = _known_id(client, files[CONFIG_FILE])
    pushed = push_files(client, action_id, files)
    if as_json:
        terminal.print_json(pushed)
    else:
        terminal.print_fields(
            [("id", pushed["id"]), ("name", pushed["name"]), ("version", pushed["version"])]
        )


def _known_id(client: Client, config: bytes) -> str | None:
    try:
        name = json.loads(config)["display_name"]
    except (ValueError, KeyError, TypeError):
        return None  # the server says what is wrong with it, in the same words for everybody
    same = [known for known in client.get("/dpe/v3/actions").data if known["name"] == name]
    if len(same) > 1:
        ids = ", ".join(known["id"] for known in same)
        raise Conflict(f"{len(same)} actions are called {name!r}: {ids}", "say which: --id 24HEX")
    if not same:
        return None
    terminal.note(f'action "{name}" is known: a new version of {same[0]["id"]}')
    return same[0]["id"]


@action.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the actions, oldest first.

    \b
    Example:
      dpe action list --json
    """
    actions = Client.from_environ().get("/dpe/v3/actions").data
    if as_json:
        terminal.print_json(actions)
        return
    terminal.print_table(
        ["ID", "NAME", "VERSION", "UPDATED"],
        [
            (a["id"], a["name"], a["version"], terminal.utc_time(a.get("updated_at")))
            for a in actions
        ],
        empty="no actions yet: dpe action push DIR",
    )


@action.command()
@click.argument("action_id", metavar="ID")
@json_option
def show(action_id: str, as_json: bool) -> None:
    """Show one action, by its id or its name.

    \b
    Example:
      dpe action show 5eaf0db7f6f51d5255974217
    """
    found = Client.from_environ().get(action_path(action_id)).data
    if as_json:
        terminal.print_json(found)
    else:
        terminal.print_fields((k, v) for k, v in found.items() if k != "_id")


@action.command()
@click.argument("action_id", metavar="ID")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@click.option("--version", type=int, metavar="N", help="Default: the one that starts run.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@json_option
def pull(
    action_id: str, folder: Path | None, version: int | None, force: bool, as_json: bool
) -> None:
    """Write an action's files into DIR (default: a new folder called by the action's id).

    \b
    Example:
      dpe action pull 5eaf0db7f6f51d5255974217 ./archive
    """
    files = files_of(Client.from_environ(), action_id, version)
    folder = folder or Path(action_id)
    contents = {folder / path: content for path, content in files.items()}
    there = [str(path) for path in contents if path.exists()]
    if there and not force:
        raise Conflict(f"{', '.join(there)}: already there", "use --force, or name another folder")
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if as_json:
        terminal.print_json({"id": action_id, "files": [str(path) for path in contents]})
    else:
        for path in contents:
            click.echo(path)


@action.command()
@click.argument("action_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Don't ask; asked is only on a terminal.")
@json_option
def delete(action_id: str, yes: bool, as_json: bool) -> None:
    """Take an action out of service; jobs accepted before still run.

    \b
    Example:
      dpe action delete 5eaf0db7f6f51d5255974217 --yes
    """
    client = Client.from_environ()
    found = client.get(action_path(action_id)).data
    if not yes:
        terminal.confirm(f'Delete action "{found["name"]}" ({found["id"]})?')
    answer = client.call("DELETE", action_path(found["id"])).data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"deleted {found['id']}")
