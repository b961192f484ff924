"""A frame into a table: one INSERT, COPY, or COPY and merge.

Rows go in through the job's own transaction, inside a savepoint: an insert that fails leaves
nothing of itself, and the handler may go on.  That it failed is kept with the job all the same.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from worker.errors import DatasetError
from worker.lakehouse.columns import (
    Column,
    Layout,
    Matched,
    Texts,
    UnknownColumn,
    bad_value,
    layout,
    match,
    texts,
)

SMALL = 1_000  # rows that go as arrays in one statement; more go by COPY
CHUNK = 20_000  # rows turned into text at a time: bounds the extra memory


@dataclass(frozen=True, slots=True)
class Counts:
    records: int
    inserts: int
    updates: int = 0


def bulk_insert(
    connector: Any,
    table: str,
    data: Any,
    source_default_schema: Any = None,
    batch_size: int | None = None,
    statistics: bool = False,
) -> tuple[dict[str, Any], str | None]:
    """Write rows into a table of the connector's dataset; return (stats, error).

    `data` is a DataFrame or a list of dicts, matched to the table's columns by name.  A table
    with a primary key is upserted (of rows with the same key the last one wins), one without is
    appended to.  `stats` has records, inserts, updates, skipped, warnings, and the table.  `error`
    is None, or the text of what is wrong; it is kept with the job too, which then ends FAILED
    unless its forepaas.json has `"params": {"on_insert_error": "continue"}`.
    """
    job = connector.job()
    stats: dict[str, Any] = {
        "table": f"{connector.dataset}.{table}",
        "records": len(data) if hasattr(data, "__len__") else 0,
        "inserts": 0,
        "updates": 0,
        "skipped": 0,
        "warnings": [],
    }
    error = None
    try:
        with connector.lock:
            counts = write(job.conn, connector.dataset, table, data, upsert=True)
        stats["inserts"], stats["updates"] = counts.inserts, counts.updates
        stats["skipped"] = counts.records - counts.inserts - counts.updates
        if stats["skipped"]:
            stats["warnings"].append(
                f"{stats['skipped']} rows had the key of a later row, or brought nothing new"
            )
    except (DatasetError, psycopg.Error) as failure:
        if job.conn.closed:
            raise  # the job's attempt is over
        error = str(failure)
        stats["skipped"] = stats["records"]
        stats["warnings"].append(error)
        job.insert_errors.append(error)
    job.stats.append(stats)
    return stats, error


def write(conn: psycopg.Connection, dataset: str, table: str, data: Any, *, upsert: bool) -> Counts:
    """Write rows in a savepoint; raises DatasetError, and then none of them is there."""
    known = layout(conn, dataset, table)
    try:
        return _write(conn, match(known, data), upsert)
    except (DatasetError, psycopg.Error) as error:
        if conn.closed:
            raise
        # The table may have changed since its layout was read.
        fresh = layout(conn, dataset, table, fresh=True)
        if fresh == known:
            raise _explained(conn, error, known, data) from error
    try:
        return _write(conn, match(fresh, data), upsert)
    except psycopg.Error as error:
        raise _explained(conn, error, fresh, data) from error


def _write(conn: psycopg.Connection, matched: Matched, upsert: bool) -> Counts:
    if not matched.rows:
        return Counts(0, 0)
    if not matched.columns:
        raise UnknownColumn(f"{matched.layout.name}: the data has rows but no columns")
    keyed = upsert and bool(matched.layout.key)
    if keyed:
        _check_key(matched)
    if matched.rows <= SMALL:
        return _by_arrays(conn, matched, keyed)
    with _savepoint(conn):
        if not keyed:
            _copy(conn, matched, sql.Identifier(matched.layout.dataset, matched.layout.table))
            return Counts(matched.rows, matched.rows)
        return _by_merge(conn, matched)


def _check_key(matched: Matched) -> None:
    there = {column.name for column in matched.columns}
    missing = [name for name in matched.layout.key if name not in there]
    if missing:
        raise DatasetError(
            f"{matched.layout.name}: the data lacks the primary key's column"
            f' "{missing[0]}", without which rows can\'t be told apart'
        )


def _by_arrays(conn: psycopg.Connection, matched: Matched, keyed: bool) -> Counts:
    arrays = [
        texts(matched.layout, column, values)
        for column, values in zip(matched.columns, matched.values, strict=True)
    ]
    statement = _array_statement(matched, keyed)
    try:
        # One round trip; the transaction's BEGIN goes along where it is the first statement.
        with conn.pipeline():
            conn.execute("SAVEPOINT rows")
            cursor = conn.execute(statement, arrays)
            conn.execute("RELEASE rows")
    except psycopg.Error:
        if not conn.closed:
            conn.execute("ROLLBACK TO rows")
            conn.execute("RELEASE rows")
        raise
    if not keyed:
        return Counts(matched.rows, cursor.rowcount)
    inserts, updates = cursor.fetchone() or (0, 0)
    return Counts(matched.rows, inserts, updates)


_statements: dict[tuple[Layout, tuple[str, ...], bool] | tuple[Any, ...], bytes] = {}


def _array_statement(matched: Matched, keyed: bool) -> bytes:
    layout, columns = matched.layout, matched.columns
    # The text of a statement is made once; psycopg prepares it when it comes again.
    names = tuple(f"{column.name}:{column.type}" for column in columns)
    at = (layout.dataset, layout.table, names, layout.key if keyed else None)
    if at not in _statements:
        if len(_statements) > 1000:  # noqa: PLR2004 -- a handler may make tables without end
            _statements.clear()
        source = sql.SQL("unnest({}) WITH ORDINALITY AS rows ({}, ordinal)").format(
            sql.SQL(", ").join([sql.SQL("%s::text[]")] * len(columns)),
            sql.SQL(", ").join(sql.Identifier(f"c{at}") for at in range(len(columns))),
        )
        values = [
            sql.SQL("{}::{}").format(sql.Identifier(f"c{at}"), sql.SQL(column.type))  # pyright: ignore[reportArgumentType] -- from the catalog
            for at, column in enumerate(columns)
        ]
        _statements[at] = _insert(layout, columns, values, source, keyed).as_bytes(None)
    return _statements[at]


def _insert(
    layout: Layout,
    columns: list[Column],
    values: list[sql.Composed],
    source: sql.Composable,
    keyed: bool,
) -> sql.Composed:
    target = sql.SQL("INSERT INTO {} ({})").format(
        sql.Identifier(layout.dataset, layout.table),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
    )
    if not keyed:
        return sql.SQL("{} SELECT {} FROM {}").format(target, sql.SQL(", ").join(values), source)
    key = sql.SQL(", ").join(sql.Identifier(name) for name in layout.key)
    at_key = sql.SQL(", ").join(
        value for column, value in zip(columns, values, strict=True) if column.name in layout.key
    )
    others = [column for column in columns if column.name not in layout.key]
    action = (
        sql.SQL("DO UPDATE SET {}").format(
            sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column.name))
                for column in others
            )
        )
        if others
        else sql.SQL("DO NOTHING")
    )
    # xmax is 0 in a row that this statement made, and not in one that it changed.
    return sql.SQL(
        "WITH written AS ({} SELECT DISTINCT ON ({}) {} FROM {} ORDER BY {}, ordinal DESC"
        " ON CONFLICT ({}) {} RETURNING xmax = 0 AS made)"
        " SELECT count(*) FILTER (WHERE made), count(*) FILTER (WHERE NOT made) FROM written"
    ).format(target, at_key, sql.SQL(", ").join(values), source, at_key, key, action)


def _by_merge(conn: psycopg.Connection, matched: Matched) -> Counts:
    layout, columns = matched.layout, matched.columns
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    stage = sql.Identifier("pg_temp", "dpe_stage")
    conn.execute("DROP TABLE IF EXISTS pg_temp.dpe_stage")
    conn.execute(
        sql.SQL("CREATE TEMP TABLE dpe_stage ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0").format(
            names, sql.Identifier(layout.dataset, layout.table)
        )
    )
    conn.execute("ALTER TABLE pg_temp.dpe_stage ADD ordinal bigint GENERATED ALWAYS AS IDENTITY")
    _copy(conn, matched, stage)
    values = [sql.SQL("{}").format(sql.Identifier(column.name)) for column in columns]
    row = conn.execute(_insert(layout, columns, values, stage, keyed=True)).fetchone()
    conn.execute("DROP TABLE pg_temp.dpe_stage")
    inserts, updates = row or (0, 0)
    return Counts(matched.rows, inserts, updates)


def _copy(conn: psycopg.Connection, matched: Matched, target: sql.Identifier) -> None:
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in matched.columns)
    with conn.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(target, names)) as copy:
        for start in range(0, matched.rows, CHUNK):
            columns = [
                texts(matched.layout, column, values[start : start + CHUNK], start + 1)
                for column, values in zip(matched.columns, matched.values, strict=True)
            ]
            copy.write(_copy_text(columns))


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_ESCAPED = re.compile(r"[\\\t\n\r]")


def _copy_text(columns: list[Texts]) -> bytes:
    """The text form of COPY: tab between columns, newline after each row, \\N for NULL."""
    escaped = [list(_escaped(column)) for column in columns]
    return ("\n".join(map("\t".join, zip(*escaped, strict=True))) + "\n").encode()


def _escaped(column: Texts) -> Iterator[str]:
    search = _ESCAPED.search
    for text in column:
        if text is None:
            yield "\\N"
        else:
            yield text.translate(_ESCAPES) if search(text) else text


class _savepoint:
    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn

    def __enter__(self) -> None:
        self.conn.execute("SAVEPOINT rows")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self.conn.closed:
            if kind is not None:
                self.conn.execute("ROLLBACK TO rows")
            self.conn.execute("RELEASE rows")


def _explained(
    conn: psycopg.Connection, error: Exception, layout: Layout, data: Any
) -> DatasetError:
    """Postgres' error in terms of the data: the table, the column, the row and its value."""
    if isinstance(error, DatasetError):
        return error
    assert isinstance(error, psycopg.Error)  # noqa: S101 -- nothing else is caught
    matched = match(layout, data)
    if isinstance(error, psycopg.errors.NotNullViolation):
        return _null_found(error, matched)
    if isinstance(error, psycopg.DataError):
        found = _refused_value(conn, matched)
        if found is not None:
            return found
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    return DatasetError(f"{layout.name}: {error.diag.message_primary or error}{detail}")


