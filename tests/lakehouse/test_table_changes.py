"""A changed description: a plan that can be seen, then done; what loses data only where allowed."""

from decimal import Decimal
from typing import Any

import psycopg
import pytest

from worker.errors import Conflict, NotFound
from worker.store.tables import build, drop, list_tables, plan, show
from worker.store.widening import loses_nothing

ID = {"name": "id", "type": "Number", "format": "integer"}
NAME = {"name": "name", "type": "String"}


def described(*attributes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"dataset": "data_prim", "name": "event", "attributes": list(attributes)} | more


def planned(conn: psycopg.Connection, given: dict[str, Any]) -> list[str]:
    return [step.planned for step in plan(conn, given).steps]


def rows(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    return conn.execute("SELECT * FROM data_prim.event").fetchall()


@pytest.fixture
def filled(conn: psycopg.Connection) -> None:
    """data_prim.event (id, name) with one row, its key id, indexed by name."""
    build(conn, described(ID, NAME, primary_key=["id"], indexes=["name"]))
    conn.execute("INSERT INTO data_prim.event VALUES (1, '7')")


def test_a_plan_is_what_the_build_then_does_and_changes_nothing(conn: psycopg.Connection) -> None:
    given = described(ID, NAME, indexes=["name"])
    assert planned(conn, given) == [
        "create data_prim.event with 2 attributes",
        "add an index on (name)",
    ]
    assert conn.execute("SELECT to_regnamespace('data_prim')").fetchone() == (None,)
    assert build(conn, given) == [
        "created data_prim.event with 2 attributes",
        "added an index on (name)",
    ]
    assert planned(conn, given) == []


@pytest.mark.usefixtures("filled")
def test_a_renamed_attribute_keeps_its_values_key_and_index(conn: psycopg.Connection) -> None:
    number = ID | {"name": "number", "renamed_from": "id"}
    title = NAME | {"name": "title", "renamed_from": "name"}
    given = described(number, title, primary_key=["number"], indexes=["title"])
    assert build(conn, given) == ["renamed id to number", "renamed name to title"]
    assert rows(conn) == [(1, "7")]
    assert build(conn, given) == []  # the same file may say for ever what it was renamed from


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("column", "found"),
    [
        ({"name": "id", "type": "Number"}, Decimal(1)),
        ({"name": "id", "type": "String"}, "1"),
        ({"name": "id", "type": "Number", "column_type": "numeric(25,2)"}, Decimal("1.00")),
    ],
)
def test_a_wider_type_is_taken_without_asking(
    conn: psycopg.Connection, column: dict[str, Any], found: Any
) -> None:
    (done,) = build(conn, described(column, NAME, primary_key=["id"], indexes=["name"]))
    assert done.startswith("widened id from bigint to ")
    assert rows(conn) == [(found, "7")]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("given", "step"),
    [
        (described(ID, primary_key=["id"]), "drop name (text)"),
        (
            described(ID, {"name": "name", "type": "Number"}, primary_key=["id"]),
            "convert name from text to numeric",
        ),
    ],
)
def test_what_loses_data_is_done_only_where_allowed(
    conn: psycopg.Connection, given: dict[str, Any], step: str
) -> None:
    more = {"name": "more", "type": "Date"}
    given = given | {"attributes": [*given["attributes"], more]}
    assert [s.planned for s in plan(conn, given).steps if s.loses_data] == [step]
    with pytest.raises(Conflict, match="data would be lost: ") as refused:
        build(conn, given)
    assert step in str(refused.value)
    assert "--allow-data-loss" in refused.value.hint
    assert rows(conn) == [(1, "7")]
    assert len(list_tables(conn)[0]["attributes"]) == 2
    done = build(conn, given, allow_data_loss=True)
    assert "added more (date)" in done
    assert rows(conn) in ([(1, None)], [(1, Decimal(7), None)])
    assert planned(conn, given) == []


@pytest.mark.usefixtures("filled")
def test_values_that_cannot_be_converted_stay_as_they_are(conn: psycopg.Connection) -> None:
    conn.execute("UPDATE data_prim.event SET name = 'seven'")
    given = described(ID, {"name": "name", "type": "Number"}, primary_key=["id"])
    with pytest.raises(Conflict, match="invalid input syntax for type numeric"):
        build(conn, given, allow_data_loss=True)
    assert rows(conn) == [(1, "seven")]


