"""What is set for jobs, and where: in a step, its action, its stage, its workflow, the defaults.

The first of these that says something counts.  The defaults are those of the installation, kept in
Postgres for all its processes, and below them the ones that are built in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

from worker.errors import Invalid
from worker.store.concurrency import limits_of
from worker.store.durations import duration_s
from worker.store.priorities import PRIORITIES
from worker.store.retry import Retry
from worker.store.sizes import size_bytes

# Each setting, and what is built in.  None: no limit.
BUILT_IN: dict[str, Any] = {
    "timeout": "2h",
    "retry": {"max_attempts": 1, "backoff": "1s", "on": []},
    "priority": "default",
    "expires": None,
    "max_concurrency": None,
    "allow_concurrent": True,
    "max_memory": None,
    "run_timeout": None,
}
OF_WORKFLOWS = ("run_timeout", "max_concurrency", "allow_concurrent")
OF_STEPS = ("timeout", "retry", "priority", "max_concurrency", "max_memory")
OF_ACTIONS = ("timeout", "retry", "priority", "expires", "max_concurrency", "allow_concurrent",
              "max_memory")  # fmt: skip
# Those with a default for the whole installation; `allow_concurrent` is for each to decide.
WITH_DEFAULT = tuple(name for name in BUILT_IN if name != "allow_concurrent")
ALWAYS_OURS = ("timeout", "allow_concurrent")  # known to the platform, in `params`
OF_WORKERS = ("retry", "max_memory")  # what a worker asks for, and not who accepts a start


@dataclass(frozen=True, slots=True)
class Derived:
    """What is stored with a version of an action, for starts to be accepted quickly."""

    timeout_s: float | None
    priority: int
    expires_s: float | None
    max_running: int | None
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it holds, and the level that says so."""

    name: str
    value: Any
    level: str


