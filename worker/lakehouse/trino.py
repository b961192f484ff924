"""Statements in Trino's dialect, said in Postgres'.

Handlers written for the platform speak it.  A statement is read by sqlglot, changed where Postgres
has the same thing under another name, and written anew; what Postgres can't do is refused, before
anything runs, and never done in another way.
"""

import logging
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import ErrorLevel, exp
from sqlglot.errors import SqlglotError

from worker.errors import DatasetError
from worker.lakehouse.trino_functions import PostgresWords
from worker.lakehouse.trino_times import Refused

HINT = "docs/howto/trino.md shows what passes and what does not"

# What can't be read is refused below, with words of our own.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Translation:
    """SQL for Postgres; the result of its statement number `answer` (from 1) is the one to give."""

    text: str
    answer: int


def translate(query: str, datasets: tuple[str, ...]) -> Translation:
    """A handler's statements in Postgres' words; raises DatasetError for what can't be said there.

    `datasets` are the known ones, of which `db_<project>_<dataset>` names one.
    """
    try:
        statements, answer = _translated(query, datasets)
    except Refused as error:
        raise DatasetError(f"Trino's {error} has no counterpart in Postgres", HINT) from error
    except SqlglotError as error:
        found = getattr(error, "errors", None)
        where = f" (line {found[0]['line']}, column {found[0]['col']})" if found else ""
        said = found[0]["description"] if found else str(error)
        raise DatasetError(
            f"Trino's SQL can't be read or said in Postgres: {said}{where}", HINT
        ) from error
    # A name that nobody else has: two jobs may replace tables at once.
    text = ";\n".join(statements).replace(_NEW, f"dpe_new_{secrets.token_hex(8)}")
    return Translation(text, answer)


# What a table that replaces another is called until the old one is gone; in nobody's text.
_NEW = "dpe_new_\ue000"


