"""Who may do what: API keys, the sessions opened with them, and the roles' permissions.

A permission is `service:resource:action`; `*` in a role stands for any of one of the three.
Secrets are kept as SHA-256 only: they are random and long, so a slow hash would add nothing.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network

import psycopg
from psycopg.rows import class_row

from worker.errors import Invalid, NotMigrated

ROLES: dict[str, tuple[str, ...]] = {
    "DPE Admin": ("*:*:*",),
    "DPE Editor": ("dpe:*:*", "dwh:*:*"),
    "DPE Starter": ("dpe:action:start", "dpe:workflow:start", "dpe:job:read"),
    "DPE Viewer": ("dpe:*:read", "dwh:*:read"),
}
DEFAULT_ROLE = "DPE Editor"
KEY_LIFETIME_S = 730 * 86400.0
LONGEST_LIFETIME_S = 100 * 365 * 86400.0
MAX_NAME = 200  # characters
MAX_RATE = 1e6


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a key may do within its role's permissions; None: no bound of its own."""

    starts_per_s: float | None = None
    only_ids: list[str] | None = None  # actions and workflows that it may start and stop
    networks: list[str] | None = None  # addresses that its calls may come from, as CIDR


UNBOUND = Bounds()


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret."""

    apikey: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    starts_per_s: float | None
    only_ids: list[str] | None
    networks: list[str] | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """An API key with its secret, which is nowhere else: shown once."""

    apikey: str
    secretkey: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime
    starts_per_s: float | None
    only_ids: list[str] | None
    networks: list[str] | None


@dataclass(frozen=True, slots=True)
class Session:
    """An open session and the key that opened it.  `secret` is set where it was opened only."""

    id: str
    key_id: int
    apikey: str
    name: str
    role: str
    expires_at: datetime
    key_expires_at: datetime
    starts_per_s: float | None = None
    only_ids: list[str] | None = None
    networks: list[str] | None = None
    secret: str = ""

    @property
    def permissions(self) -> tuple[str, ...]:
        return ROLES.get(self.role, ())

    def may(self, permission: str) -> bool:
        """Whether the session's role has this permission."""
        return _allows(self.permissions, permission)

    def may_touch(self, id: str | None) -> bool:
        """Whether its key may start, stop and change this action or workflow (None: neither)."""
        return self.only_ids is None or id in self.only_ids

    def may_come_from(self, address: str) -> bool:
        """Whether its key may be used from this address."""
        return self.networks is None or within(address, self.networks)


@lru_cache(maxsize=256)
def _allows(patterns: tuple[str, ...], permission: str) -> bool:
    asked = permission.split(":")
    return any(
        all(mine in {"*", part} for mine, part in zip(pattern.split(":"), asked, strict=True))
        for pattern in patterns
    )


def within(address: str, networks: Sequence[str]) -> bool:
    """Whether an address belongs to one of the networks (CIDR); what is no address does not."""
    try:
        at = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    at = getattr(at, "ipv4_mapped", None) or at
    return any(at in ip_network(network) for network in networks)


def create_key(
    conn: psycopg.Connection,
    name: str,
    role: str = DEFAULT_ROLE,
    lifetime_s: float = KEY_LIFETIME_S,
    bounds: Bounds = UNBOUND,
) -> NewKey:
    """Make an API key good for `lifetime_s` seconds.  Raises Invalid naming what is wrong."""
    if not name.strip() or len(name) > MAX_NAME or "\0" in name:
        raise Invalid(f"a key needs a name of 1 to {MAX_NAME} characters")
    if role not in ROLES:
        raise Invalid(f"no role is called {role!r}; there are {', '.join(ROLES)}")
    if not 0 < lifetime_s <= LONGEST_LIFETIME_S:
        raise Invalid(f"a key's lifetime is above 0 and at most {LONGEST_LIFETIME_S:.0f} seconds")
    _check(bounds)
    apikey, secretkey = secrets.token_hex(24), secrets.token_hex(32)
    row = conn.execute(
        """
        INSERT INTO dpe.keys (apikey, secret, name, role, expires_at,
                              starts_per_s, only_ids, networks)
        VALUES (%s, %s, %s, %s, now() + %s * interval '1 second', %s, %s, %s::cidr[])
        RETURNING created_at, expires_at, starts_per_s, only_ids, networks::text[]
        """,
        [
            apikey,
            _digest(secretkey),
            name,
            role,
            lifetime_s,
            bounds.starts_per_s,
            bounds.only_ids,
            bounds.networks,
        ],
    ).fetchone()
    assert row is not None  # noqa: S101 -- RETURNING of one inserted row
    return NewKey(apikey, secretkey, name, role, *row)


