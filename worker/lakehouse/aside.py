"""An insert that was refused, row by row: what fits goes in, what does not goes into quarantine.

Only after an insert has failed as a whole, so the way of rows that all fit is as quick as ever.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import psycopg
from psycopg import errors

from worker.errors import DatasetError
from worker.lakehouse.columns import Column, check_encodable, find, layout, match
from worker.lakehouse.counts import Counts
from worker.lakehouse.keys import check_key
from worker.lakehouse.other_servers import connection
from worker.lakehouse.source import Source, source
from worker.lakehouse.transaction import running_job, savepoint, turn
from worker.lakehouse.values import converter, is_missing
from worker.lakehouse.writing import write
from worker.store import quarantine, row_check
from worker.store.quarantine import Aside
from worker.store.retry import is_outage

MAX_TRIES = 400  # inserts, to find rows that only writing shows: a constraint's, a trigger's
_OF_ROWS = (psycopg.DataError, psycopg.IntegrityError, errors.RaiseException)
_as_json = converter("json", "U")

Reason = tuple[str | None, str]  # the column, if it is one's fault, and why


def is_of_rows(error: DatasetError) -> bool:
    """Whether an insert failed for what its rows are, and not for want of a server or a right."""
    cause = error.__cause__ or error.__context__
    of_rows = not isinstance(cause, psycopg.Error) or isinstance(cause, _OF_ROWS)
    return of_rows and not is_outage(error)


def write_what_fits(
    dataset: str, table: str, data: Any, failure: DatasetError
) -> tuple[Counts, list[Aside]]:
    """Write the rows that fit, keep the others aside; all of it or, raising DatasetError, nothing.

    `failure` is what the insert of all has met; it is raised where no row alone is to blame.
    First the values are looked at, column by column; then what is left is written, and divided
    where it is refused once more, MAX_TRIES times at most.
    """
    with turn:
        conn = connection(dataset)
        with savepoint(conn):
            rows = source(f"{dataset}.{table}", data)
            bad, strange = _unfit(conn, dataset, table, rows, failure)
            part = _Part(dataset, table, data, strange, bad)
            part.write([at for at in range(rows.rows) if at not in bad])
            if not bad:
                raise failure
            aside = [_aside(rows, at, *bad[at]) for at in sorted(bad)]
            quarantine.put(conn, dataset, table, running_job().execution_id, aside)
        return part.counts, aside


class _Part:
    """The rows that look as if they fit, written in halves where they don't."""

    def __init__(
        self, dataset: str, table: str, data: Any, strange: list[Any], bad: dict[int, Reason]
    ) -> None:
        self.counts = Counts(0)
        self._target = dataset, table
        self._data, self._strange, self._bad = data, strange, bad
        self._tries = 0

    def write(self, places: Sequence[int]) -> None:
        if not places:
            return
        self._tries += 1
        try:
            self.counts += write(*self._target, self._taken(places), upsert=True)
        except DatasetError as error:
            if self._tries >= MAX_TRIES or not is_of_rows(error):
                raise
            if len(places) == 1:
                self._bad[places[0]] = None, str(error)
                return
            middle = len(places) // 2
            self.write(places[:middle])
            self.write(places[middle:])

    def _taken(self, places: Sequence[int]) -> Any:
        if isinstance(self._data, pd.DataFrame):
            kept = [name not in self._strange for name in self._data.columns]
            return self._data.loc[:, kept].iloc[list(places)]
        rows = [self._data[at] for at in places]
        return [{n: v for n, v in row.items() if n not in self._strange} for row in rows]


def _unfit(
    conn: psycopg.Connection, dataset: str, table: str, rows: Source, failure: DatasetError
) -> tuple[dict[int, Reason], list[Any]]:
    """The rows that have a value that its column can't hold, and names of columns there are not."""
    known = layout(conn, dataset, table, fresh=True)
    exact = {column.name: column for column in row_check.columns(conn, dataset, table)}
    bad: dict[int, Reason] = {}
    strange: list[Any] = []
    for at, name in enumerate(rows.names):
        column, values = find(known, name), rows.column(at, 0, rows.rows)
        if column is not None:
            for place, why in _unfit_values(conn, known, column, exact[column.name], values):
                bad.setdefault(place, (column.name, f'column "{column.name}" {why}'))
            continue
        strange.append(name)
        having = [place for place, value in enumerate(values) if not is_missing(value)]
        if len(having) == rows.rows:
            raise failure  # it is not the rows: the data is for another table
        for place in having:
            bad.setdefault(place, (None, f'the table has no column "{name}"'))
    # What is wrong with the columns is wrong with all rows.
    brought = match(known, [name for name in rows.names if name not in strange])
    check_key(known, brought)
    lacking = {n for n, c in exact.items() if c.required and not (c.has_default or c.generated)}
    if not brought or lacking - {column.name for column in brought}:
        raise failure
    return bad, strange


def _unfit_values(
    conn: psycopg.Connection, known: Any, column: Column, exact: row_check.Column, values: list[Any]
) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    texts: list[str | None] = []
    for place, value in enumerate(values):
        text = None
        try:
            text = None if value is None else column.convert(value)
            check_encodable(known, column, [text])
        except (TypeError, ValueError, ArithmeticError, RecursionError, DatasetError) as error:
            found.append((place, f"is {column.type}: {error}"))
            text = None
        else:
            if text is None and exact.required:
                found.append((place, "must have a value"))
        texts.append(text)
    refused = row_check.refused(conn, exact.exact, texts)
    return found + [(place, f"is {exact.exact}: {why}") for place, why in refused]


def _aside(rows: Source, at: int, column: str | None, reason: str) -> Aside:
    row = {str(name): rows.column(n, at, at + 1)[0] for n, name in enumerate(rows.names)}
    return Aside(at + 1, column, reason, _as_json(row) or "{}")
