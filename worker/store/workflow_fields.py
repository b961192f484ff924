"""Reading what stands at one place of a workflow's definition; errors say which place it is.

Places are JSON pointers (RFC 6901).
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from worker.errors import Invalid
from worker.store import job_settings
from worker.store.concurrency import limits_of
from worker.store.durations import duration_s

# What may stand beside `params` as well as in it, at every level.
SETTINGS = ("timeout", "retry", "priority", "max_memory", "stop_on_failure")


def settings(level: dict[str, Any], where: str) -> dict[str, Any]:
    """What a level sets for the steps below it, in `params` or beside them."""
    params = level.get("params") or {}
    if not isinstance(params, dict):
        refuse(f"{where}/params", "must be an object")
    given = {**params, **{name: level[name] for name in SETTINGS if name in level}}
    try:
        job_settings.derived({"params": params}, {})
        job_settings.read({name: level[name] for name in SETTINGS if name in level})
    except Invalid as error:
        refuse(where, str(error).removeprefix("forepaas.json: "))
    flag(given, "stop_on_failure", where)
    return given


def limits(own: dict[str, Any]) -> tuple[int | None, bool]:
    """How many runs may go on at a time, and whether a start is turned down while one does."""
    try:
        return limits_of(own)
    except Invalid as error:
        return refuse("", str(error).removeprefix("forepaas.json: "))


def flag(level: Mapping[str, Any], name: str, where: str) -> bool:
    """True or false; false where nothing is said."""
    value = level.get(name) or False
    if not isinstance(value, bool):
        refuse(f"{where}/{name}", f"must be true or false, got {value!r}")
    return value


def text(level: dict[str, Any], keys: tuple[str, ...], where: str) -> str | None:
    """The text under the first of the keys that has one."""
    for key in keys:
        value = level.get(key)
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            refuse(f"{where}/{key}", f"must be a text, and not empty, got {value!r}")
        if value is not None:
            return value
    return None


def duration(level: dict[str, Any], key: str) -> float | None:
    """Seconds of a duration at the definition's top; None where nothing is said."""
    value = level.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        refuse(f"/{key}", f'must be a duration like "1h 10m", got {value!r}')
    return duration_s(value, f"/{key}:")


def refuse_step(where: str, name: object, names: set[str]) -> NoReturn:
    """Raise Invalid: no step is called so."""
    refuse(where, f"there is no step {name!r}; there are {', '.join(sorted(names))}")


def refuse(where: str, why: str) -> NoReturn:
    """Raise Invalid with the place."""
    raise Invalid(f"{where or '/'}: {why}")


def escaped(key: str) -> str:
    """A key as it stands in a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
