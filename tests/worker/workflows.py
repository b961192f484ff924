"""What tests of workflows do: push one in few words, start it, and see how its steps ended."""

import json
from typing import Any
from uuid import UUID

from tests.stack import Engine
from worker import broker
from worker.store import jobs, workflow_starts, workflows

# Does as its event tells the step that it is: fail, wait, return; and writes one row.
STEP = """
import time
from forepaas.core.settings import CONFIG
from worker.store import claims

def handle(event):
    content = event.content if isinstance(event.content, dict) else {}
    told = content.get(CONFIG["step"], {})
    claims.running.conn.execute(
        "INSERT INTO data_prim.ran VALUES (%s, %s, %s)",
        [CONFIG["run_id"], CONFIG["step"], None if event.item is None else str(event.item)],
    )
    time.sleep(told.get("sleep", 0))
    if told.get("fail", 0) >= event.attempt:
        raise ValueError("told to")
    return told.get("result", {"step": CONFIG["step"], "item": event.item, "of": event.results})
"""


def prepare(engine: Engine) -> None:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.ran (run uuid, step text, item text)")
    engine.push(STEP, config={"display_name": "step"})


def stages(*stages: Any, **words: Any) -> dict[str, Any]:
    """A workflow: each stage is a list of steps; each step a name, or a name and what it says."""
    return {
        "display_name": "Flow",
        "stages": [
            {
                "actions": [
                    {"action_conf": "step", "name": step}
                    if isinstance(step, str)
                    else {"action_conf": "step", **step}
                    for step in stage
                ]
            }
            for stage in stages
        ],
        **words,
    }


def start(engine: Engine, definition: dict[str, Any], content: Any = None) -> UUID:
    """Push and start a workflow; return its run."""
    workflow = workflows.push(engine.conn, None, definition)
    asked = jobs.Start(workflow.id, json.dumps(content))
    started = workflow_starts.start(engine.conn, asked, queued=True)
    assert started is not None
    broker.publish(started.messages)
    return started.run.execution_id


def run(engine: Engine, definition: dict[str, Any], content: Any = None) -> jobs.Job:
    return engine.ended(start(engine, definition, content))


def steps(engine: Engine, run: UUID) -> dict[str, str]:
    """How the steps ended that were started; of one done several times, all its ends."""
    rows = engine.conn.execute(
        "SELECT step, string_agg(status, ' ' ORDER BY nth) FROM dpe.jobs"
        " WHERE run_id = %s GROUP BY 1",
        [run],
    )
    return dict(rows.fetchall())


def ran(engine: Engine, run: UUID) -> list[str]:
    """The steps whose rows are there, each as often as it is."""
    rows = engine.conn.execute("SELECT step FROM data_prim.ran WHERE run = %s ORDER BY 1", [run])
    return [step for (step,) in rows]


def log(engine: Engine, run: UUID) -> list[str]:
    return [line["message"] for line in engine.log(run)]
