"""Further examples, as a newcomer would push them, in a real worker."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.stack import Engine, until
from tests.worker.test_examples import EXAMPLES, result, run, sell
from worker.store import actions, quarantine, tables


@pytest.fixture
def engine(engine: Engine, tmp_path: Path) -> Engine:
    for description in sorted(EXAMPLES.glob("tables/*.json")):
        tables.build(engine.conn, json.loads(description.read_text()))
    engine.worker(DPE_DATA_STORE=str(tmp_path))
    return engine


class Rates(BaseHTTPRequestHandler):
    """An API of two rows a page; it fails once, as APIs do."""

    rows: ClassVar[list[dict[str, Any]]] = []
    failures: ClassVar[int] = 0

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        since, page = int(query["since"][0]), int(query["page"][0])
        newer = [row for row in self.rows if row["rate_id"] > since]
        failed, Rates.failures = page == 1 and Rates.failures > 0, Rates.failures - (page == 1)
        self.send_response(503 if failed else 200)
        self.end_headers()
        self.wfile.write(json.dumps(newer[2 * page : 2 * page + 2]).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def api() -> Iterator[str]:
    Rates.rows, Rates.failures = [], 1
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rates)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/rates"
    server.shutdown()
    server.server_close()


def test_exchange_rates_loads_what_is_new(engine: Engine, api: str) -> None:
    folder = EXAMPLES / "exchange_rates"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    config = json.loads(files["forepaas.json"])
    config["params"]["api"], config["retry"]["backoff"] = api, "0.1s"
    action = actions.push(engine.conn, None, files | {"forepaas.json": json.dumps(config).encode()})
    day = {"currency": "CHF", "rate": 1.05, "quoted_at": "2024-05-01T08:00:00Z"}
    Rates.rows = [{"rate_id": id} | day for id in range(1, 4)]
    job = engine.run(action)
    # The second page failed: nothing of the first stays, and the next attempt has all.
    assert (job.status, job.attempt) == ("SUCCESS", 2)
    assert job.result == {"since": 0, "loaded": 3}
    Rates.rows += [{"rate_id": 4} | day]
    assert engine.run(action).result == {"since": 3, "loaded": 1}
    assert engine.run(action).result == {"since": 4, "loaded": 0}
    found = engine.rows("SELECT rate_id, rate FROM data_prim.exchange_rate ORDER BY rate_id")
    assert found == [(id, Decimal("1.05")) for id in range(1, 5)]


def test_price_list_is_replaced_whole_or_not_at_all(engine: Engine) -> None:
    def send(*prices: Any) -> dict[str, Any]:
        listed = [{"article": article, "price": price} for article, price in prices]
        return {"supplier": "ACME", "prices": listed}

    engine.conn.execute("INSERT INTO data_prim.price_list VALUES ('other', 'a', 9)")
    assert result(engine, "price_list", send(("a", 1), ("b", 2))) == {"before": 0, "now": 2}
    assert result(engine, "price_list", send(("c", 3))) == {"before": 2, "now": 1}
    assert run(engine, "price_list", send(("d", "cheap"))).status == "FAILED"
    assert run(engine, "price_list", send()).status == "FAILED"
    found = engine.rows("SELECT supplier, article, price FROM data_prim.price_list ORDER BY 1")
    assert found == [("ACME", "c", 3), ("other", "a", 9)]


def test_best_shops_makes_its_table_anew(engine: Engine) -> None:
    sell(engine, ("Lille", "1", "2024-05-01"), ("Nice", "5", "2024-05-01"))
    assert result(engine, "best_shops") == {"shops": 2}
    engine.conn.execute("INSERT INTO data_prim.sale VALUES (9, 'Lille', 7, '2024-05-02')")
    assert result(engine, "best_shops") == {"shops": 2}
    found = engine.rows("SELECT place, shop, turnover, sales FROM data_mart.best_shop ORDER BY 1")
    assert found == [(1, "Lille", 8, 2), (2, "Nice", 5, 1)]


def test_unique_customers_keeps_the_newest(engine: Engine) -> None:
    first = [
        {"email": " Ada@Example.org", "name": "Ada", "seen_at": "2024-05-01T10:00:00Z"},
        {"email": "ada@example.org ", "name": "Ada L.", "seen_at": "2024-05-02T12:00:00+02:00"},
        {"email": "bob@example.org", "name": "Bob", "seen_at": "2024-05-01T10:00:00Z"},
    ]
    assert result(engine, "unique_customers", first) == {"came": 3, "new": 2, "changed": 0}
    then = [
        {"email": "ada@example.org", "name": "older", "seen_at": "2024-04-01T10:00:00Z"},
        {"email": "BOB@example.org", "name": "Bob B.", "seen_at": "2024-06-01T10:00:00Z"},
    ]
    assert result(engine, "unique_customers", then) == {"came": 2, "new": 0, "changed": 1}
    assert engine.rows("SELECT email, name FROM data_prim.customer ORDER BY 1") == [
        ("ada@example.org", "Ada L."),
        ("bob@example.org", "Bob B."),
    ]


def test_sales_export_writes_a_file(engine: Engine, tmp_path: Path) -> None:
    sell(engine, ("Lille", "1.50", "2024-05-31 23:59"), ("Nice", "5", "2024-06-01"))
    done = result(engine, "sales_export", {"month": "2024-05"})
    assert done == {"file": "2024-05.csv", "sales": 1, "months": ["2024-05.csv"]}
    file = tmp_path / "exports" / "2024-05.csv"
    until(file.exists)
    assert file.read_text() == "sale_id,shop,amount,sold_at\n0,Lille,1.5,2024-05-31 23:59:00\n"
    assert run(engine, "sales_export", {"month": "'; --"}).status == "FAILED"


def test_history_rollup_says_how_far_it_is(engine: Engine) -> None:
    sell(engine, *(("Lille", "1", f"2024-05-{day:02}") for day in (1, 2, 2, 3)))
    job = run(engine, "history_rollup")
    assert (job.status, job.result["days"]) == ("SUCCESS", 3), job.error
    said = [line["message"] for line in engine.log(job.execution_id)]
    assert "1 of 3 days, 33 %" in said
    assert "3 of 3 days, 100 %" in said
    found = engine.rows("SELECT day, sales, turnover FROM data_mart.day_total ORDER BY day")
    assert found == [(dt.date(2024, 5, day), n, n) for day, n in ((1, 1), (2, 2), (3, 1))]


def test_daily_close_is_done_once(engine: Engine) -> None:
    sell(engine, ("Lille", "1", "2024-05-01"))
    folder = EXAMPLES / "daily_close"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    action = actions.push(engine.conn, None, files)
    ids = [engine.start(action, {"day": "2024-05-01"}) for _ in range(10)]
    ended = [engine.ended(id) for id in ids]
    assert {job.status for job in ended} == {"SUCCESS"}
    (closer,) = [job for job in ended if job.result["closed"]]
    found = engine.rows("SELECT day, sales, closed_by FROM data_mart.closed_day")
    assert found == [(dt.date(2024, 5, 1), 1, str(closer.execution_id))]


def test_checked_orders_puts_aside_what_does_not_fit(engine: Engine) -> None:
    orders = [
        {"order_id": 1, "amount": 9.5, "ordered_on": "2024-05-01"},
        {"order_id": 2, "amount": "a lot", "ordered_on": "2024-05-01"},
        {"order_id": 3, "amount": 1, "ordered_on": "2024-02-30"},
    ]
    assert result(engine, "checked_orders", orders) == {"taken": 1, "quarantined": 2}
    kept = quarantine.list_rows(engine.conn, "data_prim", "checked_order", 10)
    assert [(row.column_name, row.data) for row in kept] == [
        ("amount", orders[1]),
        ("ordered_on", orders[2]),
    ]
    mended = {kept[0].id: {**orders[1], "amount": 100}}
    done = quarantine.replay(engine.conn, "data_prim", "checked_order", list(mended), mended)
    assert done["replayed"] == 1
    assert engine.rows("SELECT order_id FROM data_prim.checked_order ORDER BY 1") == [(1,), (2,)]
