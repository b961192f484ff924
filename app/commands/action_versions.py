"""`dpe action versions`, `diff` and `rollback`: what changed, and the way back."""

import difflib
from collections.abc import Iterator
from pathlib import Path

import click

from app import terminal
from app.client import Client
from app.commands.action_files import action_path, files_of, read_folder
from app.terminal import json_option
from worker.errors import Conflict, Invalid


@click.command()
@click.argument("action_id", metavar="ID")
@json_option
def versions(action_id: str, as_json: bool) -> None:
    """List an action's versions, newest first; a star marks the one that starts run.

    \b
    Example:
      dpe action versions 5eaf0db7f6f51d5255974217
    """
    found = Client.from_environ().get(f"{action_path(action_id)}/versions").data
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["VERSION", "", "NAME", "PUSHED", "DIGEST"],
        [
            (
                v["version"],
                "*" if v["current"] else "",
                v["name"],
                terminal.utc_time(v["created_at"]),
                v["digest"][:12],
            )
            for v in found
        ],
        empty="no versions",
    )


@click.command()
@click.argument("action_id", metavar="ID")
@click.argument("old", metavar="[OLD]", required=False)
@click.argument("new", metavar="[NEW|DIR]", required=False)
@json_option
def diff(action_id: str, old: str | None, new: str | None, as_json: bool) -> None:
    """Show what changed between two versions, or from the current one to a folder.

    Without versions: from the one before the current to the current.  With one number: from that
    version to the current.  With a folder: what a push of it would change.

    \b
    Examples:
      dpe action diff 5eaf0db7f6f51d5255974217
      dpe action diff 5eaf0db7f6f51d5255974217 3 5
      dpe action diff 5eaf0db7f6f51d5255974217 ./archive
    """
    client = Client.from_environ()
    if old is not None and new is None and not old.isdecimal():
        old, new = None, old  # a folder
        before = None
    else:
        before = _number(old) if old else _version_before(client, action_id)
    old_files = files_of(client, action_id, before)
    if new is None or new.isdecimal():
        new_files = files_of(client, action_id, int(new) if new else None)
    else:
        new_files = read_folder(Path(new))
    changes = dict(_differences(old_files, new_files))
    if as_json:
        terminal.print_json({path: "\n".join(lines) for path, lines in changes.items()})
        return
    for lines in changes.values():
        for line in lines:
            click.echo(line)
    if not changes:
        terminal.note("no difference")


@click.command()
@click.argument("action_id", metavar="ID")
@click.option("--to", "version", type=int, metavar="N", help="Default: the one before the current.")
@json_option
def rollback(action_id: str, version: int | None, as_json: bool) -> None:
    """Let starts run an earlier version again; jobs accepted before keep theirs.

    \b
    Example:
      dpe action rollback 5eaf0db7f6f51d5255974217 --to 3
    """
    asked = {"version": version}
    path = f"{action_path(action_id)}/rollback"
    answer = Client.from_environ().call("POST", path, query=asked).data
    if as_json:
        terminal.print_json(answer)
    else:
        click.echo(f"{answer['name']} ({answer['id']}) runs version {answer['version']}")


def _version_before(client: Client, action_id: str) -> int:
    found = client.get(f"{action_path(action_id)}/versions").data
    current = next(v["version"] for v in found if v["current"])
    before = next((v["version"] for v in found if v["version"] < current), None)
    if before is None:
        raise Conflict(f"action {action_id} has one version: there is nothing before it")
    return before


def _number(text: str) -> int:
    if not text.isdecimal():
        raise Invalid(f"{text!r} is no version", "dpe action versions ID lists them")
    return int(text)


def _differences(old: dict[str, bytes], new: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """For each path the lines of a unified diff; of what is no text, that it differs."""
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        names = (
            f"a/{path}" if before is not None else "/dev/null",
            f"b/{path}" if after is not None else "/dev/null",
        )
        try:
            texts = [(content or b"").decode().split("\n") for content in (before, after)]
        except UnicodeDecodeError:
            yield path, [f"binary files {names[0]} and {names[1]} differ"]
            continue
        lines = list(difflib.unified_diff(texts[0], texts[1], names[0], names[1], lineterm=""))
        yield path, lines or [f"--- {names[0]}", f"+++ {names[1]}"]  # an empty file
