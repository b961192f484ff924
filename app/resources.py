"""What one API process holds for all its requests, and where a request finds it."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import psycopg
from flask import Flask, current_app
from itsdangerous import BadSignature, TimestampSigner
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from app.failures import Failures
from app.handover import Handover
from app.intake import Intake
from app.limits import Limits
from app.lookups import Lookups
from app.waits import Waits
from worker.errors import Unauthenticated
from worker.settings import Settings
from worker.store import access
from worker.store.database import LoopConnection, connect, open_pool

# Of one process.  A statement takes about a millisecond and Python runs one thread at a time, so
# a few serve many threads; Postgres has 100 connections by default, for all processes together.
CONNECTIONS = 8
SESSIONS_KEPT = 10_000

Pool = ConnectionPool[psycopg.Connection[TupleRow]]


class Tokens:
    """Session ids on their way out and back in: signed, so that a guess never asks Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @cached_property
    def _signer(self) -> TimestampSigner:
        # At first use, not at start: an API that starts before its database still comes up.
        with self._pool.connection() as conn:
            return TimestampSigner(
                access.signing_secret(conn), salt="session", digest_method=sha256
            )

    def seal(self, secret: str) -> str:
        """The token of a session, safe in an address."""
        return self._signer.sign(secret).decode()

    def unseal(self, token: str) -> str:
        """The session's secret in a token; raises Unauthenticated for one not made here."""
        try:
            return self._signer.unsign(token).decode()
        except (BadSignature, UnicodeError):
            raise Unauthenticated from None


class KnownSessions:
    """Sessions read before, the most recently used ones, by their token."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, access.Session] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, token: str) -> access.Session | None:
        with self._guard:
            found = self._kept.get(token)
            if found is not None:
                self._kept.move_to_end(token)
            return found

    def keep(self, token: str, session: access.Session | None) -> None:
        """Keep what was read; None: forget it."""
        with self._guard:
            self._kept.pop(token, None)
            if session is not None:
                self._kept[token] = session
                if len(self._kept) > SESSIONS_KEPT:
                    self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Resources:
    settings: Settings
    pool: Pool
    tokens: Tokens
    limits: Limits
    failures: Failures
    waits: Waits
    handover: Handover
    intake: Intake
    lookups: Lookups
    sessions: KnownSessions

    def close(self) -> None:
        """Let waiting requests answer, then close the connections."""
        self.waits.close()
        self.pool.close()


def hold(app: Flask, settings: Settings) -> None:
    """Open what the process holds and keep it with the application."""
    pool = open_pool(settings.database(), CONNECTIONS, "dpe-api")
    handover = Handover(pool)

    app.extensions["dpe"] = Resources(
        settings=settings,
        pool=pool,
        tokens=Tokens(pool),
        limits=Limits(settings, pool),
        failures=Failures(),
        waits=Waits(lambda: connect(settings.database(), "dpe-api")),
        handover=handover,
        intake=Intake(LoopConnection(settings.database(), "dpe-api"), handover),
        lookups=Lookups(LoopConnection(settings.database(), "dpe-api")),
        sessions=KnownSessions(),
    )


def of(app: Flask) -> Resources:
    """What that application holds."""
    return app.extensions["dpe"]


def resources() -> Resources:
    """What this request's application holds."""
    return current_app.extensions["dpe"]
