"""Tables: described, then built; built again, brought to their description without loss."""

from typing import Any

import psycopg
import pytest

from worker.errors import Conflict, Invalid
from worker.store.tables import build, describe, list_tables

ATTRIBUTES: list[dict[str, Any]] = [
    {"name": "number", "type": "Number", "description": "exact"},
    {"name": "whole", "type": "Number", "format": "integer"},
    {"name": "ratio", "type": "Number", "format": "float"},
    {"name": "text", "type": "String", "description": 'it\'s "free" %s'},
    {"name": "extra", "type": "String", "format": "json"},
    {"name": "yes", "type": "Boolean"},
    {"name": "day", "type": "Date"},
    {"name": "at", "type": "Datetime"},
]


def described(**changes: Any) -> dict[str, Any]:
    return {"dataset": "data_prim", "name": "event", "attributes": ATTRIBUTES} | changes


def columns(conn: psycopg.Connection, table: str = "data_prim.event") -> dict[str, str]:
    return dict(
        conn.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [table],
        ).fetchall()
    )


def test_each_type_becomes_its_own_in_postgres(conn: psycopg.Connection) -> None:
    done = build(conn, described())
    assert done == ["created data_prim.event with 8 attributes"]
    assert columns(conn) == {
        "number": "numeric",
        "whole": "bigint",
        "ratio": "double precision",
        "text": "text",
        "extra": "jsonb",
        "yes": "boolean",
        "day": "date",
        "at": "timestamp without time zone",
    }


def test_descriptions_become_comments_and_follow_changes(conn: psycopg.Connection) -> None:
    def comments() -> tuple[Any, ...] | None:
        return conn.execute(
            "SELECT obj_description(t), col_description(t, 1), col_description(t, 4),"
            " col_description(t, 2) FROM to_regclass('data_prim.event') AS t"
        ).fetchone()

    build(conn, described(description="All that came"))
    assert comments() == ("All that came", "exact", 'it\'s "free" %s', None)
    build(conn, described(attributes=[{**a, "description": "new"} for a in ATTRIBUTES]))
    assert comments() == (None, "new", "new", "new")


def test_a_primary_key_and_indexes_are_made_once(conn: psycopg.Connection) -> None:
    given = described(primary_key=["whole", "day"], indexes=["text", ["day", "number"]])
    assert len(build(conn, given)) == 3
    assert build(conn, given) == []
    indexes = conn.execute(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'data_prim' ORDER BY indexname"
    ).fetchall()
    assert [definition.partition(" USING ")[2] for (definition,) in indexes] == [
        "btree (day, number)",
        "btree (whole, day)",
        "btree (text)",
    ]


def test_indexes_of_long_names_do_not_meet(conn: psycopg.Connection) -> None:
    long = ["x" * 60 + end for end in "ab"]
    given = described(
        attributes=[{"name": name, "type": "Date"} for name in long], indexes=[[n] for n in long]
    )
    assert len(build(conn, given)) == 3
    assert build(conn, given) == []
    count = conn.execute(
        "SELECT count(*) FROM pg_indexes WHERE schemaname = 'data_prim'"
    ).fetchone()
    assert count == (2,)


def test_new_attributes_are_added_and_rows_stay(conn: psycopg.Connection) -> None:
    build(conn, described(attributes=ATTRIBUTES[:2]))
    conn.execute("INSERT INTO data_prim.event VALUES (1, 2)")
    assert build(conn, described(attributes=ATTRIBUTES[:3])) == ["added ratio (double precision)"]
    assert conn.execute("SELECT * FROM data_prim.event").fetchall() == [(1, 2, None)]