def derived(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Derived:
    """Of a `forepaas.json` above these defaults; raises Invalid naming what is wrong in it."""
    return read({**defaults, **own_settings(config)})


def read(settings: Mapping[str, Any]) -> Derived:
    """Of settings by their names; raises Invalid naming what is wrong."""
    found = {"params": dict(settings)}
    Retry.of(found)
    memory_of(found)
    max_running, exclusive = limits_of(found)
    return Derived(timeout_of(found), priority_of(found), expires_of(found), max_running, exclusive)


def above(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A `forepaas.json` with the defaults below all that it says, as it would say them itself."""
    own = own_settings(config)
    rest = {name: value for name, value in config.items() if name not in own}
    return {**rest, "params": {**defaults, **(config.get("params") or {}), **own}}


def own_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a `forepaas.json` makes, at its top or in `params`.

    In `params` stand the author's own parameters as well: `"priority": 5` there is one of these.
    """
    params = config.get("params") or {}
    found = {
        name: params[name]
        for name in OF_ACTIONS
        if name in params and (name in ALWAYS_OURS or _can_be(name, params[name]))
    }
    top = {name: config[name] for name in OF_ACTIONS if name in config and name != "timeout"}
    # `"retry": null` and the like stand for "nothing said", as they always have.
    return found | {n: v for n, v in top.items() if v is not None or n not in {"retry", "priority"}}


def _can_be(name: str, value: Any) -> bool:
    if name == "retry":
        return isinstance(value, dict)
    readers = {"priority": priority_of, "expires": expires_of, "max_memory": memory_of,
               "max_concurrency": limits_of}  # fmt: skip
    try:
        readers[name]({"params": {name: value}})
    except Invalid:
        return False
    return True


def resolved(
    names: Iterable[str], levels: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[Setting]:
    """Each setting as it holds; `levels` from the strongest to the weakest, before the built-in."""
    ordered = [*levels, ("built in", BUILT_IN)]
    found = []
    for name in names:
        level, given = next((level, given) for level, given in ordered if name in given)
        found.append(Setting(name, given[name], level))
    return found


def read_defaults(conn: psycopg.Connection) -> dict[str, Any]:
    """The defaults of the installation: those that were set."""
    rows = conn.execute("SELECT name, value FROM dpe.defaults ORDER BY name").fetchall()
    return dict(rows)


def set_defaults(conn: psycopg.Connection, given: Mapping[str, Any]) -> None:
    """Set defaults, at once for all actions and workflows that say nothing; Ellipsis: unset.

    Starts accepted from then on, and attempts begun a few seconds after, have them.  Raises Invalid
    naming what is wrong.  Runs in a transaction of its own.
    """
    for name, value in given.items():
        if name not in WITH_DEFAULT:
            known = ", ".join(WITH_DEFAULT)
            raise Invalid(f"{name!r} has no default; there are {known}")
        if value is not ...:
            _check(name, value)
    with conn.transaction():
        conn.execute("LOCK TABLE dpe.defaults IN SHARE ROW EXCLUSIVE MODE")
        for name, value in given.items():
            if value is ...:
                conn.execute("DELETE FROM dpe.defaults WHERE name = %s", [name])
                continue
            conn.execute(
                "INSERT INTO dpe.defaults (name, value) VALUES (%s, %s)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value, set_at = now()",
                [name, orjson.dumps(value).decode()],
            )
        _derive_again(conn)


def _check(name: str, value: Any) -> None:
    try:
        if name == "run_timeout":
            timeout_of({"params": {"timeout": value}})
        else:
            read({name: value})
    except Invalid as error:
        raise Invalid(f"{name}: {str(error).removeprefix('forepaas.json: ')}") from None


def _derive_again(conn: psycopg.Connection) -> None:
    defaults = read_defaults(conn)
    rows = conn.execute("SELECT action_id, version, config FROM dpe.action_versions").fetchall()
    values = []
    for action_id, version, config in rows:
        d = derived(config, defaults)
        values.append(
            (d.timeout_s, d.priority, d.expires_s, d.max_running, d.exclusive, action_id, version)
        )
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            UPDATE dpe.action_versions
            SET timeout_s = %s, priority = %s, expires_s = %s, max_running = %s, exclusive = %s
            WHERE action_id = %s AND version = %s
            """,
            values,
        )


def timeout_of(config: Mapping[str, Any]) -> float | None:
    """Seconds that a job of this `forepaas.json` may take; None: no limit.  Raises Invalid."""
    timeout = (config.get("params") or {}).get("timeout", BUILT_IN["timeout"])
    where = 'forepaas.json: "params.timeout"'
    if timeout is None:
        return None
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and timeout > 0:
        return float(timeout)
    if not isinstance(timeout, str):
        raise Invalid(f'{where} must be a duration like "1h 10m" or null, got {timeout!r}')
    return duration_s(timeout, where)


def expires_of(config: Mapping[str, Any]) -> float | None:
    """Seconds after which a job of this `forepaas.json` that has not begun ends; None: never."""
    expires = config.get("expires", (config.get("params") or {}).get("expires"))
    if expires is None:
        return None
    where = 'forepaas.json: "expires"'
    if not isinstance(expires, str):
        raise Invalid(f'{where} must be a duration like "1h 10m" or null, got {expires!r}')
    return duration_s(expires, where)


def priority_of(config: Mapping[str, Any]) -> int:
    """The place in PRIORITIES that this `forepaas.json` asks for.  Raises Invalid."""
    name = config.get("priority", (config.get("params") or {}).get("priority", "default"))
    if name not in PRIORITIES:
        known = ", ".join(PRIORITIES)
        raise Invalid(f'forepaas.json: "priority" must be one of {known}, got {name!r}')
    return PRIORITIES.index(name)


def memory_of(config: Mapping[str, Any]) -> int | None:
    """Bytes that a job of this `forepaas.json` may take beyond its process'; None: no limit."""
    given = config.get("max_memory", (config.get("params") or {}).get("max_memory"))
    return None if given is None else size_bytes(given, 'forepaas.json: "max_memory"')
