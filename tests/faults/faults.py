"""The faults: what each does to the stack, and what is noted of it.

A fault is a function of the stack and a seeded `random.Random`.  It returns what it did, or None
where it could not be staged at this moment (no job ran); raises `NotHere` where this machine can't
stage it at all.  Those that last end before they return, but for the frozen or cut-off worker,
which is healed later, so that other faults meet it.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.stack import Stack

Victim = tuple[str, int]  # execution id and attempt


@dataclass
class Done:
    """One fault that was done."""

    at: float  # Unix time
    healed_at: float  # when what was broken was whole again; `at` where nothing was to be healed
    limit_s: float | None  # work goes on within so many seconds of `healed_at`
    victims: list[Victim] = field(default_factory=list)  # the jobs whose process was hit
    name: str = ""  # in FAULTS


class NotHere(Exception):
    """This machine can't stage the fault; the message says why."""


Fault = Callable[[Stack, random.Random], Done | None]

# (name, weight, function); filled by the modules that define them.
FAULTS: dict[str, tuple[float, Fault]] = {}


def fault(name: str, weight: float) -> Callable[[Fault], Fault]:
    """Enter a fault into the list; `weight` is how often it comes, beside the others."""

    def enter(function: Fault) -> Fault:
        FAULTS[name] = (weight, function)
        return function

    return enter


def choose(rng: random.Random, names: list[str]) -> str:
    """One of the faults named, by weight."""
    return rng.choices(names, [FAULTS[name][0] for name in names])[0]


def done(
    at: float,
    limit_s: float | None = None,
    *,
    victims: list[Victim] | None = None,
    healed: bool = False,
) -> Done:
    """Note a fault; `healed`: it lasted until now."""
    return Done(at, time.time() if healed else at, limit_s, victims or [])
