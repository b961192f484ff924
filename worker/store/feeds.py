"""Which table an action's event feeds, as its `forepaas.json` says: then rows can be checked.

`"params": {"feeds": "data_prim/orders"}`, or `{"feeds": {"table": "data_prim/orders",
"filled": ["day"]}}`, where `filled` names columns that the handler fills itself.
"""

from dataclasses import dataclass
from typing import Any

from worker.errors import Conflict

EXAMPLE = '"params": {"feeds": "data_prim/orders"}'


@dataclass(frozen=True, slots=True)
class Feed:
    """A table, and those of its columns that rows need not bring."""

    dataset: str
    table: str
    filled: tuple[str, ...] = ()


def feed_of(config: dict[str, Any]) -> Feed | None:
    """What a `forepaas.json` says; None: nothing.  Raises Conflict where that can't be read.

    Asked when a start is to be checked and not at the push, since a `feeds` of whatever shape may
    be a parameter of the handler's own.
    """
    said = (config.get("params") or {}).get("feeds")
    if said is None:
        return None
    table, filled = (said.get("table"), said.get("filled", [])) if isinstance(said, dict) else (
        said, [])  # fmt: skip
    parts = _parts(table)
    named = isinstance(filled, list) and all(isinstance(name, str) for name in filled)
    if len(parts) != 2 or not named:  # noqa: PLR2004
        raise Conflict(
            f'the action\'s forepaas.json names no table with "params.feeds": {said!r}',
            f"write it like {EXAMPLE}, and push the action again",
        )
    return Feed(parts[0], parts[1], tuple(filled))


def _parts(table: Any) -> list[str]:
    if not isinstance(table, str):
        return []
    parts = [part for part in table.removeprefix("dwh/").split("/") if part]
    return table.split(".") if len(parts) == 1 else parts
