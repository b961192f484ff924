"""The steps from a table as it stands to its description: shown first, then done."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from worker.store.catalogue import Column, Standing
from worker.store.descriptions import Attribute, TableDescription
from worker.store.widening import loses_nothing

_DONE = {
    "create": "created",
    "adopt": "took over",
    "add": "added",
    "rename": "renamed",
    "widen": "widened",
    "convert": "converted",
    "drop": "dropped",
    "describe": "described",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One change: what is done (`verb`) to what, whether values may be lost by it, and its SQL."""

    verb: str
    what: str
    statements: tuple[sql.Composed, ...]
    loses_data: bool = False

    @property
    def planned(self) -> str:
        return f"{self.verb} {self.what}"

    @property
    def done(self) -> str:
        return f"{_DONE[self.verb]} {self.what}"

    def as_json(self) -> dict[str, Any]:
        return {"step": self.verb, "what": self.what, "loses_data": self.loses_data}


def steps(
    table: TableDescription, stands: Standing | None, before: TableDescription | None
) -> list[Step]:
    """What leads from what `stands` (None: nothing) to the description, in the order of doing it.

    `before` is the description by which it was built last (None: it was not built here): an index
    that is not in it was made by somebody else, and is left alone.
    """
    if stands is None:
        return [_create(table), *_new_indexes(table, frozenset())]
    taken = [] if before else [Step("adopt", f"{table.full_name}, which stands already", ())]
    renames = _renames(table, stands)
    renamed = _renamed(stands, {former: name for name, former in renames.items()})
    return [
        *taken,
        *_rename(table, renames),
        *_drop_key(table, renamed),
        *_drop_columns(table, renamed),
        *_columns(table, renamed),
        *_add_key(table, renamed),
        *_indexes(table, renamed, before, renames),
        *_comments(table, renamed),
    ]


def _create(table: TableDescription) -> Step:
    parts = [_definition(attribute) for attribute in table.attributes]
    if table.primary_key:
        parts.append(sql.SQL("PRIMARY KEY ({})").format(_listed(table.primary_key)))
    target = _target(table)
    made = sql.SQL("CREATE TABLE {} ({})").format(target, sql.SQL(", ").join(parts))
    comments = [_comment(table, None, table.description)] if table.description else []
    comments += [_comment(table, a.name, a.description) for a in table.attributes if a.description]
    what = f"{table.full_name} with {len(table.attributes)} attributes"
    return Step("create", what, (made, *comments))


def _renames(table: TableDescription, stands: Standing) -> dict[str, str]:
    """New names to the ones that stand; what was renamed by an earlier build is not among them."""
    return {
        attribute.name: attribute.renamed_from
        for attribute in table.attributes
        if attribute.renamed_from in stands.columns and attribute.name not in stands.columns
    }


def _renamed(stands: Standing, new: dict[str, str]) -> Standing:
    """What will stand once the names are changed, from old ones to new ones."""

    def listed(columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new.get(name, name) for name in columns)

    return replace(
        stands,
        columns={new.get(name, name): column for name, column in stands.columns.items()},
        key=listed(stands.key),
        indexed=frozenset(map(listed, stands.indexed)),
        plain_indexes={listed(columns): name for columns, name in stands.plain_indexes.items()},
    )


def _rename(table: TableDescription, renames: dict[str, str]) -> Iterator[Step]:
    for name, former in renames.items():
        change = _alter(table, sql.SQL("RENAME {} TO {}").format(_id(former), _id(name)))
        yield Step("rename", f"{former} to {name}", (change,))


def _drop_key(table: TableDescription, stands: Standing) -> Iterator[Step]:
    if not stands.key or stands.key == table.primary_key:
        return
    gone = sql.SQL("DROP CONSTRAINT {}").format(_id(stands.key_name or ""))
    kept = [name for name in stands.key if name in {a.name for a in table.attributes}]
    # A key's columns must have values, and the ones of no key need not.
    free = [
        _alter(table, sql.SQL("ALTER {} DROP NOT NULL").format(_id(name)))
        for name in kept
        if name not in table.primary_key
    ]
    what = f"the primary key ({', '.join(stands.key)})"
    yield Step("drop", what, (_alter(table, gone), *free))


