"""Actions and their versions: what `dpe action push` stored, byte for byte.

A version never changes: a push of the same bytes is the same version, of others the next one.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import orjson
import psycopg
from psycopg.rows import class_row

from worker.errors import Invalid
from worker.store import job_settings
from worker.store.requirements import requirements_of

CONFIG_FILE, MAIN_FILE = "forepaas.json", "main.py"
DEFAULT_FUNCTION = "customfunc"


@dataclass(frozen=True, slots=True)
class Action:
    """An action at one of its versions."""

    id: str
    name: str
    version: int
    function: str
    timeout_s: float | None
    config: dict[str, Any]
    files: list[str]  # their paths
    created_at: datetime
    updated_at: datetime


def push(conn: psycopg.Connection, action_id: str | None, files: Mapping[str, bytes]) -> Action:
    """Store the files of an action as its newest version; the very next start runs it.

    `files` maps paths as in the folder (`main.py`, `lib/x.py`) to contents.  `action_id` None: a
    new action with an id of its own.  Raises Invalid naming the file and what is wrong in it.
    Runs in a transaction of its own.
    """
    id = action_id or secrets.token_hex(12)
    if not re.fullmatch(r"[0-9a-f]{24}", id):
        raise Invalid(f"the action's id must be 24 hex characters in lower case, got {id!r}")
    config = read_config(files)
    requirements_of(config)  # raises where it is wrong
    name, function = _name(config, id), _function(config)
    derived = job_settings.derived(config, job_settings.read_defaults(conn))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(b"%d:%b%d:%b" % (len(path), path.encode(), len(files[path]), files[path]))
    with conn.transaction():
        # The row lock makes two pushes at once two versions, one after the other.
        conn.execute(
            "INSERT INTO dpe.actions (id, version) VALUES (%s, 0) ON CONFLICT DO NOTHING", [id]
        )
        newest = conn.execute(
            """
            SELECT a.version, v.digest, a.deleted_at
            FROM dpe.actions a
            LEFT JOIN dpe.action_versions v ON v.action_id = a.id AND v.version = a.version
            WHERE a.id = %s FOR UPDATE OF a
            """,
            [id],
        ).fetchone()
        assert newest is not None  # noqa: S101 -- inserted above, and rows are never deleted
        version, known_digest, deleted_at = newest
        if known_digest != digest.hexdigest() or deleted_at is not None:
            version = _next_version(conn, id)
            conn.execute(
                """
                INSERT INTO dpe.action_versions
                  (action_id, version, name, function, timeout_s, priority, expires_s, config,
                   digest, max_running, exclusive)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    id,
                    version,
                    name,
                    function,
                    derived.timeout_s,
                    derived.priority,
                    derived.expires_s,
                    orjson.dumps(config).decode(),
                    digest.hexdigest(),
                    derived.max_running,
                    derived.exclusive,
                ],
            )
            with conn.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO dpe.action_files (action_id, version, path, content)"
                    " VALUES (%s, %s, %s, %s)",
                    [(id, version, path, content) for path, content in files.items()],
                )
            conn.execute(
                "UPDATE dpe.actions SET version = %s, updated_at = now(), deleted_at = NULL"
                " WHERE id = %s",
                [version, id],
            )
        found = get(conn, id)
    assert found is not None  # noqa: S101 -- this transaction wrote it
    return found


def get(conn: psycopg.Connection, id_or_name: str) -> Action | None:
    """The action under this id, or else the one of this name; None where neither exists."""
    found = _select(conn, "a.id = %(what)s", {"what": id_or_name})
    return (found or _select(conn, "v.name = %(what)s", {"what": id_or_name}) or [None])[0]


def list_actions(conn: psycopg.Connection) -> list[Action]:
    """All actions that are not deleted, oldest first."""
    return _select(conn, "true", {})


def _select(conn: psycopg.Connection, which: str, values: dict[str, str]) -> list[Action]:
    query = f"""
        SELECT a.id, v.name, a.version, v.function, v.timeout_s, v.config,
               ARRAY(SELECT f.path FROM dpe.action_files f
                     WHERE f.action_id = a.id AND f.version = a.version ORDER BY f.path) AS files,
               a.created_at, a.updated_at
        FROM dpe.actions a
        JOIN dpe.action_versions v ON v.action_id = a.id AND v.version = a.version
        WHERE a.deleted_at IS NULL AND {which} ORDER BY a.created_at, a.id
        """  # noqa: S608 -- constants
    with conn.cursor(row_factory=class_row(Action)) as cursor:
        return cursor.execute(query.encode(), values).fetchall()


def delete(conn: psycopg.Connection, action_id: str) -> bool:
    """Take an action out of service; its versions stay, since accepted jobs still need them."""
    return (
        conn.execute(
            "UPDATE dpe.actions SET deleted_at = now() WHERE id = %s AND deleted_at IS NULL",
            [action_id],
        ).rowcount
        == 1
    )


@dataclass(frozen=True, slots=True)
class Source:
    """What a worker needs to load one version."""

    action_id: str
    version: int
    name: str
    function: str
    config: dict[str, Any]
    files: dict[str, bytes]


def source(conn: psycopg.Connection, action_id: str, version: int) -> Source | None:
    """The code of one version, also of a deleted action."""
    row = conn.execute(
        "SELECT name, function, config FROM dpe.action_versions"
        " WHERE action_id = %s AND version = %s",
        [action_id, version],
    ).fetchone()
    if row is None:
        return None
    files = conn.execute(
        "SELECT path, content FROM dpe.action_files WHERE action_id = %s AND version = %s",
        [action_id, version],
    ).fetchall()
    return Source(action_id, version, *row, files={path: bytes(content) for path, content in files})


def _next_version(conn: psycopg.Connection, id: str) -> int:
    row = conn.execute(
        "SELECT coalesce(max(version), 0) + 1 FROM dpe.action_versions WHERE action_id = %s", [id]
    ).fetchone()
    return row[0] if row else 1


def _check_paths(files: Mapping[str, bytes]) -> None:
    for path in files:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not path or set(path) & {"\\", "\0"}:
            raise Invalid(f"{path!r} is not a path inside the action's folder")


def read_config(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What forepaas.json says; raises Invalid for files that are no action."""
    _check_paths(files)
    if MAIN_FILE not in files:
        raise Invalid(f"an action needs a {MAIN_FILE}; got {', '.join(sorted(files)) or 'nothing'}")
    if CONFIG_FILE not in files:
        return {}
    try:
        config = orjson.loads(files[CONFIG_FILE])
    except orjson.JSONDecodeError as error:
        raise Invalid(f"{CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise Invalid(f"{CONFIG_FILE} must be an object, got {type(config).__name__}")
    for key in ("params", "environment"):
        if not isinstance(config.get(key) or {}, dict):
            raise Invalid(f'{CONFIG_FILE}: "{key}" must be an object')
    return config


def _name(config: dict[str, Any], id: str) -> str:
    name = config.get("display_name") or id
    if not isinstance(name, str):
        raise Invalid(f'{CONFIG_FILE}: "display_name" must be a string')
    return name


def _function(config: dict[str, Any]) -> str:
    function = config.get("function_name") or DEFAULT_FUNCTION
    if not isinstance(function, str) or not function.isidentifier():
        raise Invalid(f'{CONFIG_FILE}: "function_name" must name a function, got {function!r}')
    return function
