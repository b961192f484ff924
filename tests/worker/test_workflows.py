"""Runs of workflows: stages in order, actions in parallel, settings, failures, stops, retries."""

import re

import pytest

from tests.stack import Engine
from tests.worker.workflows import log, prepare, ran, run, stages


@pytest.fixture
def engine(engine: Engine) -> Engine:
    prepare(engine)
    engine.worker()
    return engine


def times(engine: Engine, id: object, step: str) -> tuple:
    row = engine.conn.execute(
        "SELECT submitted_at, ended_at FROM dpe.jobs WHERE run_id = %s AND step = %s", [id, step]
    ).fetchone()
    assert row is not None
    return row


def test_stages_run_in_order_and_the_actions_of_one_in_parallel(engine: Engine) -> None:
    content = {"a": {"sleep": 0.5}, "b": {"sleep": 0.5}}
    job = run(engine, stages(["a", "b"], ["c"]), content)
    assert (job.status, job.error, job.progress) == ("SUCCESS", None, 100)
    assert ran(engine, job.execution_id) == ["a", "b", "c"]
    (a_began, a_ended), (b_began, b_ended) = (
        times(engine, job.execution_id, name) for name in ("a", "b")
    )
    assert max(a_began, b_began) < min(a_ended, b_ended)
    assert times(engine, job.execution_id, "c")[0] > max(a_ended, b_ended)


def test_the_log_tells_of_workflow_stages_and_steps(engine: Engine) -> None:
    job = run(engine, stages(["a"], ["b", "c"]))
    lines = [re.sub(r"[0-9.]+ sec", "N sec", line) for line in log(engine, job.execution_id)]
    assert lines[:5] == [
        '"Flow" BEGIN workflow',
        '"Stage 1" BEGIN stage 1/2 with 1 task(s)',
        '"a" BEGIN action',
        '"a" END action: SUCCESS. Duration: N sec',
        '"Stage 1" END stage 1/2',
    ]
    assert lines[5] == '"Stage 2" BEGIN stage 2/2 with 2 task(s)'
    assert lines[-2:] == ['"Stage 2" END stage 2/2', '"Flow" END workflow. Duration: N sec']
    assert len(lines) == 12
