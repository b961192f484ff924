"""`connect("dwh/<dataset>/")`: a dataset as handlers see it.

Every connector of a job works in the job's one transaction, each call in a savepoint of its own,
so that a handler may catch an error and go on.  Threads share it; calls take turns.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors

from worker.errors import DatasetError
from worker.lakehouse.buckets import ADDRESS, Bucket, bucket_at
from worker.lakehouse.columns import (
    Layout,
    check_encodable,
    find,
    forget_layouts,
    layout,
    tables,
    texts,
)
from worker.lakehouse.datasets import dataset_at, dialect, known_datasets
from worker.lakehouse.frames import returned
from worker.lakehouse.other_servers import connection
from worker.lakehouse.refusal import said
from worker.lakehouse.statements import Statements
from worker.lakehouse.transaction import check_quoting, literal, running_job, turn, undo
from worker.lakehouse.writing import write
from worker.store.datasets import TRINO

RETURN_TYPES = ("dataframe", "cursor", "dict")
MAX_SHOWN_SQL = 500  # characters of a translated statement in an error


def connect(path: str = "dwh/default_dataset/") -> "Connector | Bucket":
    """Open a dataset: `dwh/<dataset>/`, `dwh/<dataset>/<table>`, `dwh/default_dataset/`,
    `dwh/db_<project>_<dataset>/`; or a bucket of files: `data_store/<bucket>`, `data_store`.

    Nothing is opened in fact: the connector works on the running job's connection, whichever job
    that is when it is used, so it may be made at a module's top.  Raises DatasetError.
    """
    running_job()
    if str(path).strip("/").split("/")[0] == ADDRESS:
        return bucket_at(path)
    return Connector(dataset_at(path))


class Connector:
    """One dataset.  Thread-safe; never closed (`del` it, or leave it)."""

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset

    def __repr__(self) -> str:
        return f"<Connector dwh/{self.dataset}/>"

    def list(self) -> "list[str]":
        """Names of the dataset's tables."""
        with turn:
            return tables(connection(self.dataset), self.dataset)

    def query(self, sql: str, limit: int = -1, return_type: str = "dataframe") -> Any:
        """Run SQL; unqualified names are tables of this dataset.

        Rows come as `return_type`: a "dataframe", a "dict" (a list of them) or a "cursor"; at most
        `limit` of them (-1: all).  Of INSERT, UPDATE, DELETE and MERGE it is the affected count:
        a frame whose `iloc[0, 0]` has it.  Of several statements it is the last one's.
        Raises DatasetError with Postgres' words; BEGIN, COMMIT and the like are refused.

        Where the dataset's dialect is Trino, the SQL is Trino's: see `worker.lakehouse.trino`.
        """
        if dialect(self.dataset) != TRINO:
            return self._run(sql, limit, return_type)
        from worker.lakehouse.trino import translate  # noqa: PLC0415 -- 15 MB, of few workers' use

        said = translate(sql, known_datasets())
        try:
            return self._run(Statements(said.text, said.answer), limit, return_type)
        except DatasetError as error:
            if isinstance(error.__cause__, psycopg.Error):
                words = (
                    said.text
                    if len(said.text) <= MAX_SHOWN_SQL
                    else said.text[:MAX_SHOWN_SQL] + "…"
                )
                error.hint = f"{error.hint}; in Postgres' words it was: {words}".removeprefix("; ")
            raise

    def select(
        self,
        table: str,
        conds: Mapping[str, Any] | None = None,
        limit: int = -1,
        return_type: str = "dataframe",
    ) -> Any:
        """Rows of a table; `conds` are equalities (a list means IN, None means IS NULL)."""
        with turn:
            query = f"SELECT * FROM {self._name(table)}{self._where(table, conds)}"  # noqa: S608 -- quoted
            if limit >= 0:
                query += f" LIMIT {int(limit)}"
            return self._run(query, limit, return_type)

    def update(
        self,
        table: str,
        set: Mapping[str, Any],
        conds: Mapping[str, Any] | None = None,
        ignore: bool = False,
    ) -> int:
        """Set columns where `conds` hold (all rows where there are none); the affected count.

        With `ignore`, rows that a key or a constraint forbids to change end in 0 and no error.
        """
        if not set:
            return 0
        with turn:
            known = self._layout(table, set)
            assigned = ", ".join(
                f"{_quoted(_column(known, name))} = {_value(known, name, value)}"
                for name, value in set.items()
            )
            query = f"UPDATE {self._name(table)} SET {assigned}{self._where(table, conds)}"  # noqa: S608 -- quoted
            try:
                return self._run(query, -1, "cursor").rowcount
            except DatasetError as error:
                if ignore and isinstance(error.__cause__, psycopg.IntegrityError):
                    return 0
                raise

    def delete(self, table: str, conds: Mapping[str, Any] | None = None) -> int:
        """Delete rows where `conds` hold (all where there are none); the affected count."""
        with turn:
            query = f"DELETE FROM {self._name(table)}{self._where(table, conds)}"  # noqa: S608 -- quoted
            return self._run(query, -1, "cursor").rowcount

    def truncate(self, table: str) -> bool:
        """Empty a table; False where there is none of that name."""
        try:
            self._run(f"TRUNCATE {self._name(table)}", -1, "cursor")
        except DatasetError as error:
            if isinstance(error.__cause__, errors.UndefinedTable):
                return False
            raise
        return True

    def insert(
        self,
        table: str,
        rows: Any,
        odku: int = 0,
        returnWarnings: bool = False,
    ) -> dict[str, Any]:
        """Insert a dict, a list of dicts or a frame; `odku` truthy: update where the key is there.

        Returns stats as `bulk_insert` does, warnings always among them; raises DatasetError.
        """
        counts = write(
            self.dataset, table, [rows] if isinstance(rows, dict) else rows, upsert=bool(odku)
        )
        stats = {"table": f"{self.dataset}.{table}", "warnings": []}
        counts.add_to(stats)
        running_job().stats.append(stats)
        return stats

    def _name(self, table: str) -> str:
        return f"{_quoted(self.dataset)}.{_quoted(table)}"

    def _layout(self, table: str, names: Iterable[str]) -> Layout:
        conn = connection(self.dataset)
        check_quoting(conn)
        known = layout(conn, self.dataset, table)
        if all(find(known, name) for name in names):
            return known
        return layout(conn, self.dataset, table, fresh=True)  # the table may have changed since

    def _where(self, table: str, conds: Mapping[str, Any] | None) -> str:
        if not conds:
            return ""
        known = self._layout(table, conds)
        return " WHERE " + " AND ".join(_test(known, name, value) for name, value in conds.items())

    def _run(self, query: Statements | str, limit: int, return_type: str) -> Any:
        if return_type not in RETURN_TYPES:
            raise DatasetError(f"return_type must be one of {RETURN_TYPES}, got {return_type!r}")
        statements = Statements(query) if isinstance(query, str) else query
        with turn:
            conn = connection(self.dataset)
            try:
                cursor = self._executed(conn, statements, limit)
            except psycopg.Error as error:
                if conn.closed:
                    raise
                raise said(self.dataset, error) from error
            return returned(cursor, limit, return_type)

    def _executed(
        self, conn: psycopg.Connection, statements: Statements, limit: int
    ) -> psycopg.Cursor[Any]:
        """Run the statements in a savepoint.

        The savepoint goes first and by itself: a mistake of syntax fails the whole message that it
        stands in, and with no savepoint before it the whole job.
        """
        query, wanted = statements.text, statements.answer
        paged = limit >= 0 and statements.pages
        if paged:
            # Postgres is asked for so many rows, instead of for all to leave most of them.
            query = f"DECLARE dpe_rows NO SCROLL CURSOR FOR {query}\n;FETCH {limit} FROM dpe_rows;"
            query += "CLOSE dpe_rows"
            wanted = 2
        _discard_temporary(conn, statements)
        cursor = conn.cursor()
        place = f"SET LOCAL search_path = {_quoted(self.dataset)}, public"
        cursor.execute(f"{place};SAVEPOINT dpe".encode())
        try:
            # The semicolon is on a line of its own: the query's last one may be a comment.
            cursor.execute(f"{query}\n;RELEASE dpe".encode())
        except psycopg.Error:
            undo(conn)
            raise
        for _ in range(wanted - 1):
            cursor.nextset()
        if statements.changes_tables:
            forget_layouts()
        return cursor


