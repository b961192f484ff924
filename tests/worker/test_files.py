"""Files of jobs that real worker processes run, and that die at the worst moments."""

from pathlib import Path

import pytest

from tests.stack import Engine, until

HANDLER = """
import os
from forepaas.dwh import connect
from worker.lakehouse import buckets
def handle(event):
    files = connect("data_store/reports")
    files.put(event.content["name"], f"attempt {event.attempt}")
    if event.content.get("dies") == "before" and event.attempt == 1:
        os._exit(1)
    if event.content.get("dies") == "after":
        buckets.land = lambda conn, job: os._exit(1)  # committed, and not moved
    if event.content.get("raises"):
        raise ValueError("no")
    return files.list_filename()
"""


@pytest.fixture
def reports(engine: Engine, tmp_path: Path) -> Path:
    """The bucket's folder, with a worker that knows it."""
    engine.worker(1, DPE_DATA_STORE=str(tmp_path))
    return tmp_path / "reports"


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


def test_files_land_with_success_alone(engine: Engine, reports: Path) -> None:
    action = engine.push(HANDLER)
    assert engine.run(action, {"name": "a"}).status == "SUCCESS"
    until(lambda: files(reports) == {"a": "attempt 1"})
    assert engine.run(action, {"name": "b", "raises": True}).status == "FAILED"
    assert engine.run(action, {"name": "c"}).result == ["a", "c"]
    until(lambda: files(reports) == {"a": "attempt 1", "c": "attempt 1"})
    until(lambda: not list((reports.parent / ".dpe").iterdir()))  # nothing waits, nothing is left


def test_a_lost_attempt_leaves_no_file(engine: Engine, reports: Path) -> None:
    job = engine.run(engine.push(HANDLER), {"name": "a", "dies": "before"})
    assert (job.status, job.attempt) == ("SUCCESS", 2)
    until(lambda: files(reports) == {"a": "attempt 2"})


@pytest.mark.slow
def test_a_process_that_dies_between_commit_and_move_loses_nothing(
    engine: Engine, reports: Path
) -> None:
    job = engine.run(engine.push(HANDLER), {"name": "a", "dies": "after"})
    assert (job.status, job.attempt) == ("SUCCESS", 1)
    until(lambda: files(reports) == {"a": "attempt 1"})
    until(lambda: engine.rows("SELECT count(*) FROM dpe.file_moves") == [(0,)])
