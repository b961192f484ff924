"""`dpe action …`: the folders with main.py and forepaas.json that jobs run."""

import base64
import binascii
import json
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import click

from app import terminal
from app.client import Client
from app.terminal import json_option
from worker.errors import Conflict, DpeError, Invalid, NotFound

CONFIG_FILE = "forepaas.json"
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info")


@click.group()
def action() -> None:
    """Push, list, show, pull and delete actions."""


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


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of an action's folder, by their path in it; raise Invalid naming what lacks."""
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder", "name the one with main.py and forepaas.json")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _left_out(path.relative_to(folder))
    }
    for name in ("main.py", CONFIG_FILE):
        if name not in files:
            raise Invalid(f"{folder} has no {name}", "an action is main.py and forepaas.json")
    return files


def _left_out(path: Path) -> bool:
    return any(
        part.startswith(".") or any(Path(part).match(pattern) for pattern in LEFT_OUT)
        for part in path.parts
    )


def push_files(client: Client, action_id: str | None, files: dict[str, bytes]) -> dict[str, Any]:
    """Send files as an action's newest version; id None: as a new action."""
    body = {"files": {path: base64.b64encode(data).decode() for path, data in files.items()}}
    if action_id is None:
        return client.call("POST", "/dpe/v3/actions", body).data
    return client.call("PUT", f"/dpe/v3/actions/{action_id}", body).data


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
    found = Client.from_environ().get(_path(action_id)).data
    if as_json:
        terminal.print_json(found)
    else:
        terminal.print_fields((k, v) for k, v in found.items() if k != "_id")


@action.command()
@click.argument("action_id", metavar="ID")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@json_option
def pull(action_id: str, folder: Path | None, force: bool, as_json: bool) -> None:
    """Write an action's files into DIR (default: a new folder called by the action's id).

    \b
    Example:
      dpe action pull 5eaf0db7f6f51d5255974217 ./archive
    """
    answer = Client.from_environ().get(f"{_path(action_id)}/files").data
    folder = folder or Path(action_id)
    contents = {folder / _inside(path): _decoded(text) for path, text in answer["files"].items()}
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


def _inside(path: str) -> PurePosixPath:
    # The server is trusted with code that runs there, not with files anywhere on this disk.
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts:
        raise DpeError(f"the server sent a path that leads out of the folder: {path!r}")
    return inside


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DpeError(f"the server sent a file that is not base64: {error}") from error


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
    found = client.get(_path(action_id)).data
    if not yes:
        terminal.confirm(f'Delete action "{found["name"]}" ({found["id"]})?')
    answer = client.call("DELETE", _path(found["id"])).data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"deleted {found['id']}")


def _path(action_id: str) -> str:
    if not action_id:
        raise NotFound("an empty id names no action")
    return f"/dpe/v3/actions/{quote(action_id, safe='')}"
