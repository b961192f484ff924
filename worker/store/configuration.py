"""Everything that people have set, as files: to take along, to compare, to bring in.

    actions/<id>/main.py …         the version that starts run, byte for byte
    workflows/<id>.json            its definition
    tables/<dataset>/<name>.json   its description
    datasets/<name>.json           what is set for it
    triggers/<name>.json           its definition
    settings/defaults.json         the defaults of the installation

No keys, no sessions, no addresses of databases, no rows, no jobs.  What is brought in is made or
changed, one transaction in all; what stands and is not among the files stays.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson
import psycopg

from worker.errors import DpeError, Invalid
from worker.store import actions, datasets, job_settings, tables, triggers, workflows

HEAD = "open-dpe.json"
FORMAT = {"format": 1}
KINDS = (
    "settings",
    "datasets",
    "tables",
    "actions",
    "workflows",
    "triggers",
)  # each needs those before it


@dataclass(frozen=True, slots=True)
class Change:
    """What bringing one thing in does; `details` say what of it is other than it stands."""

    kind: str  # settings, dataset, table, action, workflow, trigger
    name: str
    change: str  # new, changed
    details: list[str] = field(default_factory=list)


def export(conn: psycopg.Connection, described: Iterable[dict[str, Any]]) -> dict[str, bytes]:
    """All files by their paths; `described` are the tables, wherever they are."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {HEAD: _json(FORMAT), **dict(_files(conn, described))}


