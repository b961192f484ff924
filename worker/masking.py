"""Secrets that this process has given to handlers, and texts without them.

They stay hidden to the process' end: a handler may leave threads behind that go on to speak.
A secret that a handler has changed, like one in base64, is not known here, and is not hidden.
"""

import re
from typing import Any

import orjson

STAR = "***"
SHORTEST = 6  # characters of a line that is hidden: a shorter one would hide half of a text

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def hide(secret: str) -> None:
    """Hide it from now on: whole, each of its lines, and as `repr` and JSON write it."""
    global _pattern  # noqa: PLW0603 -- there is one process
    if secret in _known:
        return
    _known.add(secret)
    forms = {form for known in _known for form in _forms(known) if len(form) >= SHORTEST}
    # The longest first: a secret may begin with another one.
    longest_first = sorted(forms | _known, key=len, reverse=True)
    _pattern = re.compile("|".join(map(re.escape, longest_first)))


def _forms(secret: str) -> set[str]:
    lines = {line.strip() for line in secret.splitlines()}
    written = {f(text) for text in (secret, *lines) for f in (_json, _repr)}
    return lines | written


def _json(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode())[1:-1].decode()


def _repr(text: str) -> str:
    return repr(text)[1:-1]


def masked(text: str) -> str:
    """The text with stars for secrets."""
    return text if _pattern is None else _pattern.sub(STAR, text)


def masked_json(encoded: bytes) -> bytes:
    """JSON with stars for secrets in its texts."""
    if _pattern is None or not _pattern.search(encoded.decode()):
        return encoded
    return orjson.dumps(_in_texts(orjson.loads(encoded)))


def _in_texts(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [_in_texts(one) for one in value]
    if isinstance(value, dict):
        return {masked(key): _in_texts(one) for key, one in value.items()}
    return value