def test_built_tables_are_listed_as_they_were_described(conn: psycopg.Connection) -> None:
    build(conn, described(name="b", custom={"kept": True}))
    build(conn, described(name="a"))
    build(conn, described(name="b", custom={"kept": True}))
    found = list_tables(conn)
    assert [(table["dataset"], table["name"]) for table in found] == [
        ("data_prim", "a"),
        ("data_prim", "b"),
    ]
    assert found[1]["custom"] == {"kept": True}
    assert found[1]["attributes"] == ATTRIBUTES


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "must be a JSON object"),
        ([], "must be a JSON object"),
        ({}, '"dataset" must be a name'),
        (described(dataset="dpe"), "'dpe' is a name of the engine's"),
        (described(dataset="pg_catalog"), "is a name of the engine's or of Postgres'"),
        (described(dataset="public"), "is a name of"),
        (described(name=""), '"name" must be a name'),
        (described(name="x" * 64), "63 bytes"),
        (described(name='t"; DROP SCHEMA dpe; --'), "letters, digits and underscores"),
        (described(name="1st"), "letters, digits and underscores"),
        (described(attributes=[]), "at least one attribute"),
        (described(attributes={}), "at least one attribute"),
        (described(attributes=["x"]), r'"attributes"\[0\] must be an object'),
        (described(attributes=[{"name": "x"}]), r'"attributes"\[0\] \(x\): type None'),
        (described(attributes=[{"name": "x", "type": "Text"}]), "the known ones: Number"),
        (described(attributes=[{"name": "x", "type": ["Date"]}]), r"type \['Date'\]"),
        (described(attributes=[{"name": "x", "type": "Date", "format": "json"}]), "'json'"),
        (described(attributes=[ATTRIBUTES[0], ATTRIBUTES[0]]), "'number' is there twice"),
        (described(attributes=[{"name": "x", "type": "Date", "description": 1}]), "description"),
        (described(description=["x"]), '"description" must be a string'),
        (described(description="a\0b"), "NUL"),
        (described(attributes=[{**ATTRIBUTES[0], "description": "\0"}]), "NUL"),
        (described(attributes=[{"name": "x", "type": "Date", "renamed_from": 1}]), "renamed_from"),
        (
            described(attributes=[ATTRIBUTES[0], {**ATTRIBUTES[1], "renamed_from": "number"}]),
            "'number' is \"renamed_from\" and an attribute",
        ),
        (
            described(attributes=[{**a, "renamed_from": "old"} for a in ATTRIBUTES[:2]]),
            "'old' is \"renamed_from\" twice",
        ),
        (
            described(attributes=[{"name": "x", "type": "Date", "column_type": "date; DROP"}]),
            "must be a type as Postgres writes it",
        ),
        (
            described(attributes=[{"name": "x", "type": "Date", "column_type": "daet"}]),
            '"column_type" of x: type "daet" does not exist',
        ),
        (described(primary_key=["nothing"]), "\"primary_key\": there is no attribute 'nothing'"),
        (described(primary_key={"text": 1}), '"primary_key" must be a list'),
        (described(primary_key=["text", "text"]), '"primary_key": .*twice'),
        (described(primary_key=[["text"]]), '"primary_key": there is no attribute'),
        (described(indexes={"text": 1}), '"indexes" must be a list'),
        (described(indexes=[["nothing"]]), r'"indexes"\[0\]: there is no attribute'),
        (described(indexes=[[]]), r'"indexes"\[0\] .*at least one'),
        (described(primary_key=["extra"], custom="\0"), "NUL"),
    ],
)
def test_a_wrong_description_is_refused_with_its_place(
    conn: psycopg.Connection, given: Any, words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        build(conn, given)
    assert list_tables(conn) == []
    assert columns(conn) == {}


def test_a_description_is_checked_without_a_database() -> None:
    table = describe(described(primary_key="whole"))
    assert (table.full_name, table.primary_key) == ("data_prim.event", ("whole",))


def test_a_view_of_that_name_is_no_table_to_build(conn: psycopg.Connection) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.execute("CREATE VIEW data_prim.event AS SELECT 1 AS number")
    with pytest.raises(Conflict, match=r"data_prim\.event is there already, and is a view"):
        build(conn, described())
