"""Durations as people write them: `"1h 10m"`."""

import re

from worker.errors import Invalid

UNIT_S = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


def duration_s(text: str, where: str) -> float:
    """Seconds of a duration like `"1h 10m"`; units w d h m s.  Raises Invalid naming `where`."""
    if not re.fullmatch(r"\s*(\d+(\.\d+)?\s*[wdhms]\s*)+", text):
        raise Invalid(f'{where} must be a duration like "1h 10m" (units w d h m s), got {text!r}')
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([wdhms])", text)
    return sum(float(number) * UNIT_S[unit] for number, unit in parts)
