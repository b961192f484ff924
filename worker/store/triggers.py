"""Triggers as they are set: what to start, when, and what to do about a tick that came late.

A trigger is known by its name.  What starts its runs is `trigger_ticks`.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg.rows import class_row

from worker.errors import Invalid, NotFound
from worker.store import actions, workflows
from worker.store.schedules import Schedule

CATCH_UP, OVERLAP = ("none", "last", "all"), ("allow", "skip")
CATCH_UP_LIMIT = 100
MOST_CAUGHT_UP = 1000
KEYS = (
    "name", "action", "workflow", "cron", "timezone", "event", "catch_up", "catch_up_limit",
    "overlap", "paused",
)  # fmt: skip
COLUMNS: LiteralString = """
    name, kind, target_id, cron, timezone, event, catch_up, catch_up_limit, overlap, key_id,
    paused_at, next_at, created_at, updated_at
    """
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as it stands; `event` is JSON text, None: its runs are told name and tick."""

    name: str
    kind: str
    target_id: str
    cron: str
    timezone: str
    event: str | None
    catch_up: str
    catch_up_limit: int
    overlap: str
    key_id: int | None
    paused_at: datetime | None
    next_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.cron, self.timezone)

    def definition(self) -> dict[str, Any]:
        """What `put` takes to make the same trigger."""
        event = {} if self.event is None else {"event": orjson.loads(self.event)}
        return {
            "name": self.name,
            self.kind: self.target_id,
            "cron": self.cron,
            "timezone": self.timezone,
            **event,
            "catch_up": self.catch_up,
            "catch_up_limit": self.catch_up_limit,
            "overlap": self.overlap,
            "paused": self.paused_at is not None,
        }


@dataclass(frozen=True, slots=True)
class Tick:
    """What became of a tick: started, skipped, missed or failed."""

    tick: datetime
    outcome: str
    execution_id: Any
    error: str | None
    decided_at: datetime


def put(conn: psycopg.Connection, definition: Any, key_id: int | None = None) -> Trigger:
    """Make or change the trigger of this name; its first tick is the next one from now.

    Nothing changes where it stands like that already.  Raises Invalid naming what is wrong, or
    NotFound for an action or workflow that is not there.
    """
    values = _read(conn, definition)
    schedule = Schedule(values["cron"], values["timezone"])
    with conn.transaction():
        # Two who set the same name at once: one after the other.
        conn.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"trigger {values['name']}"]
        )
        stands = get(conn, values["name"])
        if stands is not None:
            values["paused"] = values["paused"] or (
                stands.paused_at is not None and "paused" not in definition
            )
            if _same(stands, values):
                return stands
        conn.execute(
            """
            INSERT INTO dpe.triggers (name, kind, target_id, cron, timezone, event, catch_up,
              catch_up_limit, overlap, key_id, paused_at, next_at)
            VALUES (%(name)s, %(kind)s, %(target)s, %(cron)s, %(timezone)s, %(event)s,
              %(catch_up)s, %(catch_up_limit)s, %(overlap)s, %(key)s,
              CASE WHEN %(paused)s THEN now() END, %(next)s)
            ON CONFLICT (name) DO UPDATE
            SET kind = excluded.kind, target_id = excluded.target_id, cron = excluded.cron,
                timezone = excluded.timezone, event = excluded.event,
                catch_up = excluded.catch_up, catch_up_limit = excluded.catch_up_limit,
                overlap = excluded.overlap, key_id = excluded.key_id,
                paused_at = excluded.paused_at, next_at = excluded.next_at, updated_at = now()
            """,
            {**values, "key": key_id, "next": schedule.next(now(conn))},
        )
        found = get(conn, values["name"])
    assert found is not None  # noqa: S101 -- this transaction wrote it
    return found


def get(conn: psycopg.Connection, name: str) -> Trigger | None:
    """The trigger of this name, or None."""
    with conn.cursor(row_factory=class_row(Trigger)) as cursor:
        return cursor.execute(
            f"SELECT {COLUMNS} FROM dpe.triggers WHERE name = %s",  # noqa: S608 -- constants
            [name],
        ).fetchone()


def list_triggers(conn: psycopg.Connection) -> list[Trigger]:
    """All triggers, by name."""
    with conn.cursor(row_factory=class_row(Trigger)) as cursor:
        return cursor.execute(
            f"SELECT {COLUMNS} FROM dpe.triggers ORDER BY name"  # noqa: S608 -- constants
        ).fetchall()


