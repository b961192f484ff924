"""The files of an action: from a folder to the server and back, byte for byte."""

import base64
import binascii
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from app.client import Client
from worker.errors import DpeError, Invalid, NotFound

CONFIG_FILE = "forepaas.json"
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info")


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


def files_of(client: Client, action_id: str, version: int | None = None) -> dict[str, bytes]:
    """The files of a version, byte for byte; None: of the one that starts run."""
    sent = client.get(f"{action_path(action_id)}/files", version=version).data["files"]
    return {str(_inside(path)): _decoded(text) for path, text in sent.items()}


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


def action_path(action_id: str) -> str:
    if not action_id:
        raise NotFound("an empty id names no action")
    return f"/dpe/v3/actions/{quote(action_id, safe='')}"
