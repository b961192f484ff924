"""What happens at a tick: one run is started, however many workers look, whenever they die.

The row (trigger, tick), the run, and the step to the next tick are one transaction under the
trigger's row lock.  Time is Postgres' alone, so workers with wrong clocks do no harm; and should
Postgres' own clock be set back, the ticks that come again are known by their rows.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import class_row

from worker.errors import DpeError, Invalid
from worker.store import acceptance, jobs, triggers, workflow_starts
from worker.store.triggers import COLUMNS, Trigger

logger = logging.getLogger("worker.store.trigger_ticks")

# A tick this old has come late: without catching up, it is missed.  Longer than workers take to
# restart.
ON_TIME = timedelta(seconds=60)
DAY_S = 86400.0


def start_due(conn: psycopg.Connection) -> None:
    """Decide on every tick that has come; what starts is SUBMITTED, for the watch to publish."""
    broken: list[str] = []
    while True:
        with conn.transaction(), conn.cursor(row_factory=class_row(Trigger)) as cursor:
            trigger = cursor.execute(
                f"""
                SELECT {COLUMNS} FROM dpe.triggers
                WHERE paused_at IS NULL AND next_at <= now() AND name <> ALL(%s)
                ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED
                """,  # noqa: S608 -- constants
                [broken],
            ).fetchone()
            if trigger is None:
                return
            try:
                _decide(conn, trigger)
            except Invalid as error:  # a time zone that this machine does not know: others may
                logger.warning("trigger %s: %s", trigger.name, error)
                broken.append(trigger.name)


def rearm(conn: psycopg.Connection) -> None:
    """Bring back triggers whose next tick is further off than it can be: the clock was set back."""
    now = triggers.now(conn)
    for trigger in triggers.list_triggers(conn):
        try:
            soonest = trigger.schedule.next(now)
        except Invalid:
            continue  # `start_due` tells of it
        if soonest is not None and trigger.next_at is not None and trigger.next_at > soonest:
            conn.execute(
                "UPDATE dpe.triggers SET next_at = %s WHERE name = %s AND next_at = %s",
                [soonest, trigger.name, trigger.next_at],
            )


def forget_old(conn: psycopg.Connection, keep_s: float) -> None:
    """Delete what was decided more than `keep_s` seconds, and more than a day, ago."""
    conn.execute(
        "DELETE FROM dpe.trigger_ticks"
        " WHERE greatest(decided_at, tick) < now() - %s * interval '1 second'",
        [max(keep_s, DAY_S)],
    )


def _decide(conn: psycopg.Connection, trigger: Trigger) -> None:
    assert trigger.next_at is not None  # noqa: S101 -- it was looked for by it
    row = conn.execute("SELECT now()").fetchone()
    now: datetime = row[0] if row else trigger.next_at
    most = trigger.catch_up_limit if trigger.catch_up == "all" else 1
    for tick in trigger.schedule.due(trigger.next_at, now, most):
        if trigger.catch_up == "none" and now - tick > ON_TIME:
            _note(conn, trigger, tick, "missed")
        elif trigger.overlap == "skip" and _goes_on(conn, trigger):
            _note(conn, trigger, tick, "skipped")
        else:
            _start(conn, trigger, tick)
    conn.execute(
        "UPDATE dpe.triggers SET next_at = %s WHERE name = %s",
        [trigger.schedule.next(now), trigger.name],
    )


def _goes_on(conn: psycopg.Connection, trigger: Trigger) -> bool:
    """Whether the run that it started last has not ended."""
    row = conn.execute(
        """
        SELECT EXISTS (
          SELECT FROM dpe.jobs WHERE ended_at IS NULL AND execution_id = (
            SELECT execution_id FROM dpe.trigger_ticks
            WHERE trigger = %s AND execution_id IS NOT NULL ORDER BY tick DESC LIMIT 1))
        """,
        [trigger.name],
    ).fetchone()
    return row == (True,)


def _start(conn: psycopg.Connection, trigger: Trigger, tick: datetime) -> None:
    event = trigger.event
    if event is None:
        event = orjson.dumps(
            {"trigger": trigger.name, "tick": tick}, option=orjson.OPT_UTC_Z
        ).decode()
    start = jobs.Start(trigger.target_id, event, "cron", trigger.key_id, in_line=True)
    # The key (trigger, tick) first: where the row is there, this tick has had its run.
    if not _note(conn, trigger, tick, "started", start.execution_id):
        return
    try:
        with conn.transaction():
            if trigger.kind == "action":
                accepted = acceptance.accept(conn, start)
                jobs.unpublished(conn, [start.execution_id])
            else:
                accepted = workflow_starts.start(conn, start)
        error = None if accepted else f"{trigger.kind} {trigger.target_id} not found"
    except DpeError as refused:
        error = str(refused)
    if error is not None:
        logger.warning("trigger %s could not start its run: %s", trigger.name, error)
        conn.execute(
            """
            UPDATE dpe.trigger_ticks SET outcome = 'failed', execution_id = NULL, error = %s
            WHERE trigger = %s AND tick = %s
            """,
            [error, trigger.name, tick],
        )


def _note(
    conn: psycopg.Connection,
    trigger: Trigger,
    tick: datetime,
    outcome: str,
    execution_id: UUID | None = None,
) -> bool:
    """Whether nobody had decided on this tick before."""
    noted = conn.execute(
        """
        INSERT INTO dpe.trigger_ticks (trigger, tick, outcome, execution_id)
        VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
        """,
        [trigger.name, tick, outcome, execution_id],
    )
    return noted.rowcount == 1
