"""`dpe export` and `dpe import`: the configuration of one installation for another."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from app import terminal
from app.client import Client
from app.terminal import json_option
from worker.errors import Conflict


@click.command(name="export")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def export(file: Path, force: bool) -> None:
    """Write actions, workflows, tables and triggers into FILE, a tgz; no secrets, no rows.

    \b
    Example:
      dpe export configuration.tgz
    """
    if file.exists() and not force:
        raise Conflict(f"{file}: already there", "use --force, or name another file")
    draft = file.with_name(f".{file.name}.part")  # a break leaves no half of an archive
    try:
        with draft.open("wb") as sink:
            Client.from_environ().download("/dpe/v3/configuration/export", sink)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    terminal.note(f"{file}: {file.stat().st_size:,} bytes")


@click.command(name="import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--allow-data-loss", is_flag=True, help="Also where tables lose columns or values.")
@json_option
def import_(file: Path, dry_run: bool, allow_data_loss: bool, as_json: bool) -> None:
    """Make what FILE, an archive of `dpe export`, holds: all of it, or nothing where one fails.

    What is there and not in FILE stays. The same again changes nothing.

    \b
    Example:
      dpe import configuration.tgz --dry-run
    """
    asked = {"dry_run": "true" if dry_run else None,
             "allow_data_loss": "true" if allow_data_loss else None}  # fmt: skip
    boundary = uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="archive"; filename="archive.tgz"'
        "\r\nContent-Type: application/gzip\r\n\r\n"
    )
    answer = Client.from_environ().call(
        "POST",
        "/dpe/v3/configuration/import",
        head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode(),
        query=asked,
        content_type=f"multipart/form-data; boundary={boundary}",
    )
    if as_json:
        terminal.print_json(answer.data)
    else:
        _print(answer.data)


def _print(answer: dict[str, Any]) -> None:
    for change in answer["changes"]:
        click.echo(f"{change['change']:<8} {change['kind']:<9} {change['name']}")
        for detail in change["details"]:
            click.echo(f"{'':<18} {detail}")
    count = len(answer["changes"])
    words = "would be made" if answer["dry_run"] else "made"
    terminal.note(f"{count} change{'' if count == 1 else 's'} {words}")
