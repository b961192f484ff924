"""Every example, as a newcomer would push it, in a real worker."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Engine
from worker.store import actions, tables
from worker.store.jobs import Job

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def engine(engine: Engine) -> Engine:
    for description in sorted(EXAMPLES.glob("tables/*.json")):
        tables.build(engine.conn, json.loads(description.read_text()))
    engine.worker()
    return engine


def run(engine: Engine, example: str, content: Any = None) -> Job:
    files = {
        path.name: path.read_bytes() for path in (EXAMPLES / example).iterdir() if path.is_file()
    }
    action = actions.push(engine.conn, None, files)
    return engine.run(action, content)


def result(engine: Engine, example: str, content: Any = None) -> Any:
    job = run(engine, example, content)
    assert job.status == "SUCCESS", job.error
    return job.result


def sell(engine: Engine, *sales: tuple[str, str, str]) -> None:
    for at, (shop, amount, sold_at) in enumerate(sales):
        engine.conn.execute(
            "INSERT INTO data_prim.sale VALUES (%s, %s, %s, %s)", [at, shop, amount, sold_at]
        )


def test_every_example_is_in_the_table_of_contents() -> None:
    text = (EXAMPLES / "README.md").read_text()
    folders = {path.parent.name for path in EXAMPLES.glob("*/main.py")}
    assert len(folders) >= 5
    assert {name for name in folders if f"[`{name}`]" in text} == folders
    described = {json.loads(path.read_text())["name"] for path in EXAMPLES.glob("tables/*.json")}
    assert {name for name in described if f"`{name}`" in text} == described


def test_event_archive_keeps_the_rows(engine: Engine) -> None:
    rows = [
        {"remark": "fragile; it's \\heavy\n", "order_id": 2**60 + 1, "customer": "Ada"},
        {"order_id": 7, "customer": "Grace"},
    ]
    assert result(engine, "event_archive", rows) == {"archived": 2}
    found = engine.rows("SELECT * FROM data_prim.event_archive ORDER BY order_id")
    today = found[0][3]
    assert abs(today - dt.datetime.now(dt.UTC).date()) <= dt.timedelta(days=1)
    assert found == [
        (7, "Grace", None, today),
        (2**60 + 1, "Ada", "fragile; it's \\heavy\n", today),
    ]
    assert run(engine, "event_archive", {"order_id": 1}).status == "FAILED"
    assert len(engine.rows("SELECT FROM data_prim.event_archive")) == 2


def test_daily_turnover_reads_one_table_and_writes_another(engine: Engine) -> None:
    assert result(engine, "daily_turnover") == {"days": 0}
    sell(
        engine,
        ("Lille", "10.10", "2024-05-01 08:00"),
        ("Lille", "0.20", "2024-05-01 23:59:59"),
        ("Lille", "20", "2024-05-02"),
        ("Nice", "5", "2024-05-02 12:00"),
    )
    query = "SELECT * FROM data_mart.daily_turnover ORDER BY shop, day"
    first, second = dt.date(2024, 5, 1), dt.date(2024, 5, 2)
    before = ("Lille", first, Decimal("10.3"), 2, None)
    assert result(engine, "daily_turnover") == {"days": 3}
    assert engine.rows(query) == [
        before,
        ("Lille", second, 20, 1, 15.15),
        ("Nice", second, 5, 1, None),
    ]
    engine.conn.execute("INSERT INTO data_prim.sale VALUES (9, 'Nice', 1, '2024-05-02')")
    assert result(engine, "daily_turnover", {"since": "2024-05-02"}) == {"days": 2}
    assert engine.rows(query) == [
        before,
        ("Lille", second, 20, 1, 15.15),
        ("Nice", second, 6, 2, None),
    ]


def test_order_pricing_uses_its_parameters_and_modules(engine: Engine) -> None:
    orders = [
        {"order_id": 2**53 + 1, "amount": 100.1, "currency": "USD", "customer_group": "staff"},
        {"order_id": 2, "amount": 10, "currency": "EUR", "express": True},
        {"order_id": 3, "amount": 10, "currency": "XXX", "note": {"by": ["phone"]}},
        {"order_id": 4, "amount": 1, "currency": "EUR"},
        {"amount": 10, "currency": "EUR"},
    ]
    assert result(engine, "order_pricing", orders) == {"priced": 2, "refused": 3}
    assert engine.rows(
        "SELECT order_id, channel, currency, net, discount, to_pay, express"
        " FROM data_prim.priced_order ORDER BY order_id"
    ) == [
        (2, "web", "EUR", 10, 0, 10, True),
        (2**53 + 1, "web", "EUR", Decimal("92.09"), Decimal("23.02"), Decimal("69.07"), False),
    ]
    assert engine.rows("SELECT * FROM data_prim.refused_order ORDER BY order_id") == [
        (3, "no rate for XXX", orders[2]),
        (4, "under the smallest order of 5", orders[3]),
        (None, "it has no order_id", orders[4]),
    ]


def test_stock_level_merges_and_deletes_in_one_transaction(engine: Engine) -> None:
    at = "2024-05-21 11:34:23"
    first = [
        {"article": "A-1", "change": 5, "moved_at": at},
        {"article": "B-OLD", "change": 2, "moved_at": at},
        {"article": "A-1", "change": -1, "moved_at": "2024-05-21 11:34:23 PM"},
    ]
    assert result(engine, "stock_level", first) == {"changed": 2, "gone": 0}
    then = [{"article": "B-OLD", "change": -2, "moved_at": at}]
    assert result(engine, "stock_level", then) == {"changed": 1, "gone": 1}
    stock = [("A-1", 4, dt.datetime(2024, 5, 21, 23, 34, 23))]  # noqa: DTZ001 -- as Postgres has it
    assert engine.rows("SELECT * FROM data_prim.stock_level") == stock

    job = run(engine, "stock_level", [{"article": "A-1", "change": -9, "moved_at": at}])
    assert job.status == "FAILED"
    assert job.error is not None
    assert "more was taken than there is: A-1" in job.error["message"]
    assert engine.rows("SELECT * FROM data_prim.stock_level") == stock
    assert engine.rows("SELECT count(*) FROM data_prim.stock_movement") == [(4,)]


def test_region_report_reads_in_five_threads(engine: Engine) -> None:
    sell(
        engine,
        *(("Lille", "1.5", "2024-05-01") for _ in range(20)),
        *(("Rouen", "100", "2024-05-01") for _ in range(2)),
        *(("Paris", "0.1", "2024-05-01") for _ in range(30)),
    )
    event = {"as_of": "2024-06-01"}
    counts = {"north": 22, "east": 0, "south": 0, "west": 0, "centre": 30}
    assert result(engine, "region_report", event) == counts
    assert result(engine, "region_report", event) == counts  # the same day again: no row twice
    found = engine.rows(
        "SELECT region, sales, turnover, best_shop FROM data_mart.region_report ORDER BY sales DESC"
    )
    assert found[:2] == [("centre", 30, 3, "Paris"), ("north", 22, 230, "Rouen")]
    assert len(found) == 5
    assert {row[3] for row in found[2:]} == {None}
