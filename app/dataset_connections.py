"""The connection to a dataset: of the pool, or to the dataset's own server."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

from app.resources import resources
from worker.store import ledger


def url_elsewhere(dataset: object) -> str | None:
    """Where the dataset is, if not in the engine's database."""
    return resources().settings.dataset_url(str(dataset))


@contextmanager
def connection(dataset: object) -> Iterator[psycopg.Connection]:
    """A connection in autocommit; `dataset` is the name as it was sent, whatever it is."""
    with _at(url_elsewhere(dataset)) as conn:
        yield conn


@contextmanager
def main_connection() -> Iterator[psycopg.Connection]:
    """A connection to where datasets are that have no server of their own."""
    with _at(resources().settings.datasets_url) as conn:
        yield conn


@contextmanager
def _at(url: str | None) -> Iterator[psycopg.Connection]:
    if url is None:
        with resources().pool.connection() as conn:
            yield conn
    else:
        # Each time a new one: such calls are rare, and a pool for each server would be held open.
        conn = ledger.open_server(url, "dpe-api")
        try:
            yield conn
        finally:
            conn.close()


def shown(url: str) -> str:
    """An address without what is secret in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
