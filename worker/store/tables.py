"""Tables: described first, then built.  Only the build touches a dataset.

Building again brings a table to its description by the steps of a plan, which can be seen before;
a step that loses data is taken only where that is asked for.  A table that stands already is taken
over by the first build of its description.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson
import psycopg
from psycopg import errors, sql

from worker.errors import Conflict, Invalid, NotFound, Unavailable
from worker.store import catalogue
from worker.store.catalogue import KINDS, READABLE, TABLES, Standing, standing
from worker.store.descriptions import TableDescription, describe
from worker.store.table_plan import Step, steps


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build would do now."""

    table: TableDescription
    steps: list[Step]

    @property
    def id(self) -> str:
        """The same for the same steps: who was shown a plan can ask for no other to be done."""
        return hashlib.sha256(orjson.dumps([s.as_json() for s in self.steps])).hexdigest()[:16]

    @property
    def loses_data(self) -> bool:
        return any(step.loses_data for step in self.steps)


def plan(conn: psycopg.Connection, given: Any) -> Plan:
    """What building this description, a dict, would do; nothing is changed.

    Raises Invalid for a wrong description, Conflict where something else than a table stands there.
    """
    return _plan(conn, describe(given))


def build(
    conn: psycopg.Connection,
    given: Any,
    *,
    allow_data_loss: bool = False,
    if_plan: str | None = None,
) -> list[str]:
    """Bring the table in Postgres to its description, a dict; return what was done, in words.

    `if_plan` is the id of the plan that was shown: any other is a Conflict.  Raises Invalid for a
    wrong description, Conflict for steps that lose data where that is not allowed, Unavailable
    where running jobs hold the table for too long; then nothing is changed.  Runs in a transaction
    of its own.
    """
    table = describe(given)
    with _changing(conn, table.dataset, table.full_name):
        conn.execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(table.dataset))
        )
        found = _plan(conn, table)
        _check(found, allow_data_loss, if_plan)
        for step in found.steps:
            for statement in step.statements:
                conn.execute(statement)
        conn.execute(
            """
            INSERT INTO dpe.tables (dataset, name, description) VALUES (%s, %s, %s)
            ON CONFLICT (dataset, name)
            DO UPDATE SET description = excluded.description, built_at = now()
            """,
            [table.dataset, table.name, orjson.dumps(table.source).decode()],
        )
    return [step.done for step in found.steps]


def drop(
    conn: psycopg.Connection, dataset: str, name: str, *, allow_data_loss: bool = False
) -> list[str]:
    """Drop a table and forget its description; return what was done, in words.

    Raises NotFound, Conflict where it has rows and losing them is not allowed, or where others
    (views, foreign keys) need it, Unavailable as `build` does.
    """
    full_name = f"{dataset}.{name}"
    with _changing(conn, dataset, full_name):
        stands = standing(conn, dataset, name)
        forgotten = conn.execute(
            "DELETE FROM dpe.tables WHERE dataset = %s AND name = %s RETURNING 1", [dataset, name]
        ).fetchone()
        if stands is None and forgotten is None:
            raise no_table(dataset, name)
        if stands is None:
            return [f"forgot the description of {full_name}, which did not stand any more"]
        _check_is_table(stands)
        target = sql.Identifier(dataset, name)
        # From here on nobody writes a row between the look and the drop.
        conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(target))
        filled = conn.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(target)).fetchone()
        if filled == (True,) and not allow_data_loss:
            raise Conflict(
                f"{full_name} has rows, which would be lost; nothing was changed",
                "to drop it all the same: --allow-data-loss (over HTTP ?allow_data_loss=true)",
            )
        conn.execute(sql.SQL("DROP TABLE {}").format(target))
        return [f"dropped {full_name}"]


def show(conn: psycopg.Connection, dataset: str, name: str) -> dict[str, Any]:
    """A table's description, `built_at`, and `standing`: {kind, rows_about, bytes} or None.

    Of a table that was not built here (`built_at` is None) it is the description that would take
    it over, read off the table.  Raises NotFound.
    """
    row = conn.execute(
        "SELECT description, built_at FROM dpe.tables WHERE dataset = %s AND name = %s",
        [dataset, name],
    ).fetchone()
    stands = standing(conn, dataset, name)
    if row is None and (stands is None or stands.kind not in READABLE):
        raise no_table(dataset, name)
    described, built_at = row or (stands.as_description() if stands else {}, None)
    seen = None
    if stands is not None:
        seen = {
            "kind": KINDS.get(stands.kind, stands.kind),
            "rows_about": stands.rows_about,
            "bytes": stands.bytes,
        }
    return {**described, "built_at": built_at, "standing": seen}


