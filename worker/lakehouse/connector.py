"""`connect("dwh/<dataset>/")`: a dataset as handlers see it.

Every connector of a job works in the job's one transaction, each call in a savepoint of its own,
so that a handler may catch an error and go on.  Threads share it; calls take turns.
"""

import threading
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pandas as pd
import psycopg
import sqlglot
from psycopg import sql
from psycopg.rows import dict_row
from sqlglot.errors import SqlglotError
from sqlglot.tokens import TokenType  # pyright: ignore[reportPrivateImportUsage]

from worker.errors import DatasetError
from worker.lakehouse.bulk_insert import write
from worker.lakehouse.columns import forget_layouts, tables
from worker.settings import current_settings
from worker.store import claims

# One lock for all connectors of the process: it runs one job at a time, on one connection.
_turn = threading.RLock()

# Datasets seen so far: a schema that was dropped since is noticed by its missing tables.
_known: list[str] = []

RETURN_TYPES = ("dataframe", "cursor", "dict")
TRANSACTION_WORDS = {
    "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE",
}  # fmt: skip


def connect(path: str = "dwh/default_dataset/") -> "Connector":
    """Open a dataset: `dwh/<dataset>/`, `dwh/<dataset>/<table>`, `dwh/default_dataset/`,
    `dwh/db_<project>_<dataset>/`.

    Nothing is opened in fact: the connector works on the running job's connection, whichever job
    that is when it is used, so it may be made at a module's top.  Raises DatasetError.
    """
    parts = [part for part in str(path).split("/") if part]
    if parts and parts[0].startswith("data_store"):
        raise DatasetError(f"connect({path!r}): file buckets are not available yet")
    if not parts or parts[0] != "dwh" or len(parts) > 3:  # noqa: PLR2004
        raise DatasetError(
            f'connect({path!r}): the address must be "dwh/<dataset>/" or "dwh/<dataset>/<table>"'
        )
    name = parts[1] if len(parts) > 1 else "default_dataset"
    job = _job()
    known = _known
    if _resolve(name, known) is None:
        with _turn:
            known[:] = datasets(job.conn)
    dataset = _resolve(name, known)
    if dataset is None:
        raise DatasetError(
            f"connect({path!r}): there is no dataset {name!r};"
            f" the known ones: {', '.join(known) or 'none yet'}",
            "a dataset is there once a table of it is built: dpe table build FILE.json",
        )
    return Connector(dataset)


def datasets(conn: psycopg.Connection) -> list[str]:
    """Names of the datasets: the schemas that are neither Postgres' nor the engine's."""
    rows = conn.execute(
        """
        SELECT nspname FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public', 'dpe')
        ORDER BY nspname
        """
    ).fetchall()
    return [name for (name,) in rows]


def _resolve(name: str, known: list[str]) -> str | None:
    if name == "default_dataset":
        name = current_settings().default_dataset
    if name in known:
        return name
    # db_<project>_<dataset>: the project's name may have underscores, the dataset's as well.
    ends = [d for d in known if name.startswith("db_") and name.endswith(f"_{d}")]
    return max(ends, key=len, default=None)


def _job() -> claims.Claim:
    if claims.running is None:
        raise DatasetError(
            "no job is running here: datasets can be used from a handler only",
            "start the action: dpe start action ID --wait",
        )
    return claims.running


