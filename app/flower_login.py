"""Who may look at Flower: its password, or an API key and its secret, as user and password.

A key's role must have the permission `dpe:flower:read`; asked at each request, so that a key that
is revoked sees nothing more.  Flower changes nothing (`read_only`), so there is no other.
"""

import binascii
import hmac
from base64 import b64decode

import psycopg
from flower.views import BaseHandler
from tornado.web import HTTPError

from app.failures import Failures
from worker.errors import TooMany
from worker.settings import Settings
from worker.store import access
from worker.store.access import Session
from worker.store.database import connect

PERMISSION = "dpe:flower:read"


class Keys:
    """API keys, looked up over one connection of this process."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._conn: psycopg.Connection | None = None

    def find(self, apikey: str, secretkey: str) -> Session | None:
        """Who a key stands for; raises psycopg.OperationalError where nobody answers."""
        for again in (True, False):
            if self._conn is None or self._conn.closed:
                self._conn = connect(self._url, "dpe-flower")
            try:
                return access.find_key(self._conn, apikey, secretkey)
            except psycopg.OperationalError:
                self._conn.close()
                if not again:
                    raise
        return None


def install(settings: Settings) -> None:
    """Have every page of Flower ask; raises nothing."""
    failures = Failures()
    keys = Keys(settings.database_url) if settings.database_url else None
    password = settings.flower_basic_auth

    def current_user(handler: BaseHandler) -> str:
        user, secret = _credentials(handler.request.headers.get("Authorization", ""))
        if password is not None and hmac.compare_digest(
            password.encode(), f"{user}:{secret}".encode()
        ):
            return user
        address = handler.request.remote_ip or ""
        try:
            failures.check(address)
        except TooMany as error:
            handler.set_header("Retry-After", str(int(error.retry_after_s) + 1))
            raise HTTPError(429, str(error)) from None
        try:
            session = keys.find(user, secret) if keys else None
        except psycopg.OperationalError:
            raise HTTPError(503, "the database does not answer") from None
        if session is None:
            failures.note(address)
            raise HTTPError(401)
        if not session.may(PERMISSION) or not session.may_come_from(address):
            raise HTTPError(403, f"the role {session.role} has no {PERMISSION}")
        return session.name

    setattr(BaseHandler, "get_current_user", current_user)  # noqa: B010 -- for the type checker


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, value = header.partition(" ")
    try:
        user, colon, secret = b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        raise HTTPError(401) from None
    if scheme.lower() != "basic" or not colon:
        raise HTTPError(401)
    return user, secret
