"""Frames into tables: what is written, counted, refused, and left behind by what is refused.

Every test runs by each of the ways that rows can take: a statement for a few, COPY for many.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pandas as pd
import psycopg
import pytest

from tests.stack import until
from worker.lakehouse import Connector, bulk_insert, connect
from worker.store.claims import Claim

MANY = 1_500  # more than go in one statement, and more than one part of a COPY for wide rows

Rows = list[dict[str, Any]]
Pad = Callable[[Rows], Rows]


@pytest.fixture(params=["statement", "copy", "text copy"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pad(way: str) -> Pad:
    """Make the rows so many that they go the way that the test is run by.

    Rows are put before the given ones, with keys from 10,000 on.
    """

    def padded(rows: Rows) -> Rows:
        if way == "statement":
            return rows
        filling = [{"id": 10_000 + at, "name": "filling"} for at in range(MANY)]
        if way == "text copy":
            # An interval has no binary form here.
            filling = [row | {"span": "1 day"} for row in filling]
        return [*filling, *rows]

    return padded


@pytest.fixture(params=["", "PRIMARY KEY"], ids=["append", "upsert"])
def table(request: pytest.FixtureRequest, job: Claim) -> str:
    """A table, of whose rows `found` reads those without the filling."""
    job.conn.execute(
        f"CREATE TABLE data_prim.t (id bigint {request.param}, name text, amount numeric,"
        " day date, at timestamp, ok boolean, extra jsonb, span interval,"
        " short varchar(3), fixed char(3), whole integer, ratio double precision)"
    )
    return "t"


def found(job: Claim, columns: str = "id, name") -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM data_prim.t WHERE id IS NULL OR id < 10000 ORDER BY id"
    return job.conn.execute(query.encode()).fetchall()


def write(table: str, rows: Any) -> dict[str, Any]:
    stats, error = bulk_insert(connect("dwh/data_prim/"), table, rows)
    assert error is None
    return stats


def refusal(job: Claim, table: str, rows: Any) -> str:
    stats, error = bulk_insert(connect("dwh/data_prim/"), table, rows)
    assert error is not None
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (0, 0, len(rows))
    assert job.insert_errors[-1] == error
    assert error in stats["warnings"]
    assert found(job) == []
    return error


@pytest.mark.parametrize("frame", [True, False], ids=["frame", "dicts"])
def test_columns_are_matched_by_name(job: Claim, table: str, pad: Pad, frame: bool) -> None:
    rows = pad([{"NAME": "x", "id": 1}] if frame else [{"name": "x", "ID": 1}])
    data: Any = rows
    if frame:
        data = pd.DataFrame(rows)
        if "name" in data:  # the filling brings the one, the row the other
            data["NAME"] = data.pop("name").fillna(data["NAME"])
    else:
        data = [{key.lower(): value for key, value in row.items()} for row in rows]
        data = [
            {"nAme": row["name"], "id": row["id"]} | {k: v for k, v in row.items() if k == "span"}
            for row in data
        ]
    stats = write(table, data)
    assert stats["inserts"] == stats["records"] == len(rows)
    assert (stats["updates"], stats["skipped"], stats["warnings"]) == (0, 0, [])
    assert found(job) == [(1, "x")]
    assert job.stats == [stats]
    assert stats["table"] == "data_prim.t"


def test_what_is_missing_in_a_frame_is_null(job: Claim, table: str, pad: Pad) -> None:
    rows = pad(
        [
            {"id": 1, "name": None, "amount": float("nan"), "day": pd.NaT, "ok": pd.NA},
            {"id": 2, "name": float("nan"), "at": None, "ratio": pd.NA, "whole": float("nan")},
            {"id": 3, "name": pd.NA, "extra": float("nan"), "whole": 3.0, "short": None},
        ]
    )
    columns = "id, name, amount, day, at, ok, extra, span, short, whole, ratio"
    for data in (rows, pd.DataFrame(rows)):
        write(table, data)
        assert found(job, columns) == [
            (1, *[None] * 10),
            (2, *[None] * 10),
            (3, *[None] * 8, 3, None),
        ]
        job.conn.execute("DELETE FROM data_prim.t")


def test_texts_are_read_by_postgres(job: Claim, table: str, pad: Pad) -> None:
    rows = pad(
        [
            {
                "id": "1",
                "amount": "9007199254740993.10",
                "day": "2020-05-21",
                "at": "2020-05-21 11:34:23 PM",
                "ok": "yes",
            },
            {
                "id": 2,
                "amount": "1e3",
                "day": "2020-05-21 11:34:23 PM",
                "at": "2020-05-21T01:00:00+02:00",
                "ok": "f",
            },
            {"id": 3, "day": "May 21, 2020", "at": "2020-05-21 23:30:00Z", "whole": "7"},
        ]
    )
    write(table, pd.DataFrame(rows))
    day = dt.date(2020, 5, 21)
    assert found(job, "id, amount::text, day, at::text, ok, whole") == [
        (1, "9007199254740993.10", day, "2020-05-21 23:34:23", True, None),
        (2, "1000", day, "2020-05-20 23:00:00", False, None),
        (3, None, day, "2020-05-21 23:30:00", None, 7),
    ]


def test_nested_values_go_into_jsonb_and_into_text(job: Claim, table: str, pad: Pad) -> None:
    nested = {"a": [1, {"b": None}], "c": 'it\'s \\ "quoted"\n'}
    rows = pad(
        [
            {"id": 1, "extra": nested, "name": [1, "two", None]},
            {"id": 2, "extra": [nested], "name": {"k": True}},
            {"id": 3, "extra": '{"x": 1}', "name": "plain"},
            {"id": 4, "extra": 2**70, "name": ""},
        ]
    )
    write(table, pd.DataFrame(rows))
    assert found(job, "id, extra, name::text") == [
        (1, nested, '[1,"two",null]'),
        (2, [nested], '{"k":true}'),
        (3, {"x": 1}, "plain"),
        (4, 2**70, ""),
    ]


def test_text_stays_as_it_is(job: Claim, table: str, pad: Pad) -> None:
    texts = [
        "\\N",
        "\\.",
        "a\tb\nc\rd\\e",
        "'; DROP TABLE t; --",
        "%s",
        "é\U0001f600",
        " x ",
        "\\'",
        "NULL",
    ]
    write(table, pd.DataFrame(pad([{"id": at, "name": text} for at, text in enumerate(texts)])))
    assert found(job) == list(enumerate(texts))


REFUSED = [
    ("id", "one", "bigint"),
    ("id", 1.5, "bigint"),
    ("id", 2**63, "bigint"),
    ("amount", "a lot", "numeric"),
    ("day", "2020-02-30", "date"),
    ("day", "soon", "date"),
    ("at", "25:00", "timestamp"),
    ("ok", "perhaps", "boolean"),
    ("extra", "{not json", "jsonb"),
    ("whole", 2**31, "integer"),
    ("ratio", "half", "double precision"),
    ("name", "a\0b", "text"),
    ("name", "\ud800", "text"),
    ("short", "long", "character varying"),
    ("fixed", "long", "character"),
]


@pytest.mark.parametrize("frame", [True, False], ids=["frame", "dicts"])
@pytest.mark.parametrize("refused", REFUSED, ids=[f"{c}-{v!r}" for c, v, _ in REFUSED])
def test_a_value_that_a_column_cannot_hold_is_named_with_its_place(
    job: Claim, table: str, pad: Pad, refused: tuple[str, Any, str], frame: bool
) -> None:
    column, value, type = refused
    rows = pad([{"id": 1, "name": "good"}, {"id": 2} | {column: value}, {"id": 3}])
    # pandas' own strings refuse a lone surrogate: then it stands among objects.
    dtype = object if value == "\ud800" else None
    said = refusal(job, table, pd.DataFrame(rows, dtype=dtype) if frame else rows)
    assert said.startswith(f'data_prim.t, row {len(rows) - 1}: column "{column}" is {type}')
    assert ("1.5" if value == 1.5 else repr(value).strip("'")) in said
    write(table, [{"id": 5, "name": "after"}])
    assert found(job) == [(5, "after")]


def test_a_column_that_the_table_lacks_is_named(job: Claim, table: str, pad: Pad) -> None:
    rows = pad([{"id": 1, "colour": "red"}])
    said = refusal(job, table, rows)
    assert 'data_prim.t has no column "colour"' in said
    assert "id, name, amount" in said


def test_a_table_that_is_not_there_is_named_with_those_that_are(
    job: Claim, table: str, pad: Pad
) -> None:
    said = refusal(job, "nothing", pad([{"id": 1}]))
    assert "data_prim.nothing: there is no such table; the dataset has: t" in said


def test_a_missing_value_is_named_with_its_row(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ALTER name SET NOT NULL")
    rows = pad([{"id": 1, "name": "x"}, {"id": 2, "name": None}])
    said = refusal(job, table, pd.DataFrame(rows))
    assert f"row {len(rows)}" in said
    assert '"name"' in said
    said = refusal(job, table, [{"id": row["id"]} for row in rows])
    assert '"name"' in said


def test_a_broken_constraint_is_told_in_postgres_words(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ADD CONSTRAINT positive CHECK (whole > 0)")
    assert "positive" in refusal(job, table, pad([{"id": 1, "whole": -1}]))


def test_a_column_that_is_there_twice_is_refused(job: Claim, table: str, pad: Pad) -> None:
    frame = pd.DataFrame(pad([{"id": 1, "name": "x"}]))
    twice = pd.concat([frame, frame[["name"]]], axis=1)
    assert '"name" is there twice' in refusal(job, table, twice)
    frame["NAME"] = "y"
    assert '"name" is there twice' in refusal(job, table, frame)


def test_generated_columns_are_not_for_the_data(job: Claim, table: str, pad: Pad) -> None:
    job.conn.execute("ALTER TABLE data_prim.t ADD twice bigint GENERATED ALWAYS AS (id * 2) STORED")
    assert '"twice"' in refusal(job, table, pad([{"id": 1, "twice": 2}]))
    write(table, pad([{"id": 1}]))
    assert found(job, "id, twice") == [(1, 2)]


@pytest.mark.parametrize("data", [pd.DataFrame(), pd.DataFrame({"id": []}), []])
def test_nothing_to_write_is_no_error(job: Claim, table: str, data: Any) -> None:
    stats = write(table, data)
    assert (stats["records"], stats["inserts"], stats["updates"], stats["skipped"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("data", [None, "rows", 5, [1], [{"id": 1}, None], {"id": 1}])
def test_data_of_another_shape_is_refused(job: Claim, table: str, data: Any) -> None:
    _, error = bulk_insert(connect("dwh/data_prim/"), table, data)
    assert error is not None
    assert "must be a DataFrame or a list of dicts" in error


def test_rows_without_columns_are_refused(job: Claim, table: str) -> None:
    _, error = bulk_insert(connect("dwh/data_prim/"), table, pd.DataFrame(index=range(3)))
    assert error is not None
    assert "no columns" in error


class TestUpsert:
    @pytest.fixture(autouse=True)
    def keyed(self, job: Claim) -> None:
        job.conn.execute(
            "CREATE TABLE data_prim.t (id bigint PRIMARY KEY, name text, note text DEFAULT 'mine',"
            " span interval)"
        )

    def test_rows_with_a_known_key_are_updated_and_counted(self, job: Claim, pad: Pad) -> None:
        write("t", pad([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
        job.conn.execute("UPDATE data_prim.t SET note = 'kept'")
        rows = pad([{"id": 2, "name": "new"}, {"id": 3, "name": "c"}])
        stats = write("t", rows)
        assert (stats["inserts"], stats["updates"], stats["skipped"]) == (1, len(rows) - 1, 0)
        assert found(job, "id, name, note") == [
            (1, "a", "kept"),
            (2, "new", "kept"),
            (3, "c", "mine"),
        ]

    def test_of_rows_with_the_same_key_the_last_one_wins(self, job: Claim, pad: Pad) -> None:
        rows = pad([{"id": 1, "name": "first"}, {"id": 2, "name": "x"}, {"id": 1, "name": "last"}])
        stats = write("t", rows)
        assert (stats["records"], stats["inserts"]) == (len(rows), len(rows) - 1)
        assert (stats["updates"], stats["skipped"]) == (0, 1)
        assert stats["warnings"]
        assert found(job) == [(1, "last"), (2, "x")]

    def test_keys_that_are_the_same_to_postgres_alone_are_the_same(
        self, job: Claim, pad: Pad
    ) -> None:
        job.conn.execute("ALTER TABLE data_prim.t ALTER id TYPE numeric")
        rows = pad([{"id": "1", "name": "first"}, {"id": "1.0", "name": "last"}])
        stats = write("t", rows)
        assert (stats["inserts"], stats["skipped"]) == (len(rows) - 1, 1)
        assert found(job) == [(1, "last")]

    def test_a_row_that_is_nothing_but_its_key_changes_nothing(self, job: Claim, way: str) -> None:
        rows = [{"id": at} for at in range(3 if way == "statement" else MANY)]
        assert write("t", rows)["inserts"] == len(rows)
        stats = write("t", rows)
        assert (stats["inserts"], stats["updates"], stats["skipped"]) == (0, 0, len(rows))

    def test_data_without_the_key_are_refused(self, job: Claim, pad: Pad) -> None:
        rows = [{"name": "x", "span": row.get("span")} for row in pad([{"id": 1, "name": "x"}])]
        assert "primary key" in refusal(job, "t", rows)

    def test_a_key_without_a_value_is_refused(self, job: Claim, pad: Pad) -> None:
        rows = pad([{"id": 1, "name": "x"}, {"id": None, "name": "y"}])
        said = refusal(job, "t", pd.DataFrame(rows))
        assert f"row {len(rows)}" in said

    def test_a_key_of_two_columns(self, job: Claim, pad: Pad) -> None:
        job.conn.execute("DROP TABLE data_prim.t")
        job.conn.execute(
            "CREATE TABLE data_prim.t (name text, id numeric, span interval, n int,"
            " PRIMARY KEY (name, id))"
        )
        write("t", pad([{"id": 1, "name": "a", "n": 1}, {"id": 1, "name": "b", "n": 2}]))
        stats = write("t", pad([{"id": 1, "name": "a", "n": 3}]))
        assert stats["inserts"] == 0
        assert found(job, "name, id, n") == [("a", 1, 3), ("b", 1, 2)] or found(
            job, "name, id, n"
        ) == [("b", 1, 2), ("a", 1, 3)]


def test_an_insert_that_failed_leaves_the_rest_of_the_job_whole(
    job: Claim, table: str, pad: Pad, conn: psycopg.Connection
) -> None:
    dataset = connect("dwh/data_prim/")
    write(table, [{"id": 1, "name": "before"}])
    _, error = bulk_insert(dataset, table, pad([{"id": 2, "name": "bad"}, {"id": "x"}]))
    assert error is not None
    dataset.query("UPDATE t SET whole = 1")
    write(table, pad([{"id": 3, "name": "after"}]))
    job.conn.commit()
    rows = conn.execute(
        "SELECT id, whole FROM data_prim.t WHERE name <> 'filling' ORDER BY id"
    ).fetchall()
    assert rows == [(1, 1), (3, None)]


@pytest.mark.parametrize(
    "changed",
    [
        ("ALTER TABLE data_prim.t ADD colour text", {"id": 2, "colour": "red"}, "red"),
        ("ALTER TABLE data_prim.t RENAME name TO title", {"id": 2, "title": "x"}, None),
        ("ALTER TABLE data_prim.t ALTER amount TYPE text", {"id": 2, "amount": "007"}, "007"),
        ("ALTER TABLE data_prim.t ALTER id TYPE integer", {"id": 2}, None),
        ("ALTER TABLE data_prim.t ALTER ratio TYPE bigint", {"id": 2, "ratio": 5.0}, 5),
        ("ALTER TABLE data_prim.t DROP amount", {"id": 2, "name": "x"}, None),
    ],
)
def test_a_table_that_was_changed_by_others_is_written_as_it_is_now(
    job: Claim,
    table: str,
    way: str,
    conn: psycopg.Connection,
    changed: tuple[str, dict[str, Any], Any],
) -> None:
    change, row, expected = changed
    job.conn.commit()
    rows = 1 if way == "statement" else MANY
    first = [{"id": at, "name": "x", "amount": 1, "ratio": 1.5} for at in range(10, 10 + rows)]
    write(table, pd.DataFrame(first).assign(ratio=1.0))
    job.conn.commit()
    conn.execute(change.encode())
    write(table, pd.DataFrame([row | {"id": row["id"] + 5000 + at} for at in range(rows)]))
    last = list(row)[-1]
    got = job.conn.execute(
        f"SELECT DISTINCT {last} FROM data_prim.t WHERE id >= 5000".encode()
    ).fetchall()
    assert len(got) == (rows if last == "id" else 1)
    if expected is not None:
        assert got == [(expected,)]


def test_a_type_that_was_changed_by_others_is_noticed_within_seconds(
    job: Claim, conn: psycopg.Connection
) -> None:
    conn.execute("CREATE TABLE data_prim.t (id bigint, name text)")
    write("t", [{"id": 1, "name": "2024-05-21 12:00:00+02:00"}])
    job.conn.commit()
    conn.execute("TRUNCATE data_prim.t")
    conn.execute("ALTER TABLE data_prim.t ALTER name TYPE timestamp USING name::timestamp")

    def noon_in_paris() -> bool:
        write("t", [{"id": 2, "name": "2024-05-21 12:00:00+02:00"}])
        return (2, dt.datetime(2024, 5, 21, 10)) in found(job)  # noqa: DTZ001 -- as it is there

    until(noon_in_paris, 5)


def test_a_key_that_a_table_got_since_is_heeded(
    job: Claim, pad: Pad, conn: psycopg.Connection
) -> None:
    conn.execute("CREATE TABLE data_prim.t (id bigint, name text, span interval)")
    write("t", [{"id": 1, "name": "x"}])
    job.conn.commit()
    conn.execute("ALTER TABLE data_prim.t ADD PRIMARY KEY (id)")
    stats = write("t", pad([{"id": 1, "name": "y"}]))
    assert stats["updates"] == 1
    assert found(job) == [(1, "y")]


def test_a_connector_made_by_another_job_works_in_this_one(job: Claim, table: str) -> None:
    kept = Connector("data_prim")  # as at the top of a module
    stats, error = bulk_insert(
        kept, table, [{"id": 1}], source_default_schema={}, batch_size=10, statistics=True
    )
    assert (stats["inserts"], error) == (1, None)