@pytest.mark.usefixtures("filled")
def test_a_key_is_changed_where_the_rows_allow_it(conn: psycopg.Connection) -> None:
    by_name = described(ID, NAME, primary_key=["name"])
    assert build(conn, by_name) == [
        "dropped the primary key (id)",
        "added the primary key (name)",
        "dropped the index on (name)",
    ]
    assert build(conn, by_name) == []
    conn.execute("INSERT INTO data_prim.event VALUES (NULL, '8')")  # id is free now
    with pytest.raises(Conflict, match='"id" of relation "event" contains null values'):
        build(conn, described(ID, NAME, primary_key=["id"]))
    assert planned(conn, by_name) == []
    assert build(conn, described(ID, NAME)) == ["dropped the primary key (name)"]
    conn.execute("INSERT INTO data_prim.event VALUES (1, '9'), (1, NULL)")


@pytest.mark.usefixtures("filled")
def test_an_index_that_others_made_stays(conn: psycopg.Connection) -> None:
    conn.execute("CREATE INDEX others ON data_prim.event (name, id)")
    conn.execute("CREATE INDEX partly ON data_prim.event (id) WHERE id > 5")
    conn.execute("CREATE INDEX by_length ON data_prim.event (length(name))")
    assert build(conn, described(ID, NAME, primary_key=["id"])) == ["dropped the index on (name)"]
    found = conn.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'data_prim' ORDER BY 1"
    ).fetchall()
    assert [name for (name,) in found] == ["by_length", "event_pkey", "others", "partly"]


@pytest.mark.usefixtures("filled")
def test_changed_comments_are_steps(conn: psycopg.Connection) -> None:
    given = described(ID, NAME, primary_key=["id"], indexes=["name"])
    given["attributes"] = [ID | {"description": "from the shop"}, NAME]
    assert build(conn, given | {"description": "Sales"}) == ["described the table", "described id"]
    assert build(conn, given | {"description": "Sales"}) == []


@pytest.mark.usefixtures("filled")
def test_another_plan_than_the_one_shown_is_not_done(conn: psycopg.Connection) -> None:
    given = described(ID, NAME, {"name": "day", "type": "Date"}, primary_key=["id"])
    shown = plan(conn, given)
    conn.execute("ALTER TABLE data_prim.event ADD strange int")
    with pytest.raises(Conflict, match="the plan is not .* any more"):
        build(conn, given, allow_data_loss=True, if_plan=shown.id)
    conn.execute("ALTER TABLE data_prim.event DROP strange")
    assert build(conn, given, if_plan=shown.id) == [
        "added day (date)",
        "dropped the index on (name)",
    ]


OTHERS_TABLE = """
    CREATE TABLE data_prim.event (
      id smallint PRIMARY KEY, code character varying(8) NOT NULL DEFAULT 'x', price numeric(10,2),
      at timestamp with time zone, tags text[], extra json, exact numeric, span interval,
      "Größe" double precision, mood data_prim."a mood", dated date, soon timestamp(3)
    )
"""


def test_a_table_that_stands_is_taken_over_as_it_is(conn: psycopg.Connection) -> None:
    conn.execute("CREATE SCHEMA data_prim; CREATE TYPE data_prim.\"a mood\" AS ENUM ('good')")
    conn.execute(OTHERS_TABLE)
    conn.execute(
        "CREATE INDEX ON data_prim.event (code, at);"
        "CREATE UNIQUE INDEX ON data_prim.event (price);"
        "COMMENT ON COLUMN data_prim.event.code IS 'a code'"
    )
    conn.execute("INSERT INTO data_prim.event (id) VALUES (1)")
    (listed,) = list_tables(conn, others=True)
    assert (listed["name"], listed["kind"], listed["built_at"]) == ("event", "a table", None)
    assert list_tables(conn) == []

    shown = show(conn, "data_prim", "event")
    assert shown["built_at"] is None
    assert shown["indexes"] == [["code", "at"]]
    assert shown["attributes"][0] == {"name": "id", "type": "Number", "column_type": "smallint"}
    assert shown["attributes"][1]["description"] == "a code"
    assert [a["type"] for a in shown["attributes"] if "column_type" not in a] == [
        "Number", "Number", "Date",
    ]  # fmt: skip
    assert build(conn, shown) == ["took over data_prim.event, which stands already"]
    assert build(conn, shown) == []
    assert conn.execute("SELECT code FROM data_prim.event").fetchall() == [("x",)]
    again = show(conn, "data_prim", "event")
    assert again["built_at"] is not None
    assert again["standing"]["kind"] == "a table"
    assert "standing" not in list_tables(conn)[0]