def _add_key(table: TableDescription, stands: Standing) -> Iterator[Step]:
    if table.primary_key and stands.key != table.primary_key:
        change = sql.SQL("ADD PRIMARY KEY ({})").format(_listed(table.primary_key))
        what = f"the primary key ({', '.join(table.primary_key)})"
        yield Step("add", what, (_alter(table, change),))


def _drop_columns(table: TableDescription, stands: Standing) -> Iterator[Step]:
    described = {attribute.name for attribute in table.attributes}
    for name, column in stands.columns.items():
        if name not in described:
            change = _alter(table, sql.SQL("DROP {}").format(_id(name)))
            yield Step("drop", f"{name} ({column.type})", (change,), loses_data=True)


def _columns(table: TableDescription, stands: Standing) -> Iterator[Step]:
    for attribute in table.attributes:
        there = stands.columns.get(attribute.name)
        if there is None:
            change = _alter(table, sql.SQL("ADD {}").format(_definition(attribute)))
            yield Step("add", f"{attribute.name} ({attribute.type})", (change,))
        elif there.type != attribute.type:
            yield _change_type(table, attribute, there)


def _change_type(table: TableDescription, attribute: Attribute, there: Column) -> Step:
    change = sql.SQL("ALTER {0} TYPE {1} USING {0}::{1}").format(
        _id(attribute.name), _type(attribute)
    )
    what = f"{attribute.name} from {there.type} to {attribute.type}"
    if loses_nothing(there.type, attribute.type):
        return Step("widen", what, (_alter(table, change),))
    return Step("convert", what, (_alter(table, change),), loses_data=True)


def _indexes(
    table: TableDescription,
    stands: Standing,
    before: TableDescription | None,
    renames: dict[str, str],
) -> Iterator[Step]:
    new = {former: name for name, former in renames.items()}
    ours = {tuple(new.get(c, c) for c in columns) for columns in (before.indexes if before else ())}
    described = {attribute.name for attribute in table.attributes}
    for columns, name in stands.plain_indexes.items():
        # Those on a column that is dropped go with it.
        if columns in ours and columns not in table.indexes and described.issuperset(columns):
            gone = sql.SQL("DROP INDEX {}").format(sql.Identifier(table.dataset, name))
            yield Step("drop", f"the index on ({', '.join(columns)})", (gone,))
    key_goes = stands.key != table.primary_key and stands.key not in stands.plain_indexes
    kept = stands.indexed - ({stands.key} if key_goes else set())
    yield from _new_indexes(table, frozenset(c for c in kept if described.issuperset(c)))


def _new_indexes(table: TableDescription, there: frozenset[tuple[str, ...]]) -> list[Step]:
    found = []
    for columns in dict.fromkeys(table.indexes):
        if columns not in there | {table.primary_key}:
            made = sql.SQL("CREATE INDEX ON {} ({})").format(_target(table), _listed(columns))
            found.append(Step("add", f"an index on ({', '.join(columns)})", (made,)))
    return found


def _comments(table: TableDescription, stands: Standing) -> Iterator[Step]:
    if table.description != stands.comment:
        yield Step("describe", "the table", (_comment(table, None, table.description),))
    for attribute in table.attributes:
        there = stands.columns.get(attribute.name)
        if attribute.description != (there.comment if there else None):
            comment = _comment(table, attribute.name, attribute.description)
            yield Step("describe", attribute.name, (comment,))


def _comment(table: TableDescription, column: str | None, text: str | None) -> sql.Composed:
    if column is None:
        return sql.SQL("COMMENT ON TABLE {} IS {}").format(_target(table), sql.Literal(text))
    place = sql.Identifier(table.dataset, table.name, column)
    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(place, sql.Literal(text))


def _alter(table: TableDescription, change: sql.Composed) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} {}").format(_target(table), change)


def _definition(attribute: Attribute) -> sql.Composed:
    return sql.SQL("{} {}").format(_id(attribute.name), _type(attribute))


def _type(attribute: Attribute) -> sql.SQL:
    return sql.SQL(attribute.type)  # pyright: ignore[reportArgumentType] -- checked by describe()


def _target(table: TableDescription) -> sql.Identifier:
    return sql.Identifier(table.dataset, table.name)


def _id(name: str) -> sql.Identifier:
    return sql.Identifier(name)


def _listed(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)