def _null_found(error: psycopg.Error, matched: Matched) -> DatasetError:
    name = error.diag.column_name
    for column, values in zip(matched.columns, matched.values, strict=True):
        if column.name == name:
            found = texts(matched.layout, column, values)
            row = found.index(None) + 1 if None in found else 0
            return DatasetError(
                f'{matched.layout.name}, row {row}: column "{name}" must have a value, got none'
            )
    return DatasetError(
        f'{matched.layout.name}: column "{name}" must have a value, and the data has no such column'
    )


def _refused_value(conn: psycopg.Connection, matched: Matched) -> DatasetError | None:
    """Ask Postgres itself which value it can't read (pg_input_is_valid, PostgreSQL 16 and up)."""
    for column, values in zip(matched.columns, matched.values, strict=True):
        for start in range(0, matched.rows, CHUNK):
            chunk = texts(matched.layout, column, values[start : start + CHUNK], start + 1)
            row = conn.execute(
                """
                SELECT ordinal, (pg_input_error_info(value, %(type)s)).message
                FROM unnest(%(values)s::text[]) WITH ORDINALITY AS rows (value, ordinal)
                WHERE NOT pg_input_is_valid(value, %(type)s) ORDER BY ordinal LIMIT 1
                """,
                {"values": chunk, "type": column.type},
            ).fetchone()
            if row is not None:
                at = start + int(row[0])
                return bad_value(matched.layout, column, at, values[at - 1])
    return None
