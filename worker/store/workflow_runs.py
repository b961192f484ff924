"""Runs of workflows: what follows when a step ends, in the transaction in which it ends.

A run is a row of `dpe.jobs` with a plan, its steps are jobs that name it.  `advance` locks the run,
looks where it stands, starts what can start, and ends the run where nothing is left.  Since that
follows from the committed rows alone, two steps that end at once start their successor once (the
second one waits for the lock, and finds it started), and to advance once more changes nothing.

Locks are taken from a step upwards to its run and further up, never downwards: so they can't cross.
That is why a run that is ended from outside (stopped, late) is ended alone, and its open steps by
`mend` after that.
"""

import logging
from collections.abc import Iterable
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
from psycopg.rows import class_row

from worker.store import workflow_log
from worker.store.publishing import Message
from worker.store.workflow_plan import Plan, Ran, Run, Standing, Step, at_path, stand
from worker.store.workflow_results import results_of

logger = logging.getLogger("worker.workflows")


def advance(
    conn: psycopg.Connection, runs: Iterable[UUID | None], *, queued: bool = False
) -> list[Message]:
    """Start what can start in these runs, and end those in which nothing is left.

    Call it in the transaction in which a job of theirs ends.  `queued`: the caller publishes the
    messages returned, right after its commit; else the watch does, and none are returned.
    """
    waiting = sorted({run for run in runs if run is not None})
    messages: list[Message] = []
    while waiting:
        run = _lock(conn, waiting.pop(0))
        if run is None:
            continue  # it has ended
        try:
            started, nested, over = _advance(conn, run, queued=queued)
        except psycopg.Error:
            raise
        except Exception as error:
            # What can't be followed must end this run, and not who ended a step of it: the watch.
            logger.exception("run %s can't go on", run.execution_id)
            _give_up(conn, run, error)
            started, nested, over = [], [], True
        messages += started
        waiting += nested
        if over and run.run_id is not None and run.run_id not in waiting:
            waiting.append(run.run_id)
    return messages if queued else []


def mend(conn: psycopg.Connection) -> None:
    """Stop the open steps of runs that have ended, and advance runs that nobody advanced; commits.

    Nobody did where a worker older than workflows ended the step.
    """
    while conn.execute(
        """
        UPDATE dpe.jobs s SET status = 'STOPPED', ended_at = now(),
               error = json_build_object('type', 'Stopped', 'traceback', NULL,
                                          'message', 'its workflow has ended: ' || r.status)
        FROM dpe.jobs r
        WHERE s.run_id = r.execution_id AND s.run_id IS NOT NULL AND s.ended_at IS NULL
          AND r.ended_at IS NOT NULL
        """
    ).rowcount:
        pass  # among them there may be runs, with steps of their own
    left = conn.execute(
        """
        SELECT r.execution_id FROM dpe.jobs r
        WHERE r.plan IS NOT NULL AND r.ended_at IS NULL AND NOT r.held AND NOT EXISTS (
          SELECT FROM dpe.jobs s
          WHERE s.run_id = r.execution_id AND s.run_id IS NOT NULL AND s.ended_at IS NULL)
        """
    ).fetchall()
    for (run,) in left:
        with conn.transaction():
            advance(conn, [run])


def _lock(conn: psycopg.Connection, execution_id: UUID) -> Run | None:
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(
            """
            SELECT execution_id, name, plan, standings, run_id, key_id, item, started_at
            FROM dpe.jobs
            WHERE execution_id = %s AND plan IS NOT NULL AND ended_at IS NULL AND NOT held
            FOR UPDATE
            """,
            [execution_id],
        ).fetchone()


