"""Few rows into a table: one INSERT statement with their values written into it.

This is the path of most events, so its processor time counts: what depends on the table and the
names of the columns alone is made once and kept with the layout.
"""

from dataclasses import dataclass

import psycopg
from psycopg import errors, sql

from worker.lakehouse import by_copy
from worker.lakehouse.columns import Column, Layout, check_encodable, match, texts
from worker.lakehouse.counts import Counts
from worker.lakehouse.keys import check_key, on_conflict
from worker.lakehouse.source import Source
from worker.lakehouse.transaction import check_quoting, execute_in_savepoint, literal


@dataclass(frozen=True, slots=True)
class Plan:
    """The statement around the values, for data with columns of certain names."""

    columns: list[Column]
    head: str  # INSERT INTO … VALUES
    tail: str  # ON CONFLICT … RETURNING, or nothing
    key: list[int]  # where the key's columns stand among `columns`; empty: rows are appended


def write(conn: psycopg.Connection, layout: Layout, rows: Source, upsert: bool) -> Counts:
    """Insert, or upsert where the table has a key; raises DatasetError or psycopg.Error."""
    values = rows.values(0, rows.rows)
    at = (*rows.names, upsert)
    plan: Plan | None = layout.made.get(at)
    if plan is None:
        plan = layout.made[at] = _plan(conn, layout, rows, upsert)
    check_quoting(conn)
    columns = [texts(layout, c, v) for c, v in zip(plan.columns, values, strict=True)]
    # What is NULL, and what is quoted: then two rows have the same key where its text is the same.
    lines = list(zip(*[[literal(text) for text in column] for column in columns], strict=True))
    if plan.key:
        # Of rows with the same key the last one wins, and Postgres would refuse the others.
        lines = list({tuple([line[at] for at in plan.key]): line for line in lines}.values())
    body = ",".join(["(" + ",".join(line) + ")" for line in lines])
    if "\0" in body:
        _refuse(layout, plan, columns)
    try:
        result = execute_in_savepoint(conn, plan.head + body + plan.tail)
    except UnicodeEncodeError:
        _refuse(layout, plan, columns)
        raise
    except errors.CardinalityViolation:
        # Two keys that are the same to Postgres alone, as 1 and 1.0.
        return by_copy.write(conn, layout, rows, upsert)
    if not plan.key:
        return Counts(rows.rows, result.command_tuples or 0)
    made = [result.get_value(at, 0) for at in range(result.ntuples)].count(b"t")
    return Counts(rows.rows, made, result.ntuples - made, rows.rows - len(lines))


def _refuse(layout: Layout, plan: Plan, columns: list[list[str | None]]) -> None:
    for column, found in zip(plan.columns, columns, strict=True):
        check_encodable(layout, column, found)


def _plan(conn: psycopg.Connection, layout: Layout, rows: Source, upsert: bool) -> Plan:
    columns = match(layout, rows.names, [values[0] for values in rows.values(0, 1)])
    names = [column.name for column in columns]
    head = sql.SQL("INSERT INTO {} ({}) VALUES ").format(
        sql.Identifier(layout.dataset, layout.table),
        sql.SQL(", ").join(sql.Identifier(name) for name in names),
    )
    keyed = upsert and check_key(layout, columns)
    tail = on_conflict(conn, layout, columns).as_string(None) if keyed else ""
    return Plan(
        columns, head.as_string(None), tail, [names.index(n) for n in layout.key] if keyed else []
    )
