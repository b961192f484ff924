"""What a table should be: its description, as people write it, checked."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from worker.errors import Invalid

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
FORBIDDEN = {"dpe", "public", "information_schema"}
# What answers add to a description: so what was shown can be sent back.
ANSWERED = {"built_at", "standing"}

# A type as Postgres writes it: words, of a schema or quoted, a length, brackets of an array.
_TYPE = re.compile(
    r"""(?:[a-z_]\w*|"[^"]+")(?:\.(?:[a-z_]\w*|"[^"]+"))?  # integer, data_prim.mood
        (?:\ varying|\ precision)?
        (?:\(\d+(?:,\s*-?\d+)?\))?(?:\ with(?:out)?\ time\ zone)?(?:\[\])*""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    type: str  # as Postgres writes it
    description: str | None
    renamed_from: str | None = None


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table as it was described, checked."""

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


def describe(given: Any) -> TableDescription:
    """Check a description; raises Invalid naming the place."""
    if not isinstance(given, dict):
        raise Invalid("a table's description must be a JSON object")
    dataset = dataset_name(given.get("dataset"))
    name = _name(given.get("name"), '"name"')
    listed = given.get("attributes")
    if not isinstance(listed, list) or not listed:
        raise Invalid('"attributes" must be a list with at least one attribute')
    attributes = tuple(_attribute(entry, at) for at, entry in enumerate(listed))
    names = [attribute.name for attribute in attributes]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise Invalid(f'"attributes": {doubled[0]!r} is there twice')
    _check_renames(attributes, names)
    key = _columns(given.get("primary_key") or [], names, '"primary_key"')
    indexes = _indexes(given.get("indexes") or [], names)
    text = given.get("description")
    if text is not None and not isinstance(text, str):
        raise Invalid('"description" must be a string')
    if _NUL.search(orjson.dumps(given)):
        raise Invalid("the description has a NUL character in it, which Postgres can't hold")
    source = {field: value for field, value in given.items() if field not in ANSWERED}
    return TableDescription(dataset, name, text, attributes, key, indexes, source)


def dataset_name(given: Any) -> str:
    """A name that a dataset may have; raises Invalid."""
    name = _name(given, '"dataset"')
    if name in FORBIDDEN or name.startswith("pg_"):
        raise Invalid(f"\"dataset\": {name!r} is a name of the engine's or of Postgres' own")
    return name


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
    former = given.get("renamed_from")
    if former is not None:
        former = _name(former, f'{where}."renamed_from"')
    return Attribute(name, _column_type(given, where) or type, text, former)


def _column_type(given: dict[str, Any], where: str) -> str | None:
    """The exact type in Postgres, for tables that were not made here; None: the format decides."""
    type = given.get("column_type")
    if type is not None and not (isinstance(type, str) and _TYPE.fullmatch(type)):
        raise Invalid(
            f'{where}."column_type": {type!r} must be a type as Postgres writes it,'
            ' like "character varying(20)"'
        )
    return type


def _check_renames(attributes: tuple[Attribute, ...], names: list[str]) -> None:
    former = [attribute.renamed_from for attribute in attributes if attribute.renamed_from]
    for name in former:
        if name in names:
            raise Invalid(f'"attributes": {name!r} is "renamed_from" and an attribute, too')
        if former.count(name) > 1:
            raise Invalid(f'"attributes": {name!r} is "renamed_from" twice')


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