def _advance(
    conn: psycopg.Connection, run: Run, *, queued: bool
) -> tuple[list[Message], list[UUID], bool]:
    """Advance a locked run; return messages of jobs, runs started in it, whether it ended."""
    plan = Plan.of(run.plan)
    ran, standings = look(conn, run.execution_id, plan, run.standings, run.item)
    ready = [(plan.step(name), s.items) for name, s in standings.items() if s.items]
    messages, nested = _start(conn, run, ready, queued=queued)
    over = all(standing.decided for standing in standings.values())
    lines = workflow_log.lines(run, plan, ran, standings, over=over)
    _note(conn, run, {n: s.as_kept() for n, s in standings.items() if s.decided}, lines)
    if over:
        _end(conn, run, plan, ran, standings)
    return messages, nested, over


def look(
    conn: psycopg.Connection,
    run_id: UUID,
    plan: Plan,
    kept: dict[str, dict[str, Any]],
    item: Any,
) -> tuple[dict[str, Ran], dict[str, Standing]]:
    """The jobs of the steps that were started, and where each step stands.

    `kept` are the standings that the run's row has, `item` is what the run is done for.  It sees
    what those committed who held the run's lock before.
    """
    with conn.cursor(row_factory=class_row(Ran)) as cursor:
        ran = {
            row.step: row
            for row in cursor.execute(
                """
                SELECT step, count(*) FILTER (WHERE ended_at IS NULL) AS open,
                       array_agg(DISTINCT status) AS statuses, min(submitted_at) AS began,
                       max(ended_at) AS ended, min(error->>'message') AS error
                FROM dpe.jobs WHERE run_id = %s GROUP BY step
                """,
                [run_id],
            )
        }

    @cache
    def event() -> Any:
        text = conn.execute(
            "SELECT event FROM dpe.jobs WHERE execution_id = %s", [run_id]
        ).fetchone()
        return None if text is None or text[0] is None else orjson.loads(text[0])

    def items_of(step: Step) -> list[Any]:
        if step.for_each is None:
            return [item]
        if "items" in step.for_each:
            return step.for_each["items"]
        path = step.for_each["path"]
        if path[0] == "event":
            return at_path(event(), path[1:])
        return at_path(results_of(conn, run_id, plan, {path[1]}).get(path[1]), path[1:])

    decided = {name: Standing(**standing) for name, standing in kept.items()}
    return ran, stand(plan, decided, ran, items_of)


def _start(
    conn: psycopg.Connection,
    run: Run,
    ready: list[tuple[Step, dict[int, Any]]],
    *,
    queued: bool,
) -> tuple[list[Message], list[UUID]]:
    jobs = [(step, nth, item, uuid4()) for step, items in ready for nth, item in items.items()]
    if not jobs:
        return [], []
    with conn.cursor(row_factory=class_row(Message)) as cursor:
        messages = cursor.execute(
            """
            INSERT INTO dpe.jobs (execution_id, action_id, version, name, event_type, key_id,
              timeout_s, priority, run_id, step, nth, item, submitted_at, plan, standings, event,
              status, published_at, started_at, attempt, deadline, max_running, held)
            SELECT s.id, s.action, s.version, s.name, 'workflow', %(key)s, s.timeout_s, s.priority,
                   %(run)s, s.step, s.nth, s.item::json, now, s.plan::json,
                   CASE WHEN is_run THEN '{}'::json END, CASE WHEN is_run THEN r.event END,
                   CASE WHEN is_run THEN 'PROCESSING'
                     WHEN %(queued)s AND of.max_running IS NULL THEN 'QUEUED'
                     ELSE 'SUBMITTED' END,
                   CASE WHEN is_run OR %(queued)s AND of.max_running IS NULL THEN now END,
                   CASE WHEN is_run THEN now END, CASE WHEN is_run THEN 1 ELSE 0 END,
                   CASE WHEN is_run THEN now + s.timeout_s * interval '1 second' END,
                   of.max_running, of.max_running IS NOT NULL
            FROM unnest(%(ids)s::uuid[], %(actions)s::text[], %(versions)s::int[],
                        %(names)s::text[], %(timeouts)s::float8[], %(priorities)s::smallint[],
                        %(steps)s::text[], %(nths)s::int[], %(items)s::text[], %(plans)s::text[])
                 AS s (id, action, version, name, timeout_s, priority, step, nth, item, plan),
                 clock_timestamp() AS now, LATERAL (
                   SELECT s.plan IS NOT NULL AS is_run, (
                     SELECT v.max_running FROM dpe.action_versions v
                     WHERE v.action_id = s.action AND v.version = s.version) AS max_running
                 ) AS of,
                 dpe.jobs r
            WHERE r.execution_id = %(run)s
            RETURNING execution_id, name, priority,
                      CASE WHEN NOT held THEN coalesce(published_at, submitted_at) END
                        AS published_at
            """,
            {
                "key": run.key_id,
                "run": run.execution_id,
                "queued": queued,
                "ids": [id for *_, id in jobs],
                "actions": [step.id for step, *_ in jobs],
                "versions": [step.version for step, *_ in jobs],
                "names": [step.title for step, *_ in jobs],
                "timeouts": [step.timeout_s for step, *_ in jobs],
                "priorities": [step.priority for step, *_ in jobs],
                "steps": [step.name for step, *_ in jobs],
                "nths": [nth for _, nth, *_ in jobs],
                "items": [None if item is None else _json(item) for _, _, item, _ in jobs],
                "plans": [step.plan and _json(step.plan) for step, *_ in jobs],
            },
        ).fetchall()
    nested = {id for step, _, _, id in jobs if step.plan is not None}
    # Held ones (see `turns`) are let in by the watch.
    ours = [m for m in messages if m.execution_id not in nested and m.published_at is not None]
    return ours, sorted(nested)


