"""Whether, and when, a failed attempt is followed by another.

Its action's setting `retry` says so, or that it was Postgres which could not: out of disk, memory
or connections, an error of its files.  That is no fault of the handler's and often passes.
"""

import random
from dataclasses import dataclass
from typing import Any

from worker.errors import Invalid
from worker.store.durations import duration_s

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 3600.0
MAX_OUTAGES = 6  # after a minute in all, the outage is what the job ends with
# SQLSTATE: disk full, out of memory, too many connections, and the class of system errors.
# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
OUTAGES = ("53000", "53100", "53200", "53300", "58")


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


def is_outage(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that Postgres lacks what it needs."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if (getattr(error, "sqlstate", None) or "").startswith(OUTAGES):
            return True
        seen.add(id(error))  # an error may be its own cause: a handler's `raise error from error`
        error = error.__cause__ or error.__context__
    return False


def outage_pause_s(failures: int) -> float | None:
    """Seconds until an attempt is made again that met an outage; None: it was the last one."""
    return None if failures >= MAX_OUTAGES else FIRST_PAUSE_S * 2**failures
