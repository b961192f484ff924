"""Brings the database's tables to what this program needs; safe to run from many hosts at once.

Files `migrations/NNNN_table_change.sql` are applied in order, all in one transaction under an
advisory lock, and remembered with their SHA-256.  Forward only: a mistake is mended by the next
number.  A file whose first line is `-- breaking: <why>` tells older programs to stop.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import psycopg

from worker.errors import DpeError, NotMigrated

LOCK = 5_700_001  # any number that no other program uses in this database


class MigrationError(DpeError):
    """A migration can't be applied, or was changed after it was."""

    title = "The database can't be migrated"


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def breaking(self) -> bool:
        return self.sql.startswith("-- breaking:")


def known() -> list[Migration]:
    """All migrations of this program, in their order."""
    folder = files("worker.store") / "migrations"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return [Migration(f.name, f.read_text("utf-8")) for f in sorted(found, key=lambda f: f.name)]


def migrate(conn: psycopg.Connection) -> list[str]:
    """Apply what is missing and return the names; commits."""
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        conn.execute("CREATE SCHEMA IF NOT EXISTS dpe")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS dpe.migrations ("
            " name text PRIMARY KEY, digest text NOT NULL, breaking boolean NOT NULL,"
            " at timestamptz NOT NULL DEFAULT now())"
        )
        missing = _missing(conn)
        for migration in missing:
            try:
                conn.execute(migration.sql.encode())
            except psycopg.Error as error:
                raise MigrationError(f"{migration.name}: {error}") from error
            conn.execute(
                "INSERT INTO dpe.migrations (name, digest, breaking) VALUES (%s, %s, %s)",
                [migration.name, migration.digest, migration.breaking],
            )
    return [migration.name for migration in missing]


def check(conn: psycopg.Connection) -> None:
    """Raise NotMigrated where something is missing, MigrationError where this is too old."""
    try:
        missing = _missing(conn)
    except psycopg.errors.UndefinedTable:
        raise NotMigrated("this database has no tables of the engine yet") from None
    if missing:
        raise NotMigrated(f"migrations are missing: {', '.join(m.name for m in missing)}")


def _missing(conn: psycopg.Connection) -> list[Migration]:
    rows = conn.execute("SELECT name, digest, breaking FROM dpe.migrations").fetchall()
    applied = {name: digest for name, digest, _ in rows}
    ours = known()
    names = {migration.name for migration in ours}
    newer = [name for name, _, breaking in rows if breaking and name not in names]
    if newer:
        raise MigrationError(
            f"the database is newer than this program: {', '.join(newer)}", "update open-dpe"
        )
    for migration in ours:
        if applied.get(migration.name, migration.digest) != migration.digest:
            raise MigrationError(
                f"{migration.name} was changed after it had been applied",
                "restore the file; changes go into a new migration",
            )
    return [migration for migration in ours if migration.name not in applied]
