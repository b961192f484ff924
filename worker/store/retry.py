"""An action's setting `retry`: whether, and when, a failed attempt is followed by another."""

import random
from dataclasses import dataclass
from typing import Any

from worker.errors import Invalid
from worker.store.durations import duration_s

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`{"max_attempts": 5, "backoff": "10s", "on": ["ConnectionError"]}` in forepaas.json.

    `max_attempts` counts the first one too; `backoff` is the first pause, doubled at each further
    one; `on` names exceptions, their bases included (empty: all).  Lost workers do not count here.
    """

    max_attempts: int = 1
    backoff_s: float = FIRST_PAUSE_S
    on: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Retry":
        """Read the setting, at the top or in `params`; raises Invalid naming what is wrong."""
        given = config.get("retry") or (config.get("params") or {}).get("retry") or {}
        where = 'forepaas.json: "retry"'
        if not isinstance(given, dict):
            raise Invalid(f"{where} must be an object, got {given!r}")
        attempts = given.get("max_attempts", 1)
        if type(attempts) is not int or not 1 <= attempts <= 1000:  # noqa: PLR2004
            raise Invalid(f'{where}: "max_attempts" must be from 1 to 1000, got {attempts!r}')
        backoff = given.get("backoff", FIRST_PAUSE_S)
        backoff_s = backoff
        if isinstance(backoff, str):
            backoff_s = duration_s(backoff, f'{where}: "backoff"')
        if isinstance(backoff_s, bool) or not isinstance(backoff_s, (int, float)) or backoff_s < 0:
            raise Invalid(f'{where}: "backoff" must be a duration like "10s", got {backoff!r}')
        on = given.get("on", [])
        if not isinstance(on, list) or not all(isinstance(name, str) for name in on):
            raise Invalid(f'{where}: "on" must be a list of exceptions\' names, got {on!r}')
        return cls(attempts, float(backoff_s), tuple(on))

    def pause_s(self, error: BaseException, attempts: int) -> float | None:
        """Seconds until the next attempt after `attempts` failed ones; None: there is none.

        Doubled each time and spread over half of its length, so that jobs which failed together
        do not come back together.
        """
        if attempts >= self.max_attempts or not self._meant(error):
            return None
        pause_s = min(self.backoff_s * 2 ** (attempts - 1), LONGEST_PAUSE_S)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 -- no secret

    def _meant(self, error: BaseException) -> bool:
        names = {kind.__name__ for kind in type(error).__mro__}
        names |= {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
        return not self.on or bool(names & set(self.on))
