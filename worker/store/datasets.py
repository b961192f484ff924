"""Datasets, and what is set for each: so far, what SQL its connectors' `query` takes."""

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


def list_datasets(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """Each dataset that is there, or has something set: {name, dialect, tables}."""
    rows = conn.execute(
        """
        SELECT coalesce(n.nspname, d.name) AS name, coalesce(d.dialect, 'postgres'),
               (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid
                AND c.relkind IN ('r', 'p') AND NOT c.relispartition)
        FROM (SELECT oid, nspname::text FROM pg_namespace
              WHERE nspname NOT LIKE 'pg\\_%%' AND nspname <> ALL (%s)) n
        FULL JOIN dpe.datasets d ON d.name = n.nspname ORDER BY 1
        """,
        [list(FORBIDDEN)],
    ).fetchall()
    return [{"name": name, "dialect": spoken, "tables": tables} for name, spoken, tables in rows]
