"""What requests ask for in their addresses: numbers, instants, pages; each checked and named."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from flask import request

from worker.errors import Invalid
from worker.store.durations import duration_s
from worker.store.priorities import PRIORITIES

LONGEST_WAIT_S = 30.0
LONGEST_DELAY_S = 366 * 86400.0
LONGEST_KEY = 255


def wait_s() -> float:
    """Seconds to hold the answer for, of `?wait=`; 0 without."""
    if "wait" not in request.args:  # to be told by an exception takes longer
        return 0.0
    text = request.args["wait"]
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise Invalid(f"wait must be seconds from 0 to {LONGEST_WAIT_S:g}, got {text!r}")
    return seconds


def count(name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`."""
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:20]) <= most:
        raise Invalid(f"{name} must be a whole number from 1 to {most}, got {text!r}")
    return int(text)


def flag(name: str) -> bool:
    """A yes (true, 1, yes) or a no (false, 0, no); no without."""
    return choice(name, "false", ("true", "1", "yes", "false", "0", "no")) in {"true", "1", "yes"}


def choice(name: str, default: str, known: Iterable[str]) -> str:
    """One of the known words, in any case."""
    text = request.args[name].lower() if name in request.args else default
    if text not in known:
        raise Invalid(f"{name} must be one of {', '.join(known)}, got {text!r}")
    return text


def words(name: str, known: Iterable[str]) -> tuple[str, ...] | None:
    """Known words in capitals, given several times or with commas between; None without."""
    given = [word.strip() for text in request.args.getlist(name) for word in text.split(",")]
    chosen = tuple(word.upper() for word in given if word)
    strange = [word for word in chosen if word not in known]
    if strange:
        raise Invalid(f"{name} must be of {', '.join(known)}; got {', '.join(strange)}")
    return chosen or None


def priority() -> int | None:
    """The place of `?priority=` in PRIORITIES; None without."""
    if "priority" not in request.args:
        return None
    return PRIORITIES.index(choice("priority", "", PRIORITIES))


def due() -> tuple[float | None, datetime | None]:
    """When the job may begin at the earliest: `?delay=` in seconds, `?not_before=` as a time."""
    not_before = instant("not_before")
    if not_before and not_before > datetime.now(UTC) + timedelta(seconds=LONGEST_DELAY_S):
        raise Invalid(f"not_before must be within {LONGEST_DELAY_S / 86400:.0f} days from now")
    return duration("delay"), not_before


def refuse(*names: str, why: str) -> None:
    """Raise Invalid where one of these parameters came: to ignore it would be a surprise."""
    for name in names:
        if name in request.args:
            raise Invalid(f"{name} is not taken here: {why}")


def duration(name: str) -> float | None:
    """Seconds of a duration like `1h 10m`, or of a plain number; None without."""
    if name not in request.args:
        return None
    text = request.args[name]
    plain = re.fullmatch(r"\d{1,10}(\.\d{1,6})?", text)
    seconds = float(text) if plain else duration_s(text, name)
    if seconds > LONGEST_DELAY_S:
        raise Invalid(f"{name} must be at most {LONGEST_DELAY_S / 86400:.0f}d, got {text!r}")
    return seconds


def event_type() -> str:
    """What a start call says of itself: a program's (`api`), or a person's (`manual`)."""
    return choice("event_type", "api", ("api", "manual"))


def instant(name: str) -> datetime | None:
    """A time in ISO 8601; one without an offset is UTC."""
    if name not in request.args:
        return None
    return instant_of(name, request.args[name])


def instant_of(name: str, text: str) -> datetime:
    """A text in ISO 8601 as a time; raises Invalid naming where it stood."""
    # A plus that was not escaped in the address arrives as a space.
    for form in (text, "+".join(text.rsplit(" ", 1))):
        try:
            at = datetime.fromisoformat(form)
        except ValueError:
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    raise Invalid(f"{name} must be a time in ISO 8601, like 2026-01-31T08:00:00Z, got {text!r}")


def uuid(name: str) -> UUID | None:
    """A whole execution id."""
    text = request.args.get(name)
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(f"{name} must be an execution id, got {text!r}") from None


def idempotency_key() -> str | None:
    """The caller's own name for this call, of the header Idempotency-Key; None without."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        raise Invalid(f"Idempotency-Key must have 1 to {LONGEST_KEY} characters, got {len(key)}")
    return key
