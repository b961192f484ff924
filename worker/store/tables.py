"""Tables: described first, then built.  Only the build touches a dataset.

Building again brings a table to its description without losing anything: it adds what is missing,
and refuses what would lose data.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
from psycopg import sql

from worker.errors import Conflict, Invalid

# Numbers are exact by default, since events carry ids beyond 2**53.
TYPES = {
    ("Number", None): "numeric",
    ("Number", "integer"): "bigint",
    ("Number", "float"): "double precision",
    ("String", None): "text",
    ("String", "json"): "jsonb",
    ("Boolean", None): "boolean",
    ("Date", None): "date",
    ("Datetime", None): "timestamp without time zone",
}
MAX_NAME_BYTES = 63  # Postgres cuts longer identifiers off without a word
TABLE_KINDS = {"r", "p"}  # of pg_class.relkind: plain and partitioned
NO_TABLE = {"v": "a view", "m": "a materialized view", "i": "an index", "S": "a sequence"}
FORBIDDEN = {"dpe", "public", "information_schema"}


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    type: str  # as Postgres writes it
    description: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A described table."""

    dataset: str
    name: str
    description: str | None
    attributes: tuple[Attribute, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...]
    source: dict[str, Any]  # the description as it came

    @property
    def full_name(self) -> str:
        return f"{self.dataset}.{self.name}"


# As JSON has it; after an even number of backslashes it is none.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def describe(given: Any) -> Table:
    """Check a description; raises Invalid naming the place."""
    if not isinstance(given, dict):
        raise Invalid("a table's description must be a JSON object")
    dataset = _name(given.get("dataset"), '"dataset"')
    if dataset in FORBIDDEN or dataset.startswith("pg_"):
        raise Invalid(f"\"dataset\": {dataset!r} is a name of the engine's or of Postgres' own")
    name = _name(given.get("name"), '"name"')
    listed = given.get("attributes")
    if not isinstance(listed, list) or not listed:
        raise Invalid('"attributes" must be a list with at least one attribute')
    attributes = tuple(_attribute(entry, at) for at, entry in enumerate(listed))
    names = [attribute.name for attribute in attributes]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise Invalid(f'"attributes": {doubled[0]!r} is there twice')
    key = _columns(given.get("primary_key") or [], names, '"primary_key"')
    indexes = _indexes(given.get("indexes") or [], names)
    text = given.get("description")
    if text is not None and not isinstance(text, str):
        raise Invalid('"description" must be a string')
    if _NUL.search(orjson.dumps(given)):
        raise Invalid("the description has a NUL character in it, which Postgres can't hold")
    return Table(dataset, name, text, attributes, key, indexes, given)


def build(conn: psycopg.Connection, given: Any) -> list[str]:
    """Bring the table in Postgres to its description; return what was done, in words.

    Raises Invalid for a wrong description, Conflict for a change that would lose data; then
    nothing is changed.  Runs in a transaction of its own.
    """
    table = describe(given)
    target = sql.Identifier(table.dataset, table.name)
    with conn.transaction():
        conn.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"table {table.full_name}"]
        )
        conn.execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(table.dataset))
        )
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


def _create(conn: psycopg.Connection, table: Table, target: sql.Identifier) -> list[str]:
    parts = [_definition(attribute) for attribute in table.attributes]
    if table.primary_key:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(_listed(table.primary_key)))
    conn.execute(sql.SQL("CREATE TABLE {} ({})").format(target, sql.SQL(", ").join(parts)))
    return [f"created {table.full_name} with {len(table.attributes)} attributes"]


def _change(
    conn: psycopg.Connection, table: Table, target: sql.Identifier, there: dict[str, str]
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
    if key != table.primary_key:
        raise Conflict(
            f"{table.full_name} has the primary key ({', '.join(key) or 'none'}), the description"
            f" says ({', '.join(table.primary_key) or 'none'})",
            "change the key in SQL first, or describe it as it is",
        )
    return done


def _there(conn: psycopg.Connection, table: Table) -> dict[str, str]:
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


def _key_there(conn: psycopg.Connection, table: Table) -> tuple[str, ...]:
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


def _index(conn: psycopg.Connection, table: Table, target: sql.Identifier) -> list[str]:
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


def _comment(conn: psycopg.Connection, table: Table, target: sql.Identifier) -> None:
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


def _attribute(given: Any, at: int) -> Attribute:
    where = f'"attributes"[{at}]'
    if not isinstance(given, dict):
        raise Invalid(f"{where} must be an object")
    name = _name(given.get("name"), f'{where}."name"')
    kind = given.get("type"), given.get("format")
    type = next((type for known, type in TYPES.items() if known == kind), None)
    if type is None:
        known = ", ".join(f"{t} ({f})" if f else t for t, f in TYPES)
        raise Invalid(
            f"{where} ({name}): type {given.get('type')!r} with format {given.get('format')!r}"
            f" is not known; the known ones: {known}"
        )
    text = given.get("description")
    if text is not None and not isinstance(text, str):
        raise Invalid(f'{where}."description" must be a string')
    return Attribute(name, type, text)


def _name(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given:
        raise Invalid(f"{where} must be a name, got {given!r}")
    if len(given.encode()) > MAX_NAME_BYTES or "\0" in given:
        raise Invalid(f"{where}: {given!r} is longer than Postgres' {MAX_NAME_BYTES} bytes")
    if not re.fullmatch(r"[^\W\d]\w*", given):
        raise Invalid(f"{where}: {given!r} may have letters, digits and underscores only")
    return given


def _indexes(given: Any, known: list[str]) -> tuple[tuple[str, ...], ...]:
    if not isinstance(given, list):
        raise Invalid('"indexes" must be a list')
    indexes = tuple(_columns(entry, known, f'"indexes"[{at}]') for at, entry in enumerate(given))
    if () in indexes:
        raise Invalid(f'"indexes"[{indexes.index(())}] must have at least one attribute')
    return indexes


def _columns(given: Any, known: list[str], where: str) -> tuple[str, ...]:
    columns = [given] if isinstance(given, str) else given
    if not isinstance(columns, list):
        raise Invalid(f"{where} must be a list of attributes' names")
    for column in columns:
        if column not in known:
            raise Invalid(f"{where}: there is no attribute {column!r}")
        if columns.count(column) > 1:
            raise Invalid(f"{where}: {column!r} is there twice")
    return tuple(columns)
