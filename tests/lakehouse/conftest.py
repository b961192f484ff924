"""A job that runs in this very process, on a real connection in a transaction of its own."""

from collections.abc import Iterator

import psycopg
import pytest

from app.embedded import Postgres
from tests.lakehouse.rows import MANY, Pad, Rows, claimed
from worker.lakehouse import Connector
from worker.store import claims, database
from worker.store.claims import Claim


@pytest.fixture
def job(conn: psycopg.Connection, postgres: Postgres) -> Iterator[Claim]:
    """The running job; `conn` sees its rows once its connection commits."""
    conn.execute("CREATE SCHEMA data_prim")
    with database.connect(postgres.url, "test", autocommit=False) as own:
        claims.running = claimed(own)
        try:
            yield claims.running
        finally:
            claims.running = None
            own.rollback()


@pytest.fixture
def data_prim(job: Claim) -> Connector:
    """The dataset `data_prim`, without tables."""
    return Connector("data_prim")


@pytest.fixture(params=["statement", "copy", "text copy"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pad(way: str) -> Pad:
    """Make the rows so many that they go the way that the test is run by.

    Rows are put before the given ones, with keys from 10,000 on.
    """

    def padded(rows: Rows) -> Rows:
        if way == "statement":
            return rows
        filling = [{"id": 10_000 + at, "name": "filling"} for at in range(MANY)]
        if way == "text copy":
            # An interval has no binary form here.
            filling = [row | {"span": "1 day"} for row in filling]
        return [*filling, *rows]

    return padded


@pytest.fixture(params=["", "PRIMARY KEY"], ids=["append", "upsert"])
def table(request: pytest.FixtureRequest, job: Claim) -> str:
    """A table, of whose rows `found` reads those without the filling."""
    job.conn.execute(
        f"CREATE TABLE data_prim.t (id bigint {request.param}, name text, amount numeric,"
        " day date, at timestamp, ok boolean, extra jsonb, span interval,"
        " short varchar(3), fixed char(3), whole integer, ratio double precision)"
    )
    return "t"


@pytest.fixture
def orders(job: Claim) -> None:
    """Three rows in data_prim.orders."""
    job.conn.execute(
        "CREATE TABLE data_prim.orders (id bigint PRIMARY KEY, name text, price numeric, day date)"
    )
    job.conn.execute(
        "INSERT INTO data_prim.orders VALUES (1, 'ann', 1.5, '2024-01-01'), (2, 'bob', NULL, NULL),"
        " (3, '100%', 3, '2024-03-01')"
    )
    job.conn.commit()
