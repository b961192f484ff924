"""The hand-written system that this engine is compared with, tuned as far as its shape allows.

Flask enqueues the rows as a Celery task; a prefork child copies them into Postgres over a pooled
connection; results are kept in Redis.  It forgets jobs when the broker does, and doubles rows when
a worker dies between its commit and its acknowledgement.
"""

import os
from datetime import UTC, datetime
from functools import cache

import pandas as pd
from celery import Celery
from flask import Flask, Response, jsonify, request
from psycopg_pool import ConnectionPool

BROKER = os.environ["BASELINE_BROKER_URL"]
CHILDREN = 4
PREFETCH = 16

celery = Celery("baseline", broker=BROKER, backend=BROKER)
celery.conf.update(
    worker_prefetch_multiplier=PREFETCH // CHILDREN,
    worker_send_task_events=False,
    task_send_sent_event=False,
    broker_connection_retry_on_startup=True,
)


@cache
def pool() -> ConnectionPool:
    """One connection for each child, opened by its first task."""
    return ConnectionPool(os.environ["BASELINE_DATABASE_URL"], min_size=1, max_size=1, open=True)


@celery.task
def keep(rows: list[dict]) -> int:
    """Write the rows, with the day on which they came."""
    frame = pd.DataFrame(rows)
    frame["received_on"] = datetime.now(UTC).date().isoformat()
    names = ", ".join(frame.columns)
    with (
        pool().connection() as conn,
        conn.cursor().copy(f"COPY data_prim.event_archive ({names}) FROM STDIN") as copy,
    ):
        for row in frame.itertuples(index=False):
            copy.write_row(row)
    return len(frame)


app = Flask(__name__)


@app.post("/start")
def start() -> tuple[Response, int]:
    return jsonify(id=keep.apply_async([request.get_json()]).id), 202


@app.get("/status/<id>")
def status(id: str) -> Response:
    return jsonify(status=celery.AsyncResult(id).status)


@app.post("/empty")
def empty() -> tuple[str, int]:
    return "", 202
