"""Datasets, and what is set for each: so far, what SQL its connectors' `query` takes."""

from collections.abc import Mapping
from typing import Any

import psycopg

from worker.errors import Invalid
from worker.store.descriptions import FORBIDDEN, dataset_name

POSTGRES, TRINO = "postgres", "trino"
DIALECTS = (POSTGRES, TRINO)


def dialect(conn: psycopg.Connection, dataset: str) -> str:
    """One of DIALECTS; POSTGRES where nothing is set."""
    row = conn.execute("SELECT dialect FROM dpe.datasets WHERE name = %s", [dataset]).fetchone()
    return row[0] if row else POSTGRES


def set_dialect(conn: psycopg.Connection, dataset: str, dialect: Any) -> None:
    """Set it for a dataset, there already or to come; raises Invalid."""
    name = dataset_name(dataset)
    if dialect not in DIALECTS:
        raise Invalid(f'"dialect" must be one of {", ".join(DIALECTS)}, got {dialect!r}')
    conn.execute(
        """
        INSERT INTO dpe.datasets (name, dialect) VALUES (%s, %s)
        ON CONFLICT (name) DO UPDATE SET dialect = excluded.dialect
        """,
        [name, dialect],
    )


def list_datasets(conn: psycopg.Connection, tables: Mapping[str, int]) -> list[dict[str, Any]]:
    """Each dataset that is there, or has something set: {name, dialect, tables}.

    `tables` is what `tables_of` found where the datasets are.
    """
    dialects = dict(conn.execute("SELECT name, dialect FROM dpe.datasets").fetchall())
    return [
        {"name": name, "dialect": dialects.get(name, POSTGRES), "tables": tables.get(name, 0)}
        for name in sorted(tables.keys() | dialects.keys())
    ]


def tables_of(conn: psycopg.Connection) -> dict[str, int]:
    """The datasets that are there, each with the number of its tables."""
    rows = conn.execute(
        """
        SELECT n.nspname::text, (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid
                                 AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
        FROM pg_namespace n WHERE nspname NOT LIKE 'pg\\_%%' AND nspname <> ALL (%s)
        """,
        [list(FORBIDDEN)],
    ).fetchall()
    return dict(rows)
