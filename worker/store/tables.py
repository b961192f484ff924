"""Tables: described first, then built.  Only the build touches a dataset.

Building again brings a table to its description without losing anything: it adds what is missing,
and refuses what would lose data.
"""

from typing import Any

import orjson
import psycopg
from psycopg import errors, sql

from worker.errors import Conflict, Unavailable
from worker.store.descriptions import Attribute, TableDescription, describe

TABLE_KINDS = {"r", "p"}  # of pg_class.relkind: plain and partitioned
NO_TABLE = {"v": "a view", "m": "a materialized view", "i": "an index", "S": "a sequence"}


def build(conn: psycopg.Connection, given: Any) -> list[str]:
    """Bring the table in Postgres to its description, a dict; return what was done, in words.

    Raises Invalid for a wrong description, Conflict for a change that would lose data, Unavailable
    where running jobs hold the table for too long; then nothing is changed.  Runs in a transaction
    of its own.
    """
    table = describe(given)
    try:
        with conn.transaction():
            return _build(conn, table)
    except errors.LockNotAvailable:
        raise Unavailable(
            f"{table.full_name} is in use: a change has to wait for the jobs that write to it",
            "try again when they have ended: dpe job list",
        ) from None
    except (psycopg.ProgrammingError, psycopg.IntegrityError, psycopg.NotSupportedError) as error:
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise Conflict(
            f"{table.full_name}: {error.diag.message_primary or error}{detail}",
            error.diag.message_hint or "Postgres refuses it: describe it otherwise",
        ) from error


def _build(conn: psycopg.Connection, table: TableDescription) -> list[str]:
    target = sql.Identifier(table.dataset, table.name)
    # By dataset, not by table: two first tables of a dataset would both make its schema.
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"dataset {table.dataset}"]
    )
    # A change that waits for one running job makes every job after it wait too.
    conn.execute("SET LOCAL lock_timeout = '3s'")
    conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(table.dataset)))
    there = _there(conn, table)
    done = _change(conn, table, target, there) if there else _create(conn, table, target)
    done += _index(conn, table, target)
    _comment(conn, table, target)
    conn.execute(
        """
        INSERT INTO dpe.tables (dataset, name, description) VALUES (%s, %s, %s)
        ON CONFLICT (dataset, name)
        DO UPDATE SET description = excluded.description, built_at = now()
        """,
        [table.dataset, table.name, orjson.dumps(table.source).decode()],
    )
    return done


def list_tables(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """The described tables, each with its dataset, name, description and time of its build."""
    rows = conn.execute(
        "SELECT description, built_at FROM dpe.tables ORDER BY dataset, name"
    ).fetchall()
    return [{**description, "built_at": built_at} for description, built_at in rows]


def _create(conn: psycopg.Connection, table: TableDescription, target: sql.Identifier) -> list[str]:
    parts = [_definition(attribute) for attribute in table.attributes]
    if table.primary_key:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(_listed(table.primary_key)))
    conn.execute(sql.SQL("CREATE TABLE {} ({})").format(target, sql.SQL(", ").join(parts)))
    return [f"created {table.full_name} with {len(table.attributes)} attributes"]


def _change(
    conn: psycopg.Connection, table: TableDescription, target: sql.Identifier, there: dict[str, str]
) -> list[str]:
    done = []
    described = {attribute.name: attribute for attribute in table.attributes}
    gone = [name for name in there if name not in described]
    if gone:
        raise Conflict(
            f'{table.full_name} has the attribute "{gone[0]}", which the description lacks:'
            " building would drop it and its data",
            "describe it too, or drop the column in SQL first",
        )
    for name, attribute in described.items():
        if name not in there:
            conn.execute(sql.SQL("ALTER TABLE {} ADD {}").format(target, _definition(attribute)))
            done.append(f"added {name} ({attribute.type})")
        elif there[name] != attribute.type:
            raise Conflict(
                f'{table.full_name}: "{name}" is {there[name]}, the description says'
                f" {attribute.type}; changing a type may lose data",
                "change the column in SQL first, or describe it as it is",
            )
    key = _key_there(conn, table)
    if table.primary_key and not key:
        listed = _listed(table.primary_key)
        conn.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(target, listed))
        done.append(f"added the primary key ({', '.join(table.primary_key)})")
    elif key != table.primary_key:
        raise Conflict(
            f"{table.full_name} has the primary key ({', '.join(key) or 'none'}), the description"
            f" says ({', '.join(table.primary_key) or 'none'})",
            "change the key in SQL first, or describe it as it is",
        )
    return done


def _there(conn: psycopg.Connection, table: TableDescription) -> dict[str, str]:
    """Names and types of the table's columns; none where it is not there."""
    kind = conn.execute(
        "SELECT relkind FROM pg_class"
        " WHERE oid = to_regclass(format('%%I.%%I', %s::text, %s::text))",
        [table.dataset, table.name],
    ).fetchone()
    if kind is not None and kind[0] not in TABLE_KINDS:
        raise Conflict(
            f"{table.full_name} is there already, and is {NO_TABLE.get(kind[0], 'no table')}",
            "drop it in SQL first, or give the table another name",
        )
    rows = conn.execute(
        """
        SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
        WHERE attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
          AND attnum > 0 AND NOT attisdropped ORDER BY attnum
        """,
        [table.dataset, table.name],
    ).fetchall()
    return dict(rows)


def _key_there(conn: psycopg.Connection, table: TableDescription) -> tuple[str, ...]:
    rows = conn.execute(
        """
        SELECT a.attname FROM pg_constraint k
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey)
        WHERE k.contype = 'p' AND k.conrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
        ORDER BY array_position(k.conkey, a.attnum)
        """,
        [table.dataset, table.name],
    ).fetchall()
    return tuple(name for (name,) in rows)


def _index(conn: psycopg.Connection, table: TableDescription, target: sql.Identifier) -> list[str]:
    # Known by their columns, not by a name: names made of columns get cut, and then meet.
    rows = conn.execute(
        """
        SELECT array_agg(a.attname ORDER BY k.position)::text[]
        FROM pg_index i
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, position)
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))
          AND i.indpred IS NULL AND i.indisvalid
        GROUP BY i.indexrelid
        """,
        [table.dataset, table.name],
    ).fetchall()
    there = {tuple(columns) for (columns,) in rows}
    done = []
    for columns in table.indexes:
        if columns not in there:
            conn.execute(sql.SQL("CREATE INDEX ON {} ({})").format(target, _listed(columns)))
            there.add(columns)
            done.append(f"added an index on ({', '.join(columns)})")
    return done


def _comment(conn: psycopg.Connection, table: TableDescription, target: sql.Identifier) -> None:
    conn.execute(
        sql.SQL("COMMENT ON TABLE {} IS {}").format(target, sql.Literal(table.description))
    )
    for attribute in table.attributes:
        column = sql.Identifier(table.dataset, table.name, attribute.name)
        conn.execute(
            sql.SQL("COMMENT ON COLUMN {} IS {}").format(column, sql.Literal(attribute.description))
        )


def _definition(attribute: Attribute) -> sql.Composed:
    type = sql.SQL(attribute.type)  # pyright: ignore[reportArgumentType] -- a value of TYPES
    return sql.SQL("{} {}").format(sql.Identifier(attribute.name), type)


def _listed(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
