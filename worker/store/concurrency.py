"""How many jobs of an action may run at a time, as its `forepaas.json` says (see `turns`)."""

from typing import Any

from worker.errors import Invalid


def limits_of(config: dict[str, Any]) -> tuple[int | None, bool]:
    """(jobs that may run at a time, whether a start is turned down while one is open).

    Of a `forepaas.json`: `max_concurrency`, and the platform's `allow_concurrent`.  Raises Invalid.
    """
    params = config.get("params") or {}
    most = config.get("max_concurrency", params.get("max_concurrency"))
    allowed = config.get("allow_concurrent", params.get("allow_concurrent", True))
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise Invalid(f'forepaas.json: "max_concurrency" must be 1 or more, got {most!r}')
    if not isinstance(allowed, bool):
        raise Invalid(f'forepaas.json: "allow_concurrent" must be true or false, got {allowed!r}')
    return (most, False) if allowed else (1, True)
