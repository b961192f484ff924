"""Real servers for every test: PostgreSQL and Valkey from their wheels, started once a session."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.embedded import Postgres, Valkey
from tests.stack import Engine
from worker.store.migrate import migrate


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The session's DPE_HOME."""
    with tempfile.TemporaryDirectory(prefix="dpe-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(home: Path) -> Iterator[Postgres]:
    server = Postgres(home)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(home: Path) -> Iterator[Valkey]:
    server = Valkey(home)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session", autouse=True)
def environment(home: Path, postgres: Postgres, valkey: Valkey) -> None:
    """What `dpe env` would give, for this process and all that it starts."""
    for name in [name for name in os.environ if name.startswith("DPE_")]:
        del os.environ[name]
    os.environ |= {
        "DPE_HOME": str(home),
        "DPE_DATABASE_URL": postgres.url,
        "DPE_BROKER_URL": valkey.url,
        "DPE_SECRETS_KEY": "dGVzdHMgb25seTogdGhpcnR5LXR3byBieXRlcyAuLi4=",
        "DPE_WORKERS": "2",
        "DPE_HEARTBEAT_INTERVAL_S": "0.5",
        "DPE_HEARTBEAT_TIMEOUT_S": "3",
        "DPE_SHUTDOWN_GRACE_S": "1",
    }
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        migrate(conn)


@pytest.fixture
def conn(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A connection that commits each statement, to a database without jobs, actions, datasets."""
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        _empty(conn)
        yield conn


@pytest.fixture
def engine(conn: psycopg.Connection, valkey: Valkey) -> Iterator[Engine]:
    """Push actions, start jobs and workers, and wait for what comes of them."""
    engine = Engine(conn, valkey.url)
    yield engine
    engine.end()


def _empty(conn: psycopg.Connection) -> None:
    datasets = conn.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'"
        " AND nspname NOT IN ('information_schema', 'public', 'dpe')"
    ).fetchall()
    for (name,) in datasets:
        conn.execute(psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(psycopg.sql.Identifier(name)))
    conn.execute(
        "TRUNCATE dpe.jobs, dpe.job_logs, dpe.action_files, dpe.action_versions, dpe.actions,"
        " dpe.workflows, dpe.tables, dpe.datasets, dpe.file_moves, dpe.sessions, dpe.keys,"
        " dpe.quarantine, dpe.idempotency_keys, dpe.triggers, dpe.defaults CASCADE"
    )


@pytest.fixture(scope="session")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where uv reaches no index of packages: it reads its own settings, not pip's."""
    from uv import find_uv_bin

    target = str(tmp_path_factory.mktemp("index"))
    words = [find_uv_bin(), "pip", "install", "--system-certs", "--dry-run", "--target", target]
    tried = subprocess.run([*words, "pandas<3"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"uv reaches no index that has pandas 2: {tried.stderr.strip()[-300:]}")