def _check(bounds: Bounds) -> None:
    if bounds.starts_per_s is not None and not 0 < bounds.starts_per_s <= MAX_RATE:
        raise Invalid(f"a key's starts per second are above 0 and at most {MAX_RATE:g}")
    for id in bounds.only_ids or ():
        if not re.fullmatch("[0-9a-f]{24}", id):
            raise Invalid(f"a key is bound to ids of 24 hex characters, got {id!r}")
    for network in bounds.networks or ():
        try:
            ip_network(network)
        except ValueError as error:
            raise Invalid(f"a key is bound to networks like 10.0.0.0/8: {error}") from None


def list_keys(conn: psycopg.Connection) -> list[Key]:
    """All keys, revoked ones included, oldest first."""
    with conn.cursor(row_factory=class_row(Key)) as cursor:
        return cursor.execute(
            "SELECT apikey, name, role, created_at, expires_at, revoked_at, starts_per_s, only_ids,"
            " networks::text[] FROM dpe.keys ORDER BY id"
        ).fetchall()


def revoke_key(conn: psycopg.Connection, apikey: str) -> Key | None:
    """End a key and its sessions at once, and return it; None: no such key.

    The sessions need no statement of their own: every look-up asks for a key that is not revoked.
    """
    with conn.cursor(row_factory=class_row(Key)) as cursor:
        return cursor.execute(
            """
            UPDATE dpe.keys SET revoked_at = coalesce(revoked_at, now()) WHERE apikey = %s
            RETURNING apikey, name, role, created_at, expires_at, revoked_at, starts_per_s,
                      only_ids, networks::text[]
            """,
            [apikey],
        ).fetchone()


def find_key(conn: psycopg.Connection, apikey: str, secretkey: str) -> Session | None:
    """Who a key stands for, without opening a session (`id` and `secret` are empty).

    None: no such key, another secret, or a key that is revoked or expired; a caller learns not
    which.
    """
    if "\0" in apikey:
        return None
    row = conn.execute(
        """
        SELECT id, secret, name, role, expires_at, starts_per_s, only_ids, networks::text[]
        FROM dpe.keys
        WHERE apikey = %s AND revoked_at IS NULL AND expires_at > now()
        """,
        [apikey],
    ).fetchone()
    # Compared in constant time, and where there is no key as well.
    same = hmac.compare_digest(row[1] if row else "", _digest(secretkey))
    if row is None or not same:
        return None
    id, _, name, role, key_expires_at, rate, only_ids, networks = row
    return Session(
        id="",
        key_id=id,
        apikey=apikey,
        name=name,
        role=role,
        expires_at=key_expires_at,
        key_expires_at=key_expires_at,
        starts_per_s=rate,
        only_ids=only_ids,
        networks=networks,
    )


def open_session(
    conn: psycopg.Connection, apikey: str, secretkey: str, lifetime_s: float
) -> Session | None:
    """Open a session of `lifetime_s` seconds, at most to the key's end; None as `find_key`."""
    found = find_key(conn, apikey, secretkey)
    if found is None:
        return None
    secret = secrets.token_urlsafe(24)
    opened = conn.execute(
        """
        INSERT INTO dpe.sessions (id, key_id, expires_at)
        VALUES (%s, %s, least(now() + %s * interval '1 second', %s))
        RETURNING expires_at
        """,
        [_digest(secret), found.key_id, lifetime_s, found.key_expires_at],
    ).fetchone()
    assert opened is not None  # noqa: S101 -- RETURNING of one inserted row
    return replace(found, id=_digest(secret), secret=secret, expires_at=opened[0])


def find_session(conn: psycopg.Connection, secret: str) -> Session | None:
    """The open session of this secret; None: closed, expired, or its key is not good any more.

    One statement over two primary keys: it runs before everything that a client asks.
    """
    with conn.cursor(row_factory=class_row(Session)) as cursor:
        return cursor.execute(
            """
            SELECT s.id, k.id AS key_id, k.apikey, k.name, k.role, s.expires_at,
                   k.expires_at AS key_expires_at, k.starts_per_s, k.only_ids,
                   k.networks::text[]
            FROM dpe.sessions s JOIN dpe.keys k ON k.id = s.key_id
            WHERE s.id = %s AND s.expires_at > now()
              AND k.revoked_at IS NULL AND k.expires_at > now()
            """,
            [_digest(secret)],
        ).fetchone()


def close_session(conn: psycopg.Connection, secret: str) -> bool:
    """End one session; False: it was not open."""
    done = conn.execute("DELETE FROM dpe.sessions WHERE id = %s", [_digest(secret)])
    return done.rowcount == 1


def signing_secret(conn: psycopg.Connection) -> str:
    """What this installation signs its tokens with."""
    row = conn.execute("SELECT secret FROM dpe.installation").fetchone()
    if row is None:
        raise NotMigrated("dpe.installation is empty: the database was not restored whole")
    return row[0]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
