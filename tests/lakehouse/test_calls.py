"""The connector's calls that spare SQL: select, update, delete, truncate, insert."""

import datetime as dt

import pandas as pd
import pytest

from worker.errors import DatasetError
from worker.lakehouse import Connector
from worker.store.claims import Claim

pytestmark = pytest.mark.usefixtures("orders")


@pytest.mark.parametrize(
    ("conds", "ids"),
    [
        (None, [1, 2, 3]),
        ({}, [1, 2, 3]),
        ({"name": "bob"}, [2]),
        ({"id": [1, 3]}, [1, 3]),
        ({"id": (1, 2), "name": "ann"}, [1]),
        ({"price": None}, [2]),
        ({"price": [None, 3]}, [2, 3]),
        ({"price": float("nan")}, [2]),
        ({"id": []}, []),
        ({"price": 1.5}, [1]),
        ({"price": [1, 3]}, [3]),
        ({"day": "2024-03-01"}, [3]),
        ({"day": [dt.date(2024, 1, 1), pd.Timestamp("2024-03-01")]}, [1, 3]),
        ({"ID": pd.Series([3])[0]}, [3]),
        ({"name": "100%"}, [3]),
        ({"name": "x' OR true --"}, []),
    ],
)
def test_select_update_and_delete_take_conditions(
    data_prim: Connector, conds: dict[str, object], ids: list[int]
) -> None:
    assert sorted(data_prim.select("orders", conds)["id"].tolist()) == ids
    assert data_prim.update("orders", {"name": "new"}, conds) == len(ids)
    changed = data_prim.select("orders", {"name": "new"}, return_type="dict")
    assert sorted(row["id"] for row in changed) == ids
    assert data_prim.delete("orders", {"name": "new"}) == len(ids)
    assert data_prim.query("SELECT count(*) FROM orders").iloc[0, 0] == 3 - len(ids)


def test_select_has_limit_and_return_type(data_prim: Connector) -> None:
    assert len(data_prim.select("orders", limit=2)) == 2
    assert len(data_prim.select("orders", {"id": [1, 2]}, return_type="cursor").fetchall()) == 2


def test_update_takes_what_frames_hold(data_prim: Connector, job: Claim) -> None:
    job.conn.execute("ALTER TABLE data_prim.orders ADD extra jsonb")
    job.conn.commit()
    row = {
        "name": None,
        "price": float("nan"),
        "day": pd.Timestamp("2025-01-01"),
        "extra": {"a": [1]},
    }
    assert data_prim.update("orders", row, {"id": 1}) == 1
    found = data_prim.select("orders", {"id": 1}, return_type="dict")
    assert found == [
        {"id": 1, "name": None, "price": None, "day": dt.date(2025, 1, 1), "extra": {"a": [1]}}
    ]
    assert data_prim.update("orders", {}, {"id": 1}) == 0


def test_errors_of_the_calls_name_table_and_column(data_prim: Connector) -> None:
    with pytest.raises(
        DatasetError, match=r'data_prim.orders has no column "nam"; its columns: id, name'
    ):
        data_prim.update("orders", {"nam": 1})
    with pytest.raises(DatasetError, match=r"data_prim.missing: there is no such table.*orders"):
        data_prim.select("missing", {"id": 1})
    with pytest.raises(DatasetError, match="many"):
        data_prim.delete("orders", {"id": "many"})
    assert len(data_prim.select("orders")) == 3


def test_truncate_says_whether_there_was_a_table(data_prim: Connector) -> None:
    assert data_prim.truncate("orders") is True
    assert len(data_prim.select("orders")) == 0
    assert data_prim.truncate("missing") is False


def test_insert_takes_a_row_rows_or_a_frame(data_prim: Connector, job: Claim) -> None:
    assert data_prim.insert("orders", {"id": 4, "name": "d"})["inserts"] == 1
    assert data_prim.insert("orders", [{"id": 5}, {"id": 6, "name": "f"}])["inserts"] == 2
    assert data_prim.insert("orders", pd.DataFrame({"id": [7]}))["records"] == 1
    with pytest.raises(DatasetError, match=r"Key \(id\)=\(4\) already exists"):
        data_prim.insert("orders", {"id": 4, "name": "other"})
    stats = data_prim.insert("orders", [{"id": 4, "name": "other"}, {"id": 8}], odku=1)
    assert (stats["inserts"], stats["updates"], stats["skipped"]) == (1, 1, 0)
    assert data_prim.select("orders", {"id": 4})["name"].tolist() == ["other"]
    assert len(job.stats) == 4
