"""Secrets in an action's settings: `{"$secret": "name"}` stands for the value of that name.

They are read when a job begins, so a secret that was set anew holds for the next job.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from worker import masking, sealing
from worker.errors import LoadError
from worker.settings import current_settings
from worker.store import handler_secrets

WORD = "$secret"


def named_in(value: Any) -> Iterator[str]:
    """The names of secrets that a setting refers to, at any depth.  Raises LoadError."""
    if isinstance(value, dict):
        if WORD in value:
            name = value[WORD]
            if len(value) > 1 or not isinstance(name, str):
                raise LoadError(f'a secret is referred to by {{"{WORD}": "name"}} and nothing else')
            yield name
            return
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from named_in(one)


def filled(value: Any, secrets: Mapping[str, str]) -> Any:
    """A setting with the secrets in it."""
    if isinstance(value, dict):
        if WORD in value:
            return secrets[value[WORD]]
        return {key: filled(one, secrets) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, secrets) for one in value]
    return value


def read(conn: psycopg.Connection, names: frozenset[str]) -> dict[str, str]:
    """The secrets of these names; from now on they are masked.  Raises LoadError naming one."""
    sealed = handler_secrets.values(conn, names)
    missing = sorted(names - sealed.keys())
    if missing:
        raise LoadError(
            f"the action needs the secret {missing[0]!r}, which is not set",
            f"`dpe secret set {missing[0]}`",
        )
    found = {}
    for name, value in sealed.items():
        found[name] = sealing.unseal(current_settings(), whose(name), value)
        masking.hide(found[name])
    return found


def whose(name: str) -> str:
    """What a secret is encrypted as: the value of one name opens as no other."""
    return f"the secret {name}"