def ticks(conn: psycopg.Connection, name: str, limit: int) -> list[Tick]:
    """What became of the newest ticks, newest first."""
    with conn.cursor(row_factory=class_row(Tick)) as cursor:
        return cursor.execute(
            """
            SELECT tick, outcome, execution_id, error, decided_at FROM dpe.trigger_ticks
            WHERE trigger = %s ORDER BY tick DESC LIMIT %s
            """,
            [name, limit],
        ).fetchall()


def pause(conn: psycopg.Connection, name: str) -> None:
    """Let it start nothing until it is resumed."""
    conn.execute(
        "UPDATE dpe.triggers SET paused_at = now() WHERE name = %s AND paused_at IS NULL", [name]
    )


def resume(conn: psycopg.Connection, trigger: Trigger) -> None:
    """Let it tick again from now on; what came in the pause is not caught up."""
    conn.execute(
        "UPDATE dpe.triggers SET paused_at = NULL, next_at = %s"
        " WHERE name = %s AND paused_at IS NOT NULL",
        [trigger.schedule.next(now(conn)), trigger.name],
    )


def delete(conn: psycopg.Connection, name: str) -> bool:
    """Remove a trigger; runs that it started go on.  False: there was none."""
    return conn.execute("DELETE FROM dpe.triggers WHERE name = %s", [name]).rowcount == 1


def now(conn: psycopg.Connection) -> datetime:
    """Postgres' clock: the one that all workers share."""
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101 -- it answers always
    return row[0]


def _same(stands: Trigger, values: dict[str, Any]) -> bool:
    names = ("kind", "cron", "timezone", "event", "catch_up", "catch_up_limit", "overlap")
    return (
        all(getattr(stands, name) == values[name] for name in names)
        and stands.target_id == values["target"]
        and (stands.paused_at is not None) == values["paused"]
    )


def _read(conn: psycopg.Connection, definition: Any) -> dict[str, Any]:
    if not isinstance(definition, dict):
        raise Invalid("a trigger must be an object")
    if unknown := definition.keys() - set(KEYS):
        raise Invalid(
            f"a trigger has no {', '.join(map(repr, sorted(unknown)))}", f"it has {', '.join(KEYS)}"
        )
    name = definition.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Invalid(f'"name" must be letters, digits, "_", "." and "-", at most 100: {name!r}')
    kind, target = _target(conn, definition)
    values = {
        "name": name,
        "kind": kind,
        "target": target,
        "cron": " ".join(_text(definition, "cron", "").split()),
        "timezone": _text(definition, "timezone", "UTC"),
        "event": orjson.dumps(definition["event"]).decode() if "event" in definition else None,
        "catch_up": _one_of(definition, "catch_up", CATCH_UP, "none"),
        "catch_up_limit": definition.get("catch_up_limit", CATCH_UP_LIMIT),
        "overlap": _one_of(definition, "overlap", OVERLAP, "allow"),
        "paused": definition.get("paused", False),
    }
    if type(values["catch_up_limit"]) is not int or not (
        1 <= values["catch_up_limit"] <= MOST_CAUGHT_UP
    ):
        raise Invalid(f'"catch_up_limit" must be a whole number from 1 to {MOST_CAUGHT_UP}')
    if not isinstance(values["paused"], bool):
        raise Invalid('"paused" must be true or false')
    if (values["catch_up"], values["overlap"]) == ("all", "skip"):
        raise Invalid(
            "to catch up all ticks and to skip those that meet a run contradict each other",
            'choose "catch_up": "last", or "overlap": "allow"',
        )
    Schedule(values["cron"], values["timezone"]).check()
    return values


def _target(conn: psycopg.Connection, definition: dict[str, Any]) -> tuple[str, str]:
    given = [kind for kind in ("action", "workflow") if kind in definition]
    if len(given) != 1:
        raise Invalid('a trigger needs "action" or "workflow", one of them: an id or a name')
    kind = given[0]
    what = _text(definition, kind, "")
    found = actions.get(conn, what) if kind == "action" else workflows.get(conn, what)
    if found is None:
        raise NotFound(f"{kind} {what} not found", f"dpe {kind} list shows those there are")
    return kind, found.id


def _text(definition: dict[str, Any], key: str, default: str) -> str:
    value = definition.get(key, default)
    if not isinstance(value, str) or not value or "\0" in value:
        raise Invalid(f'"{key}" must be a text, and not empty, got {value!r}')
    return value


def _one_of(definition: dict[str, Any], key: str, known: tuple[str, ...], default: str) -> str:
    value = definition.get(key, default)
    if value not in known:
        raise Invalid(f'"{key}" must be one of {", ".join(known)}, got {value!r}')
    return value