def _note(
    conn: psycopg.Connection,
    run: Run,
    decided: dict[str, dict[str, str | None]],
    lines: list[dict[str, str]],
) -> None:
    """Keep what is decided by now, and what that adds to the run's log."""
    conn.execute(
        """
        WITH noted AS (
          UPDATE dpe.jobs SET standings = %(decided)s WHERE execution_id = %(id)s
        )
        INSERT INTO dpe.job_logs (execution_id, attempt, part, lines)
        SELECT %(id)s, 1, 1 + coalesce(max(part), 0), %(lines)s
        FROM dpe.job_logs WHERE execution_id = %(id)s HAVING %(lines)s::text <> '[]'
        """,
        {"id": run.execution_id, "decided": _json(decided), "lines": _json(lines)},
    )


def _end(
    conn: psycopg.Connection,
    run: Run,
    plan: Plan,
    ran: dict[str, Ran],
    standings: dict[str, Standing],
) -> None:
    failed = {name: standing for name, standing in standings.items() if standing.failed}
    words = "; ".join(
        f"{name} {standing.status}: {standing.error or ran[name].error}"
        for name, standing in failed.items()
    )
    error = {
        "type": "StepFailed",
        "message": f"{len(failed)} of {len(plan.steps)} steps failed: {words}",
        "traceback": None,
    }
    done = {name for name, standing in standings.items() if standing.status == "SUCCESS"}
    conn.execute(
        """
        UPDATE dpe.jobs SET status = %s, ended_at = clock_timestamp(), error = %s, result = %s
        WHERE execution_id = %s
        """,
        [
            "FAILED" if failed else "SUCCESS",
            _json(error) if failed else None,
            _json(results_of(conn, run.execution_id, plan, done)),
            run.execution_id,
        ],
    )


def _give_up(conn: psycopg.Connection, run: Run, error: Exception) -> None:
    words = f"the engine can't follow its plan: {type(error).__name__}: {error}"
    conn.execute(
        """
        UPDATE dpe.jobs SET status = 'FAILED', ended_at = clock_timestamp(), error = %s
        WHERE execution_id = %s
        """,
        [_json({"type": "WorkflowBroken", "message": words, "traceback": None}), run.execution_id],
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