def list_tables(conn: psycopg.Connection, *, others: bool = False) -> list[dict[str, Any]]:
    """The described tables, each with its dataset, name, description and time of its build.

    With `others` also what stands in the datasets without a description: there `built_at` is None.
    """
    rows = conn.execute(
        "SELECT description, built_at FROM dpe.tables ORDER BY dataset, name"
    ).fetchall()
    found = [{**description, "built_at": built_at} for description, built_at in rows]
    if others:
        known = {(table["dataset"], table["name"]) for table in found}
        found += [
            {"dataset": dataset, "name": name, "kind": KINDS[kind], "built_at": None}
            for dataset, name, kind in catalogue.names(conn)
            if (dataset, name) not in known
        ]
        found.sort(key=lambda table: (table["dataset"], table["name"]))
    return found


def no_table(dataset: str, name: str) -> NotFound:
    """The error for a table that there is not."""
    return NotFound(f"table {dataset}.{name} not found", "dpe table list --all shows what there is")


def _plan(conn: psycopg.Connection, table: TableDescription) -> Plan:
    stands = standing(conn, table.dataset, table.name)
    if stands is not None:
        _check_is_table(stands)
    row = conn.execute(
        "SELECT description FROM dpe.tables WHERE dataset = %s AND name = %s",
        [table.dataset, table.name],
    ).fetchone()
    table = _with_canonical_types(conn, table, stands)
    return Plan(table, steps(table, stands, describe(row[0]) if row else None))


def _with_canonical_types(
    conn: psycopg.Connection, table: TableDescription, stands: Standing | None
) -> TableDescription:
    """The description with each type in Postgres' own words, so that the same is seen as such."""
    there = {column.type for column in stands.columns.values()} if stands else set[str]()
    given = {a["name"] for a in table.source["attributes"] if a.get("column_type")}
    changed = []
    for attribute in table.attributes:
        if attribute.name not in given or attribute.type in there:
            changed.append(attribute)
            continue
        try:
            with conn.transaction():
                type = catalogue.canonical(conn, attribute.type)
        except psycopg.Error as error:
            raise Invalid(
                f'"column_type" of {attribute.name}: {error.diag.message_primary or error}'
            ) from error
        changed.append(replace(attribute, type=type))
    return replace(table, attributes=tuple(changed))


def _check(found: Plan, allow_data_loss: bool, if_plan: str | None) -> None:
    name = found.table.full_name
    if if_plan is not None and if_plan != found.id:
        raise Conflict(
            f"{name}: the plan is not {if_plan} any more: the table or its description has changed",
            "look at the new plan, then build",
        )
    losing = [step.planned for step in found.steps if step.loses_data]
    if losing and not allow_data_loss:
        raise Conflict(
            f"{name}: data would be lost: {'; '.join(losing)}; nothing was changed",
            "to do it all the same: --allow-data-loss (over HTTP ?allow_data_loss=true);"
            ' an attribute that has a new name only needs "renamed_from"',
        )


def _check_is_table(stands: Standing) -> None:
    if stands.kind not in TABLES:
        raise Conflict(
            f"{stands.full_name} is there already, and is {KINDS.get(stands.kind, 'no table')}",
            "drop it in SQL first, or give the table another name",
        )


@contextmanager
def _changing(conn: psycopg.Connection, dataset: str, full_name: str) -> Iterator[None]:
    """A transaction that changes a table; Postgres' refusals become errors of the caller's."""
    try:
        with conn.transaction():
            # By dataset, not by table: two first tables of a dataset would both make its schema.
            conn.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"dataset {dataset}"]
            )
            # A change that waits for one running job makes every job after it wait too.  The
            # others: that a value's text is the same whoever changes a type.
            conn.execute(
                "SET LOCAL lock_timeout = '3s'; SET LOCAL timezone = 'UTC';"
                " SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL bytea_output = 'hex'"
            )
            yield
    except errors.LockNotAvailable:
        raise Unavailable(
            f"{full_name} is in use: a change has to wait for the jobs that write to it",
            "try again when they have ended: dpe job list",
        ) from None
    except (psycopg.ProgrammingError, psycopg.IntegrityError, psycopg.NotSupportedError,
            psycopg.DataError, errors.DependentObjectsStillExist) as error:  # fmt: skip
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise Conflict(
            f"{full_name}: {error.diag.message_primary or error}{detail}",
            error.diag.message_hint or "Postgres refuses it: describe it otherwise",
        ) from error