class Connector:
    """One dataset.  Thread-safe; never closed (`del` it, or leave it)."""

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self.lock = _turn

    def __repr__(self) -> str:
        return f"<Connector dwh/{self.dataset}/>"

    def job(self) -> claims.Claim:
        """The job that runs now."""
        return _job()

    def list(self) -> "list[str]":
        """Names of the dataset's tables."""
        with self.lock:
            return tables(_job().conn, self.dataset)

    def query(self, query: str, limit: int = -1, return_type: str = "dataframe") -> Any:
        """Run one SQL statement; unqualified names are tables of this dataset.

        Rows come as `return_type`: a "dataframe", a "dict" (a list of them) or a "cursor"; at most
        `limit` of them (-1: all).  Of INSERT, UPDATE, DELETE and MERGE it is the affected count:
        a frame whose `iloc[0, 0]` has it.  Raises DatasetError with Postgres' words.
        """
        _refuse_transaction_words(query)
        return self._run(query.encode(), None, limit, return_type)

    def select(
        self,
        table: str,
        conds: Mapping[str, Any] | None = None,
        limit: int = -1,
        return_type: str = "dataframe",
    ) -> Any:
        """Rows of a table; `conds` are equalities (a list means IN, None means IS NULL)."""
        where, values = _where(conds)
        return self._run(
            sql.SQL("SELECT * FROM {}{}").format(self._table(table), where),
            values,
            limit,
            return_type,
        )

    def update(
        self,
        table: str,
        set: Mapping[str, Any],
        conds: Mapping[str, Any] | None = None,
        ignore: bool = False,
    ) -> int:
        """Set columns where `conds` hold (all rows where there are none); the affected count."""
        if not set:
            return 0
        assigned = sql.SQL(", ").join(
            sql.SQL("{} = %s").format(sql.Identifier(name)) for name in set
        )
        where, values = _where(conds)
        return self._count(
            sql.SQL("UPDATE {} SET {}{}").format(self._table(table), assigned, where),
            [*map(_plain, set.values()), *values],
        )

    def delete(self, table: str, conds: Mapping[str, Any] | None = None) -> int:
        """Delete rows where `conds` hold (all where there are none); the affected count."""
        where, values = _where(conds)
        return self._count(sql.SQL("DELETE FROM {}{}").format(self._table(table), where), values)

    def truncate(self, table: str) -> bool:
        """Empty a table; False where there is none of that name."""
        try:
            self._count(sql.SQL("TRUNCATE {}").format(self._table(table)), [])
        except DatasetError as error:
            if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
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

        Returns stats as `bulk_insert` does; raises DatasetError.
        """
        data = [rows] if isinstance(rows, dict) else rows
        job = _job()
        with self.lock:
            counts = write(job.conn, self.dataset, table, data, upsert=bool(odku))
        stats = {
            "table": f"{self.dataset}.{table}",
            "records": counts.records,
            "inserts": counts.inserts,
            "updates": counts.updates,
            "skipped": counts.records - counts.inserts - counts.updates,
            "warnings": [],
        }
        job.stats.append(stats)
        return stats

    def _table(self, table: str) -> sql.Identifier:
        return sql.Identifier(self.dataset, table)

    def _count(self, query: sql.Composed, values: "list[Any]") -> int:
        return self._run(query, values, -1, "cursor").rowcount

    def _run(
        self, query: bytes | sql.Composed, values: "list[Any] | None", limit: int, return_type: str
    ) -> Any:
        if return_type not in RETURN_TYPES:
            raise DatasetError(f"return_type must be one of {RETURN_TYPES}, got {return_type!r}")
        factory = dict_row if return_type == "dict" else None
        with self.lock:
            conn = _job().conn
            self._look_here(conn)
            conn.execute("SAVEPOINT statement")
            try:
                cursor = conn.cursor(row_factory=factory) if factory else conn.cursor()
                cursor.execute(query, values)
                conn.execute("RELEASE statement")
            except psycopg.Error as error:
                if conn.closed:
                    raise
                conn.execute("ROLLBACK TO statement")
                conn.execute("RELEASE statement")
                raise DatasetError(f"{self.dataset}: {str(error).strip()}") from error
            if cursor.description is None:
                forget_layouts()  # it may have been DDL
            return _returned(cursor, limit, return_type)

    def _look_here(self, conn: psycopg.Connection) -> None:
        job = _job()
        if job.search_path != self.dataset:
            conn.execute(
                sql.SQL("SET LOCAL search_path = {}, public").format(sql.Identifier(self.dataset))
            )
            job.search_path = self.dataset


def _returned(cursor: psycopg.Cursor[Any], limit: int, return_type: str) -> Any:
    if return_type == "cursor":
        return cursor
    if cursor.description is None:
        count = max(cursor.rowcount, 0)
        return [{"rows": count}] if return_type == "dict" else pd.DataFrame({"rows": [count]})
    rows = cursor.fetchall() if limit < 0 else cursor.fetchmany(limit) if limit else []
    if return_type == "dict":
        return rows
    names = [column.name for column in cursor.description]
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    series = [_series(values) for values in columns]
    frame = pd.concat(series, axis=1) if series else pd.DataFrame()
    frame.columns = names
    return frame


def _series(values: Iterable[Any]) -> pd.Series:
    """A column of a frame.

    Whole numbers stay exact whatever their size (Int64 where one is missing).  Of `numeric`
    columns, fractions become floats where that loses nothing, and else stay Decimals.
    """
    found = list(values)
    present = [value for value in found if value is not None]
    if present and all(isinstance(value, Decimal) for value in present):
        found = _undecimal(found, present)
        present = [value for value in found if value is not None]
    if present and len(present) < len(found) and all(type(value) is int for value in present):
        small = all(-(2**63) <= value < 2**63 for value in present)
        return pd.Series(found, dtype="Int64" if small else object)
    return pd.Series(found, dtype=None if present else object)


def _undecimal(found: "list[Any]", present: "list[Decimal]") -> "list[Any]":
    if all(value.is_finite() and value == value.to_integral_value() for value in present):
        return [None if value is None else int(value) for value in found]
    if all(Decimal(repr(float(value))) == value for value in present if value.is_finite()):
        return [None if value is None else float(value) for value in found]
    return found


def _where(conds: Mapping[str, Any] | None) -> "tuple[sql.Composable, list[Any]]":
    if not conds:
        return sql.SQL(""), []
    tests: list[sql.Composable] = []
    values: list[Any] = []
    for name, value in conds.items():
        column = sql.Identifier(name)
        if value is None:
            tests.append(sql.SQL("{} IS NULL").format(column))
        elif isinstance(value, (list, tuple, set)):
            tests.append(sql.SQL("{} = ANY(%s)").format(column))
            values.append([_plain(each) for each in value])
        else:
            tests.append(sql.SQL("{} = %s").format(column))
            values.append(_plain(value))
    return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(tests), values


def _plain(value: Any) -> Any:
    """A numpy or pandas scalar as Python's own, missing as None."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return None if value is pd.NA or value is pd.NaT or value != value else value  # noqa: PLR0124


def _refuse_transaction_words(query: str) -> None:
    """The transaction is the job's: a handler that ended it would break rows from status."""
    try:
        tokens = sqlglot.tokenize(query, read="postgres")
    except SqlglotError as error:
        raise DatasetError(f"this is not SQL: {error}") from None
    first = True
    for token in tokens:
        if first and token.text.upper() in TRANSACTION_WORDS:
            raise DatasetError(
                f"{token.text.upper()} is not for handlers: a job is one transaction,"
                " committed with its SUCCESS"
            )
        first = token.token_type == TokenType.SEMICOLON
