"""Logins of Postgres, each with a database of its own that the other can't open.

The engine's login owns the record of jobs, keys and secrets; the datasets' login owns what handlers
read and write.  Neither is a superuser, so SQL of a handler can't reach the record, and a fault of
the API can't reach the rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from worker.errors import SettingError


@dataclass(frozen=True, slots=True)
class Login:
    """Who an address logs in as, and where."""

    user: str
    password: str
    database: str

    @classmethod
    def of(cls, variable: str, url: str) -> "Login":
        """Read an address; raises SettingError naming the variable where something lacks."""
        found = conninfo_to_dict(url)
        parts = [str(found.get(name) or "") for name in ("user", "password", "dbname")]
        if not all(parts):
            raise SettingError(f"{variable} must have a user, a password and a database")
        return cls(*parts)


def make(admin: psycopg.Connection, logins: Iterable[Login]) -> list[str]:
    """Make these logins and their databases, or bring them to this; return what was made.

    `admin` is a superuser's connection in autocommit, and none of the logins.  Raises SettingError.
    """
    wanted = list(logins)
    if len({login.user for login in wanted}) < len(wanted):
        raise SettingError(
            f"the engine and the datasets have the same login, {wanted[0].user}",
            "give DPE_DATASETS_URL a user of its own",
        )
    if len({login.database for login in wanted}) < len(wanted):
        raise SettingError(
            f"the engine and the datasets have the same database, {wanted[0].database}",
            "give DPE_DATASETS_URL a database of its own; it may be on the same server",
        )
    made = []
    for login in wanted:
        if login.user == admin.info.user:
            raise SettingError(
                f"{login.user} is the administrator's own login", "use another one for the engine"
            )
        made += _make_login(admin, login)
        made += _make_database(admin, login)
    return made


def _make_login(admin: psycopg.Connection, login: Login) -> list[str]:
    known = admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [login.user]).rowcount
    # As its verifier: the password itself might stand in the server's log.
    verifier = admin.pgconn.encrypt_password(
        login.password.encode(), login.user.encode(), b"scram-sha-256"
    ).decode()
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD"
    admin.execute(
        sql.SQL("{} ROLE {} {} {}").format(
            sql.SQL("ALTER" if known else "CREATE"),
            sql.Identifier(login.user),
            sql.SQL(rights),
            sql.Literal(verifier),
        )
    )
    return [] if known else [f"login {login.user}"]


def _make_database(admin: psycopg.Connection, login: Login) -> list[str]:
    name, owner = sql.Identifier(login.database), sql.Identifier(login.user)
    row = admin.execute(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [login.database]
    ).fetchone()
    if row is None:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, owner))
    elif row[0] != login.user:
        raise SettingError(
            f"database {login.database} belongs to {row[0]} and not to {login.user}",
            "dump it, and restore it into a new one as its owner: docs/howto/separate-logins.md",
        )
    admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    return [] if row else [f"database {login.database}"]
