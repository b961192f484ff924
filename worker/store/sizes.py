"""Sizes as people write them: `"512 MB"`."""

import re
from typing import Any

from worker.errors import Invalid

UNIT_BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size_bytes(given: Any, where: str) -> int:
    """Bytes of a size like `"512 MB"`, or of a whole number.  Raises Invalid naming `where`."""
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    units = "|".join(UNIT_BYTES)
    text = given if isinstance(given, str) else ""
    found = re.fullmatch(rf"\s*(\d+(?:\.\d+)?)\s*({units})\s*", text)
    size = int(float(found[1]) * UNIT_BYTES[found[2]]) if found else 0
    if not size:
        known = " ".join(UNIT_BYTES)
        raise Invalid(f'{where} must be a size like "512 MB" (units {known}), got {given!r}')
    return size