def _files(
    conn: psycopg.Connection, described: Iterable[dict[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    if defaults := job_settings.read_defaults(conn):
        yield "settings/defaults.json", _json(defaults)
    for dataset in datasets.list_datasets(conn, {}):
        if dataset["dialect"] != datasets.POSTGRES:
            set_ = {"name": dataset["name"], "dialect": dataset["dialect"]}
            yield f"datasets/{_file(dataset['name'])}.json", _json(set_)
    for table in described:
        path = f"tables/{_file(table['dataset'])}/{_file(table['name'])}.json"
        yield path, _json({k: v for k, v in table.items() if k != "built_at"})
    yield from _action_files(conn)
    for workflow in workflows.list_workflows(conn):
        yield f"workflows/{workflow.id}.json", _json(workflow.definition)
    for trigger in triggers.list_triggers(conn):
        yield f"triggers/{_file(trigger.name)}.json", _json(trigger.definition())


def _action_files(conn: psycopg.Connection) -> Iterator[tuple[str, bytes]]:
    for action in actions.list_actions(conn):
        source = actions.source(conn, action.id, action.version)
        for path, content in (source.files if source else {}).items():
            yield f"actions/{action.id}/{path}", content


def bring_in(
    conn: psycopg.Connection,
    files: Mapping[str, bytes],
    at: Callable[[str], AbstractContextManager[psycopg.Connection | None]] | None = None,
    *,
    dry_run: bool = False,
    allow_data_loss: bool = False,
    key_id: int | None = None,
) -> list[Change]:
    """Make what the files say; return what that has changed, or with `dry_run` would change.

    Raises Invalid, Conflict and the like for the first file that can't be brought in; then nothing
    is changed.  Triggers are set under the key `key_id`.  `at` connects to a dataset that is on
    another server, and gives None for those that are here: a table there is built before the rest,
    and stays where something after it is refused.
    """
    parts = _sorted(files)
    changes: list[Change] = []
    with conn.transaction() as transaction:
        for path, content in sorted(parts["settings"].items()):
            changes += _defaults(conn, path, _object(path, content))
        for path, content in sorted(parts["datasets"].items()):
            changes += _dataset(conn, path, _object(path, content))
        for path, content in sorted(parts["tables"].items()):
            given = _object(path, content)
            with at(str(given.get("dataset"))) if at else nullcontext() as there:
                changes += _table(there or conn, path, given, dry_run, allow_data_loss)
        of_actions: dict[str, dict[str, bytes]] = defaultdict(dict)
        for path, content in parts["actions"].items():
            _, id, inside = path.split("/", 2)
            of_actions[id][inside] = content
        for id, own in sorted(of_actions.items()):
            changes += _action(conn, id, own)
        changes += _workflows(conn, parts["workflows"])
        for path, content in sorted(parts["triggers"].items()):
            changes += _trigger(conn, path, _object(path, content), key_id)
        if dry_run:
            raise psycopg.Rollback(transaction)
    return changes


def _sorted(files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The files by kind; raises Invalid for what is none of ours."""
    if HEAD not in files:
        raise Invalid(f"the archive has no {HEAD}: it is not one of dpe export")
    if (head := _object(HEAD, files[HEAD])).get("format") != FORMAT["format"]:
        raise Invalid(f"{HEAD}: format {head.get('format')!r} is not known here", "update open-dpe")
    parts: dict[str, dict[str, bytes]] = {kind: {} for kind in KINDS}
    depth = {"tables": 3, "actions": 3}
    for path, content in files.items():
        kind, *rest = path.split("/")
        enough = len(rest) + 1 >= depth.get(kind, 2)
        if path == HEAD:
            continue
        if kind not in parts or not enough or (kind != "actions" and not path.endswith(".json")):
            raise Invalid(f"the archive holds {path!r}, which is no part of a configuration")
        parts[kind][path] = content
    return parts


def _defaults(conn: psycopg.Connection, path: str, given: dict[str, Any]) -> list[Change]:
    before = job_settings.read_defaults(conn)
    changed = {name: value for name, value in given.items() if before.get(name, ...) != value}
    if not changed:
        return []
    with _named(path):
        job_settings.set_defaults(conn, changed)
    details = [f"{name}: {_told(before, name)} → {_told(given, name)}" for name in changed]
    return [Change("settings", "defaults", "changed" if before else "new", details)]


def _told(settings: Mapping[str, Any], name: str) -> str:
    return orjson.dumps(settings[name]).decode() if name in settings else "built in"


def _dataset(conn: psycopg.Connection, path: str, given: dict[str, Any]) -> list[Change]:
    name, dialect = given.get("name"), given.get("dialect")
    if not isinstance(name, str):
        raise Invalid(f'{path}: "name" must be a text')
    before = datasets.dialect(conn, name)
    if before == dialect:
        return []
    datasets.set_dialect(conn, name, dialect)
    return [Change("dataset", name, "changed", [f"dialect {before} → {dialect}"])]


def _table(
    conn: psycopg.Connection,
    path: str,
    given: dict[str, Any],
    dry_run: bool,
    allow_data_loss: bool,
) -> list[Change]:
    with _named(path):
        plan = tables.plan(conn, given)
        table = plan.table
        row = conn.execute(
            "SELECT description FROM dpe.tables WHERE dataset = %s AND name = %s",
            [table.dataset, table.name],
        ).fetchone()
        if not plan.steps and row is not None and row[0] == given:
            return []
        details = [step.planned for step in plan.steps]
        if not dry_run:  # a build holds the table for as long as the rest takes
            tables.build(conn, given, allow_data_loss=allow_data_loss)
        elif plan.loses_data and not allow_data_loss:
            details.append("data would be lost: it is refused without --allow-data-loss")
    change = "new" if row is None else "changed"
    return [Change("table", table.full_name, change, details or ["its description"])]


def _action(conn: psycopg.Connection, id: str, files: dict[str, bytes]) -> list[Change]:
    with _named(f"actions/{id}"):
        stands = actions.get(conn, id)
        source = actions.source(conn, id, stands.version) if stands and stands.id == id else None
        before = source.files if source else {}
        details = [
            f"{path}: {'new' if path not in before else 'gone' if path not in files else 'changed'}"
            for path in sorted(files.keys() | before.keys())
            if files.get(path) != before.get(path)
        ]
        if source is not None and not details:
            return []
        pushed = actions.push(conn, id, files)
    change = "new" if source is None else "changed"
    return [Change("action", f"{pushed.name} ({id})", change, details)]


def _workflows(conn: psycopg.Connection, files: dict[str, bytes]) -> list[Change]:
    changes: list[Change] = []
    waiting = sorted(files)
    while waiting:
        refused: dict[str, DpeError] = {}
        for path in waiting:
            try:
                changes += _workflow(conn, path, _object(path, files[path]))
            except DpeError as error:  # one that it names may come later
                refused[path] = error
        if len(refused) == len(waiting):
            raise next(iter(refused.values()))
        waiting = list(refused)
    return changes


def _workflow(conn: psycopg.Connection, path: str, definition: dict[str, Any]) -> list[Change]:
    id = path.removeprefix("workflows/").removesuffix(".json")
    with _named(path):
        stands = workflows.get(conn, id)
        if stands is not None and stands.id == id and stands.definition == definition:
            return []
        pushed = workflows.push(conn, id, definition)
    same_id = stands is not None and stands.id == id
    return [
        Change("workflow", f"{pushed.name} ({id})", "changed" if same_id else "new",
               _keys(stands.definition, definition) if stands and same_id else [])
    ]  # fmt: skip


def _trigger(
    conn: psycopg.Connection, path: str, given: dict[str, Any], key_id: int | None
) -> list[Change]:
    with _named(path):
        stands = triggers.get(conn, str(given.get("name")))
        made = triggers.put(conn, given, key_id)
    if stands is not None and stands.definition() == made.definition():
        return []
    details = _keys(stands.definition(), made.definition()) if stands else []
    return [Change("trigger", made.name, "changed" if stands else "new", details)]


def _keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [key for key in (before | after) if before.get(key) != after.get(key)]


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except DpeError as error:
        raise type(error)(f"{path}: {error}", error.hint) from error


def _object(path: str, content: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Invalid(f"{path} must be an object")
    return value


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"


def _file(name: str) -> str:
    """A name as a file's name: no slash and no dot alone."""
    return quote(name, safe=" ").replace(".", "%2E")