def test_a_type_may_be_written_in_other_words(conn: psycopg.Connection) -> None:
    given = described({"name": "code", "type": "String", "column_type": "varchar(8)"})
    build(conn, given)
    assert planned(conn, given) == []
    given["attributes"][0]["column_type"] = "varchar(9)"
    assert planned(conn, given) == ["widen code from character varying(8) to character varying(9)"]


@pytest.mark.usefixtures("filled")
def test_a_table_with_rows_is_dropped_only_where_allowed(conn: psycopg.Connection) -> None:
    with pytest.raises(Conflict, match=r"data_prim\.event has rows"):
        drop(conn, "data_prim", "event")
    conn.execute("CREATE VIEW data_prim.seen AS SELECT id FROM data_prim.event")
    with pytest.raises(Conflict, match=r"view data_prim\.seen depends on table"):
        drop(conn, "data_prim", "event", allow_data_loss=True)
    assert rows(conn) == [(1, "7")]
    assert len(list_tables(conn)) == 1
    conn.execute("DROP VIEW data_prim.seen")
    assert drop(conn, "data_prim", "event", allow_data_loss=True) == ["dropped data_prim.event"]
    assert list_tables(conn, others=True) == []
    with pytest.raises(NotFound):
        drop(conn, "data_prim", "event")


@pytest.mark.usefixtures("filled")
def test_an_empty_table_and_one_that_is_gone_are_dropped_at_once(conn: psycopg.Connection) -> None:
    conn.execute("DELETE FROM data_prim.event")
    assert drop(conn, "data_prim", "event") == ["dropped data_prim.event"]
    build(conn, described(ID))
    conn.execute("DROP TABLE data_prim.event")
    assert show(conn, "data_prim", "event")["standing"] is None
    assert "forgot the description" in drop(conn, "data_prim", "event")[0]


@pytest.mark.parametrize("dataset", ["dpe", "public", "pg_catalog", "nothing"])
def test_tables_of_the_engine_are_none(conn: psycopg.Connection, dataset: str) -> None:
    for name in ("jobs", "pg_class"):
        with pytest.raises(NotFound):
            show(conn, dataset, name)
        with pytest.raises(NotFound):
            drop(conn, dataset, name, allow_data_loss=True)


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("smallint", "bigint", True),
        ("bigint", "integer", False),
        ("bigint", "double precision", False),
        ("integer", "double precision", True),
        ("numeric(10,2)", "numeric", True),
        ("numeric", "numeric(10,2)", False),
        ("numeric(10,2)", "numeric(12,4)", True),
        ("numeric(10,2)", "numeric(11,4)", False),
        ("bigint", "numeric(21,2)", True),
        ("bigint", "numeric(20,2)", False),
        ("numeric", "double precision", False),
        ("character varying(8)", "character varying(9)", True),
        ("character varying(8)", "character varying(7)", False),
        ("character varying", "character varying(7)", False),
        ("character varying(8)", "text", True),
        ("character(8)", "character varying(8)", True),
        ("text", "character varying(8)", False),
        ("date", "timestamp without time zone", True),
        ("date", "timestamp(3) without time zone", False),
        ("timestamp without time zone", "date", False),
        ("timestamp(3) without time zone", "timestamp without time zone", True),
        ("timestamp(3) without time zone", "timestamp(1) without time zone", False),
        ("timestamp without time zone", "timestamp with time zone", True),
        ("json", "jsonb", False),
        ("jsonb", "text", True),
        ("boolean", "numeric", False),
        ('data_prim."a (mood"', "text", True),
    ],
)
def test_wider_types_are_known(old: str, new: str, fits: bool) -> None:
    assert loses_nothing(old, new) is fits
