"""The measures: each takes a running side, or starts what it needs, and gives plain numbers."""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg

from benchmarks.load import ROWS, load, send, steadily
from benchmarks.sides import Product, Side, call, rows_written, wait_for

STARTS, DRAIN_TIMEOUT_S = 5_000, 120.0
LATENCIES = 500  # a p99 of fewer hangs on two or three of them
POLLED_RATE = 500.0  # starts a second beside the polls
FINISHED = 1_000_000


def both(side: Side, conn: psycopg.Connection, starts: int = STARTS) -> dict[str, float]:
    """What the product and the baseline are compared by; each measure begins with idle systems."""
    for _ in range(30):
        latency_s(side)
    time.sleep(1.5)
    memory = side.pss_bytes() / 1e6
    seen = [latency_s(side) for _ in range(LATENCIES)]
    waited = seen
    if side.name == "product":
        waited = [latency_s(side, wait=True) for _ in range(LATENCIES)]
    before_s = side.cpu_s()
    jobs = jobs_per_s(side, conn, starts)
    cpu_ms = (side.cpu_s() - before_s) / starts * 1000
    accepted = accepts_per_s(side, conn)
    drain(conn)
    return {
        "jobs/s, 16 connections": jobs,
        "starts accepted/s, 64 connections": accepted,
        "idle start to success seen, p50": percentile(seen, 50),
        "idle start to success seen, p99": percentile(seen, 99),
        "the same with ?wait, p50": percentile(waited, 50),
        "the same with ?wait, p99": percentile(waited, 99),
        "processor time of a job": cpu_ms,
        "idle memory (PSS)": memory,
    }


def latency_s(side: Side, *, wait: bool = False) -> float:
    """Seconds from a start to its SUCCESS seen, polling as quickly as it answers."""
    began = time.perf_counter()
    started = side.start(ROWS, "?wait=20" if wait else "")
    if not wait:
        url = side.status_url(started)
        while call("GET", url, side.headers)["status"] != "SUCCESS":
            time.sleep(0.0005)
    return time.perf_counter() - began


def jobs_per_s(side: Side, conn: psycopg.Connection, starts: int) -> float:
    """Jobs a second, from the first of `starts` calls until all their rows stand in Postgres."""
    conn.execute("TRUNCATE data_prim.event_archive")
    began = time.monotonic()
    send(side.start_url, side.headers, 16, starts)
    until_written(conn, starts)
    return starts / (time.monotonic() - began)


def accepts_per_s(side: Side, conn: psycopg.Connection) -> float:
    """Starts answered a second over 64 connections; the product's must all be committed by then.

    Raises RuntimeError where one is not.
    """
    before = recorded(conn)
    answered = load("POST", side.start_url, side.headers, 64, 4, ROWS)
    if side.name == "product" and recorded(conn) - before < answered.count:
        raise RuntimeError(f"{answered.count} starts were answered, and not all are in Postgres")
    return answered.per_s


def recorded(conn: psycopg.Connection) -> int:
    """How many jobs are in the product's record."""
    row = conn.execute("SELECT count(*) FROM dpe.jobs").fetchone()
    assert row is not None
    return row[0]


def until_written(conn: psycopg.Connection, starts: int) -> None:
    """Wait until the rows of all starts stand there, each once; else RuntimeError."""
    until = time.monotonic() + DRAIN_TIMEOUT_S
    while (found := rows_written(conn)) < starts * 5:
        if time.monotonic() > until:
            raise RuntimeError(f"{starts * 5 - found} rows are missing")
        time.sleep(0.05)  # to count them takes Postgres some milliseconds
    row = conn.execute(
        "SELECT count(*), count(DISTINCT order_id) FROM data_prim.event_archive"
    ).fetchone()
    if row != (starts * 5, starts * 5):
        raise RuntimeError(f"(rows, different ones) for {starts} starts: {row}")


def drain(conn: psycopg.Connection) -> None:
    """Wait until nothing is written any more."""
    last = -1
    while (now := rows_written(conn)) != last:
        last = now
        time.sleep(1.0)


def scaling(product: Product, conn: psycopg.Connection, children: int, starts: int) -> float:
    """Jobs a second that a worker with so many children does, of jobs that wait already."""
    conn.execute("TRUNCATE data_prim.event_archive")
    with product.process("api") as api:
        wait_for(product.answers, api)
        send(product.start_url, product.headers(), 16, starts)
    with product.process("worker", DPE_WORKERS=str(children)):
        while not (first := rows_written(conn) // 5):
            time.sleep(0.005)
        began = time.monotonic()
        until_written(conn, starts)
        return (starts - first) / (time.monotonic() - began)


def polls(side: Side) -> tuple[float, float, float]:
    """Status polls a second and their p99 (ms) beside 500 jobs a second; starts' rate, of 1."""
    url = side.status_url(side.start(ROWS, "?wait=20"))
    with ThreadPoolExecutor(1) as beside:
        starts = beside.submit(steadily, side.start_url, side.headers, POLLED_RATE, 6)
        time.sleep(1)
        answered = load("GET", url, side.headers, 16, 4)
        return answered.per_s, answered.p99_ms, starts.result() / POLLED_RATE


def first_success_s(product: Product) -> float:
    """Seconds from `dpe up` to the first SUCCESS; all that it needs is there already."""
    with product.up() as side:
        pass
    began = time.monotonic()
    with product.process("up") as up:
        wait_for(product.answers, up)
        side.start(ROWS, "?wait=20")
        return time.monotonic() - began


def finish_many(conn: psycopg.Connection, count: int = FINISHED) -> None:
    """Put so many finished jobs into the record."""
    conn.execute(
        """
        INSERT INTO dpe.jobs (execution_id, action_id, version, name, status, attempt, event,
                              event_type, submitted_at, published_at, started_at, ended_at)
        SELECT gen_random_uuid(), 'dec0de000000000000000001', 1, 'Archive', 'SUCCESS', 1, '[]',
               'api', at, at, at, at
        FROM (SELECT now() - n * interval '1 second' AS at FROM generate_series(1, %s) n) t
        """,
        [count],
    )
    # As they would be by then; else Postgres would do it beside what is measured.
    conn.execute("VACUUM ANALYZE dpe.jobs")


def list_s(side: Side) -> float:
    """How long the list route takes to give a page of 100."""
    began = time.perf_counter()
    call("GET", f"{side.url}/dpe/v3/jobs?order=desc&limit=100", side.headers)
    return time.perf_counter() - began


def percentile(values: Sequence[float], of: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[of - 1]
