"""Whether a webhook's call was signed with its secret: Standard Webhooks, GitHub, Stripe.

Signatures are compared in constant time.  Where a form signs the time as well, a call that is
older than the tolerance, or from the future, is refused: so one that somebody has recorded can't be
sent again later; within the tolerance its id says that it came before.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable
from hashlib import sha256

import orjson
from werkzeug.datastructures import Headers

from worker.errors import Invalid, Unauthenticated
from worker.store.webhooks import GITHUB, STANDARD

PREFIX = "whsec_"
SHORTEST_SECRET = 16  # characters; of the standard form 24 bytes, as its specification says
LONGEST_SECRET = 1000
LEAST_BYTES, MOST_BYTES = 24, 64


def new_secret(form: str) -> str:
    """A secret as senders of this form take it."""
    if form == GITHUB:
        return secrets.token_hex(32)
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(form: str, secret: str) -> None:
    """Raise Invalid where a sender's secret is none of this form."""
    if form != STANDARD:
        if not SHORTEST_SECRET <= len(secret) <= LONGEST_SECRET or not secret.isprintable():
            raise Invalid(f'"secret" must have {SHORTEST_SECRET} to {LONGEST_SECRET} characters')
        return
    try:
        length = len(_standard_key(secret))
    except (binascii.Error, ValueError):
        length = 0
    if not LEAST_BYTES <= length <= MOST_BYTES:
        raise Invalid(
            f'"secret" must be {PREFIX} and {LEAST_BYTES} to {MOST_BYTES} bytes in base64'
        )


def check(
    form: str,
    secret: str,
    headers: Headers,
    body: bytes,
    now: float,
    tolerance_s: float,
) -> str | None:
    """The call's own id, under which it is taken once; None: the form has none.

    `now` is Unix time, `body` as it came.  Raises Unauthenticated saying what is wrong.
    """
    if form == STANDARD:
        return _standard(secret, headers, body, _Window(now, tolerance_s))
    if form == GITHUB:
        _compare("sha256=" + _hex(secret, body), [_header(headers, "X-Hub-Signature-256")])
        return headers.get("X-GitHub-Delivery")
    return _stripe(secret, headers, body, _Window(now, tolerance_s))


def _standard(secret: str, headers: Headers, body: bytes, window: "_Window") -> str:
    id, at = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
    signed = hmac.digest(_standard_key(secret), f"{id}.{at}.".encode() + body, "sha256")
    right = "v1," + base64.b64encode(signed).decode()
    # Several with blanks between, while a sender's secret is replaced.
    _compare(right, _header(headers, "webhook-signature").split())
    window.check(at)
    return id


def _stripe(secret: str, headers: Headers, body: bytes, window: "_Window") -> str:
    parts = [part.partition("=") for part in _header(headers, "Stripe-Signature").split(",")]
    at = next((value for name, _, value in parts if name.strip() == "t"), "")
    right = _hex(secret, f"{at}.".encode() + body)
    _compare(right, [value for name, _, value in parts if name.strip() == "v1"])
    window.check(at)
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        event = None
    id = event.get("id") if isinstance(event, dict) else None
    # The event's id is signed with it.  Without one, at least the very same call counts once.
    return id if isinstance(id, str) else f"{at}.{right}"


class _Window:
    """The time in which a call is taken."""

    def __init__(self, now: float, tolerance_s: float) -> None:
        self._now, self._tolerance_s = now, tolerance_s

    def check(self, at: str) -> None:
        """Raise Unauthenticated for a Unix time outside of it."""
        known = at.isascii() and at.isdecimal() and len(at) <= len(str(2**53))
        if not known or abs(self._now - int(at)) > self._tolerance_s:
            raise _refused(f"its time is more than {self._tolerance_s:g} s from now")


def _compare(right: str, given: Iterable[str]) -> None:
    # Each of them, so that the time says nothing about which.
    if not sum(hmac.compare_digest(right.encode(), one.encode()) for one in given):
        raise _refused("its signature is not that of the webhook's secret")


def _header(headers: Headers, name: str) -> str:
    value = headers.get(name)
    if not value:
        raise _refused(f"the header {name} is missing")
    return value


def _hex(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, sha256).hexdigest()


def _standard_key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(
        f"the webhook's call was refused: {why}",
        "is the sender's secret the one of `dpe action webhook`, and its clock right?",
    )
