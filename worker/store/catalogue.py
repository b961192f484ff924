"""What stands in Postgres: a table's columns, key, indexes, comments, from its catalogue."""

from dataclasses import dataclass
from typing import Any

import psycopg

from worker.store.descriptions import FORBIDDEN, TYPES

TABLES = {"r", "p"}  # of pg_class.relkind: plain and partitioned
KINDS = {
    "r": "a table",
    "p": "a partitioned table",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "i": "an index",
    "S": "a sequence",
}
READABLE = {"r", "p", "v", "m", "f"}


@dataclass(frozen=True, slots=True)
class Column:
    type: str  # as Postgres writes it, its length included
    category: str  # pg_type.typcategory
    comment: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A table as it is, whoever made it."""

    dataset: str
    name: str
    kind: str  # pg_class.relkind
    columns: dict[str, Column]
    key: tuple[str, ...]
    key_name: str | None  # of the primary key's constraint
    indexed: frozenset[tuple[str, ...]]  # columns that an index, of whatever kind, leads to
    plain_indexes: dict[tuple[str, ...], str]  # those that only make it quicker, with their names
    comment: str | None
    rows_about: int | None  # as Postgres last counted; None: it has not yet
    bytes: int

    @property
    def full_name(self) -> str:
        return f"{self.dataset}.{self.name}"

    def as_description(self) -> dict[str, Any]:
        """The description which, built, would find nothing to change."""
        return {
            "dataset": self.dataset,
            "name": self.name,
            **({"description": self.comment} if self.comment else {}),
            "attributes": [_attribute(name, column) for name, column in self.columns.items()],
            "primary_key": list(self.key),
            "indexes": [list(columns) for columns in self.plain_indexes],
        }


def standing(conn: psycopg.Connection, dataset: str, name: str) -> Standing | None:
    """What stands under that name; None: nothing, or nothing of a dataset."""
    if dataset in FORBIDDEN or dataset.startswith("pg_"):
        return None
    found = conn.execute(
        """
        SELECT c.oid, c.relkind::text, obj_description(c.oid, 'pg_class'),
               nullif(c.reltuples, -1)::bigint, pg_total_relation_size(c.oid)
        FROM pg_class c WHERE c.oid = to_regclass(format('%%I.%%I', %s::text, %s::text))
        """,
        [dataset, name],
    ).fetchone()
    if found is None:
        return None
    oid, kind, comment, rows_about, size = found
    key_name, key = _key(conn, oid)
    indexed, plain = _indexes(conn, oid)
    return Standing(
        dataset=dataset,
        name=name,
        kind=kind,
        columns=_columns(conn, oid),
        key=key,
        key_name=key_name,
        indexed=indexed,
        plain_indexes=plain,
        comment=comment,
        rows_about=rows_about,
        bytes=size,
    )


def names(conn: psycopg.Connection) -> list[tuple[str, str, str]]:
    """Dataset, name and kind of all that stands in the datasets and has rows."""
    return conn.execute(
        """
        SELECT n.nspname, c.relname, c.relkind::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> ALL (%s)
          AND c.relkind = ANY (%s) AND NOT c.relispartition
        ORDER BY n.nspname, c.relname
        """,
        [list(FORBIDDEN), list(READABLE)],
    ).fetchall()


def canonical(conn: psycopg.Connection, type: str) -> str:
    """A type as Postgres writes it: `varchar(20)` is `character varying(20)`.

    `type` must have been checked to be nothing but a type.  Raises psycopg.Error for one that
    there is not.
    """
    result = conn.execute(f"SELECT NULL::{type} LIMIT 0".encode()).pgresult
    if result is None:
        raise AssertionError
    row = conn.execute("SELECT format_type(%s, %s)", [result.ftype(0), result.fmod(0)]).fetchone()
    return row[0] if row else type


def _columns(conn: psycopg.Connection, oid: int) -> dict[str, Column]:
    rows = conn.execute(
        """
        SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
               col_description(a.attrelid, a.attnum)
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
        """,
        [oid],
    ).fetchall()
    return {name: Column(type, category, comment) for name, type, category, comment in rows}


def _key(conn: psycopg.Connection, oid: int) -> tuple[str | None, tuple[str, ...]]:
    rows = conn.execute(
        """
        SELECT k.conname, a.attname FROM pg_constraint k
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
        WHERE k.contype = 'p' AND k.conrelid = %s ORDER BY array_position(k.conkey, a.attnum)
        """,
        [oid],
    ).fetchall()
    return (rows[0][0] if rows else None), tuple(column for _, column in rows)


def _indexes(
    conn: psycopg.Connection, oid: int
) -> tuple[frozenset[tuple[str, ...]], dict[tuple[str, ...], str]]:
    # Known by their columns, not by a name: names made of columns get cut, and then meet.
    rows = conn.execute(
        """
        SELECT array_agg(a.attname ORDER BY k.position)::text[], c.relname,
               NOT i.indisunique AND m.amname = 'btree'
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am m ON m.oid = c.relam
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, position)
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = %s AND i.indpred IS NULL AND i.indisvalid
        GROUP BY i.indexrelid, c.relname, i.indisunique, m.amname
        ORDER BY c.relname
        """,
        [oid],
    ).fetchall()
    # An index on an expression has no column's name there.
    named = [(tuple(columns), name, plain) for columns, name, plain in rows if None not in columns]
    return (
        frozenset(columns for columns, _, _ in named),
        {columns: name for columns, name, plain in named if plain},
    )


def _attribute(name: str, column: Column) -> dict[str, Any]:
    known = next((kind for kind, type in TYPES.items() if type == column.type), None)
    if known is None:
        types = {"N": "Number", "B": "Boolean", "D": "Datetime"}
        described = {"type": types.get(column.category, "String"), "column_type": column.type}
    else:
        type, format = known
        described = {"type": type, **({"format": format} if format else {})}
    comment = {"description": column.comment} if column.comment else {}
    return {"name": name, **described, **comment}