# Connections on which a job may have made temporary tables, and the execution id of that job.
_temporary: WeakKeyDictionary[psycopg.Connection, UUID] = WeakKeyDictionary()


def _discard_temporary(conn: psycopg.Connection, statements: Statements) -> None:
    """Drop what an earlier job left: temporary tables live as long as the connection, not the job.

    Only where there may be some: it costs a round trip.
    """
    this = running_job().execution_id
    if _temporary.get(conn, this) != this:
        conn.execute("DISCARD TEMP")
        del _temporary[conn]
    if statements.makes_temporary:
        _temporary[conn] = this


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(known: Layout, name: str) -> str:
    column = find(known, name)
    if column is None:
        raise DatasetError(
            f'{known.name} has no column "{name}"; its columns: {", ".join(known.columns)}'
        )
    return column.name


def _value(known: Layout, name: str, value: Any) -> str:
    """A value as a literal that Postgres reads as the column's type."""
    column = known.columns[_column(known, name)]
    (text,) = texts(known, column, [value])
    check_encodable(known, column, [text])
    return literal(text)


def _test(known: Layout, name: str, value: Any) -> str:
    column = _quoted(_column(known, name))
    if not isinstance(value, (list, tuple, set, frozenset)):
        text = _value(known, name, value)
        return f"{column} IS NULL" if text == "NULL" else f"{column} = {text}"
    found = [_value(known, name, each) for each in value]
    there = [text for text in found if text != "NULL"]
    tests = [f"{column} IN ({', '.join(there)})"] if there else []
    if len(there) < len(found):
        tests.append(f"{column} IS NULL")
    return f"({' OR '.join(tests)})" if tests else "FALSE"
