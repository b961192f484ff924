"""A job that runs in this very process, on a real connection in a transaction of its own."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from app.embedded import Postgres
from worker.lakehouse import Connector
from worker.store import claims, database
from worker.store.claims import Claim


@pytest.fixture
def job(conn: psycopg.Connection, postgres: Postgres) -> Iterator[Claim]:
    """The running job; `conn` sees its rows once its connection commits."""
    conn.execute("CREATE SCHEMA data_prim")
    with database.connect(postgres.url, "test", autocommit=False) as own:
        claims.running = Claim(
            uuid4(), 1, "5eaf0db7f6f51d5255974217", 1, "test", None, "api", 0, own
        )
        try:
            yield claims.running
        finally:
            claims.running = None
            own.rollback()


@pytest.fixture
def data_prim(job: Claim) -> Connector:
    """The dataset `data_prim`, without tables."""
    return Connector("data_prim")