@lru_cache(256)  # half a millisecond each, and handlers say the same ones over and over
def _translated(query: str, datasets: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    done: list[str] = []
    answer = 0
    for tree in sqlglot.parse(query, read="trino"):
        if tree is None:  # nothing between two semicolons
            continue
        written, own = _statement(tree, datasets)
        answer = len(done) + own
        done += written
    return tuple(done), answer


_RUNS = (exp.Query, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Alter,
         exp.TruncateTable, exp.Analyze, exp.Comment, exp.Values,
         # Refused further on, as for everybody:
         exp.Transaction, exp.Commit, exp.Rollback)  # fmt: skip


def _statement(tree: exp.Expr, datasets: tuple[str, ...]) -> tuple[list[str], int]:
    """One statement as one or several, and which of them (from 1) has its result."""
    if isinstance(tree, exp.Describe):
        return [_columns_of(tree.this, datasets)], 1
    if isinstance(tree, exp.Command):
        rest = tree.args.get("expression")
        rest = rest.name if isinstance(rest, exp.Expr) else rest or ""
        return _command(f"{tree.this} {rest}".strip(), datasets)
    if not isinstance(tree, _RUNS):
        raise Refused(tree.key.upper())
    _rename(tree, datasets)
    for function in tree.find_all(exp.Lambda):
        _check_lambda(function)
    for kind in tree.find_all(exp.DataType):
        _check_type(kind)
    if isinstance(tree, exp.Create):
        return _create(tree)
    return [_written(tree)], 1


def _rename(tree: exp.Expr, datasets: tuple[str, ...]) -> None:
    for table in tree.find_all(exp.Table):
        _place(table, datasets)
    _keep_labels(tree)
    for name in tree.find_all(exp.Identifier):
        # Names are the same in any case there; and `user`, a column, is a function here.
        if not name.quoted:
            name.set("this", name.this.lower())
            name.set("quoted", True)


def _keep_labels(tree: exp.Expr) -> None:
    """The names of the result's columns are as they were written: a frame has them so."""
    if not isinstance(tree, exp.Select):
        return
    order = tree.args.get("order")
    sorted_by = list(order.find_all(exp.Column)) if order else []
    for column in tree.selects:
        label = column.args.get("alias")
        if not isinstance(label, exp.Identifier):
            continue
        label.set("quoted", True)
        for name in sorted_by:
            if not name.table and name.name.lower() == label.name.lower():
                name.set("this", label.copy())


def _written(tree: exp.Expr) -> str:
    return tree.sql(PostgresWords, unsupported_level=ErrorLevel.RAISE)


def _place(table: exp.Table, datasets: tuple[str, ...]) -> None:
    """A table's dataset as it is called here; there is one catalogue, whatever it was called."""
    table.set("catalog", None)
    if table.args.get("version"):
        raise Refused("FOR VERSION or TIMESTAMP AS OF")
    name = table.db.lower()
    if name and name not in datasets:
        ends = [dataset for dataset in datasets if name.endswith(f"_{dataset.lower()}")]
        if name.startswith("db_") and ends:
            table.set("db", exp.to_identifier(max(ends, key=len), quoted=True))


def _create(tree: exp.Create) -> tuple[list[str], int]:
    """CREATE without the file format and the like, and CREATE OR REPLACE TABLE in three steps."""
    given = tree.args.get("properties")
    kept = [p for p in given.expressions if isinstance(p, exp.WithDataProperty)] if given else []
    tree.set("properties", exp.Properties(expressions=kept) if kept else None)
    if not (tree.args.get("replace") and tree.kind == "TABLE"):
        return [_written(tree)], 1
    tree.set("replace", False)
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    old = target.copy()
    if not tree.expression:
        return [f"DROP TABLE IF EXISTS {_written(old)}", _written(tree)], 2
    # The rows may come from the table that is replaced: so it goes when the new one is filled.
    target.set("this", exp.to_identifier(_NEW, quoted=True))
    new, name = _written(target), _written(old.this)
    return [
        _written(tree),
        f"DROP TABLE IF EXISTS {_written(old)}",
        f"ALTER TABLE {new} RENAME TO {name}",
    ], 1


def _check_lambda(function: exp.Lambda) -> None:
    used_by = function.parent
    if isinstance(used_by, exp.Func) and not isinstance(used_by, exp.ArrayFilter):
        name = used_by.name if isinstance(used_by, exp.Anonymous) else used_by.sql_name()
        raise Refused(f"{name.lower()}()")


def _check_type(kind: exp.DataType) -> None:
    if kind.is_type("struct", "map"):
        raise Refused(f"type {'ROW' if kind.is_type('struct') else 'MAP'}")
    cast = kind.parent
    literal = isinstance(cast, exp.Cast) and isinstance(cast.this, exp.Literal)
    if kind.is_type("decimal") and not kind.expressions and not literal:
        # What it means there; a literal, DECIMAL '1.5', has the digits that it has.
        kind.replace(exp.DataType.build("decimal(38, 0)"))


_SHOW = re.compile(
    r"SHOW\s+(?:(?P<tables>TABLES)(?:\s+(?:FROM|IN)\s+(?P<schema>[\w.\"]+))?(?P<like>\s+LIKE\s+.*)?"
    r"|COLUMNS\s+(?:FROM|IN)\s+(?P<table>[\w.\"]+))\s*",
    re.IGNORECASE | re.DOTALL,
)
_EXPLAIN = re.compile(
    r"EXPLAIN\s+(?P<analyze>ANALYZE\s+)?(?P<query>[^(].*)", re.IGNORECASE | re.DOTALL
)


def _command(text: str, datasets: tuple[str, ...]) -> tuple[list[str], int]:
    """What sqlglot hands on as it came."""
    found = _EXPLAIN.fullmatch(text)
    if found:
        statements, _ = _translated(found["query"], datasets)
        if len(statements) == 1:
            return [f"EXPLAIN {found['analyze'] or ''}{statements[0]}"], 1
    found = _SHOW.fullmatch(text)
    if found and found["table"]:
        return [_columns_of(exp.to_table(found["table"], dialect="trino"), datasets)], 1
    if found:
        table = exp.to_table(f"{found['schema'] or 'x'}.x", dialect="trino")
        _place(table, datasets)
        schema = _literal(table.db) if found["schema"] else "current_schema()"
        like = f" AND table_name {found['like'].strip()}" if found["like"] else ""
        return [
            'SELECT table_name AS "Table" FROM information_schema.tables'  # noqa: S608 -- quoted
            f" WHERE table_schema = {schema}{like} ORDER BY table_name"
        ], 1
    raise Refused(f"{' '.join(text.split()[:3])} …" if len(text.split()) > 3 else text)  # noqa: PLR2004


def _columns_of(table: exp.Expr, datasets: tuple[str, ...]) -> str:
    if not isinstance(table, exp.Table):
        raise Refused("DESCRIBE of anything but a table")
    _place(table, datasets)
    schema = _literal(table.db) if table.db else "current_schema()"
    return (
        'SELECT column_name AS "Column", data_type AS "Type", \'\' AS "Extra",'  # noqa: S608 -- quoted
        " coalesce(col_description(format('%I.%I', table_schema, table_name)::regclass,"
        f" ordinal_position), '') AS \"Comment\" FROM information_schema.columns"
        f" WHERE table_schema = {schema} AND table_name = {_literal(table.name.lower())}"
        " ORDER BY ordinal_position"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
