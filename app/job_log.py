"""A job's log as an answer: from the beginning, or what came after a place in it."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import psycopg
from flask import Response, request

from app.answers import iso, json_answer
from worker.errors import Invalid
from worker.store import jobs
from worker.store.jobs import Job

Place = tuple[int, int]  # attempt, part
BEGINNING: Place = (0, 0)
MAX_INTEGER = 2**31 - 1


def log_answer(conn: psycopg.Connection, job: Job) -> Response:
    """The lines after `?after=`, as JSON or as text; `X-Next-After` is where to go on."""
    after = _after()
    lines: list[dict[str, Any]] = []
    for place, part in _parts(conn, job, after):
        after = place
        lines += [{**line, "attempt": place[0]} for line in part]
    headers = {"X-Next-After": f"{after[0]}.{after[1]}"}
    kinds = ["application/json", "text/plain"]
    if request.accept_mimetypes.best_match(kinds) == "text/plain":
        text = "".join(map(_text, lines))
        return Response(text, headers=headers, mimetype="text/plain")
    return json_answer(lines, headers=headers)


def _parts(
    conn: psycopg.Connection, job: Job, after: Place
) -> Iterator[tuple[Place, list[dict[str, Any]]]]:
    # The first two lines stand nowhere: the row has their times, and they count as attempt 0.
    yield from [
        ((0, part), [_notice(at, f'"{job.name}" {status}')])
        for part, (status, at) in enumerate(_before_any_attempt(job), start=1)
        if (0, part) > after
    ]
    for attempt, part, lines in jobs.log_parts(conn, job.execution_id, max(after, (0, 2))):
        yield (attempt, part), orjson.loads(lines)


def _before_any_attempt(job: Job) -> Iterator[tuple[str, datetime]]:
    yield "SUBMITTED", job.submitted_at
    if job.published_at is not None or job.attempt:
        # Of a job handed over again only the last time is known, later than lines that follow.
        again = job.attempt > 1 or job.published_at is None
        yield "QUEUED", job.submitted_at if again else job.published_at or job.submitted_at


def _notice(at: datetime, message: str) -> dict[str, Any]:
    return {"at": iso(at), "level": "notice", "logger": "dpe", "message": message}


def _text(line: dict[str, Any]) -> str:
    return f"{line['at']} {line['level'].upper():<8} {line['message']}\n"


def _after() -> Place:
    given = request.args.get("after")
    if not given:
        return BEGINNING
    match = re.fullmatch(r"([0-9]{1,10})\.([0-9]{1,10})", given)
    if match is None:
        raise Invalid(f"after must be what X-Next-After had, like 1.2, got {given!r}")
    attempt, part = (min(int(number), MAX_INTEGER) for number in match.groups())
    return attempt, part
