"""The workflows of examples/, with their actions, in a real worker."""

import json
from pathlib import Path

import pytest

from tests.stack import Engine
from tests.worker.test_examples import EXAMPLES
from tests.worker.workflows import start, steps
from worker.store import actions, jobs, tables, workflows

HEAD = "sale_id,shop,amount,sold_at\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two buckets of files."""
    files = {
        "tills/tills.csv": "1,Lille,10.10,2024-05-01 08:00\n2,Paris,5,2024-05-01 09:00\n",
        "tills/more.csv": "3,Lille,0.20,2024-05-01 10:00\n",
        "tills/notes.txt": "no sales",
        "web/web.csv": "4,Nice,7.50,2024-05-02 10:00\n",
    }
    for name, lines in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(HEAD + lines)
    return tmp_path


@pytest.fixture
def engine(engine: Engine, store: Path) -> Engine:
    for description in EXAMPLES.glob("tables/*.json"):
        tables.build(engine.conn, json.loads(description.read_text()))
    for main in EXAMPLES.glob("*/main.py"):
        files = {path.name: path.read_bytes() for path in main.parent.iterdir() if path.is_file()}
        actions.push(engine.conn, None, files)
    workflows.push(engine.conn, None, definition("two_sources"))
    engine.worker(DPE_DATA_STORE=str(store))
    return engine


def definition(name: str) -> dict:
    return json.loads((EXAMPLES / "workflows" / f"{name}.json").read_text())


def run(engine: Engine, name: str, content: object = None) -> jobs.Job:
    return engine.ended(start(engine, definition(name), content), 30)


def test_every_workflow_is_in_the_table_of_contents() -> None:
    text = (EXAMPLES / "README.md").read_text()
    names = {path.stem for path in EXAMPLES.glob("workflows/*.json")}
    assert len(names) == 3
    assert {name for name in names if f"[`{name}`](workflows/{name}.json)" in text} == names


def test_two_sources_are_loaded_and_then_merged(engine: Engine) -> None:
    job = run(engine, "two_sources")
    assert (job.status, job.error) == ("SUCCESS", None)
    assert job.result == {
        "tills": {"file": "tills.csv", "sales": 2},
        "web": {"file": "web.csv", "sales": 1},
        "turnover": {"days": 3},
    }
    turnover = "SELECT shop, turnover FROM data_mart.daily_turnover ORDER BY shop"
    assert [(shop, float(amount)) for shop, amount in engine.rows(turnover)] == [
        ("Lille", 10.1),
        ("Nice", 7.5),
        ("Paris", 5),
    ]


def test_every_file_is_loaded_by_a_step_of_its_own(engine: Engine) -> None:
    job = run(engine, "every_file", {"as_of": "2024-06-01"})
    assert (job.status, job.error) == ("SUCCESS", None)
    assert [one["file"] for one in job.result["load"]] == ["more.csv", "tills.csv"]
    assert engine.rows("SELECT count(*) FROM data_prim.sale") == [(3,)]
    assert job.result["regions"]["north"] == 2


def test_the_morning_report_is_made_or_its_failure_is_noted(engine: Engine, store: Path) -> None:
    event = {"as_of": "2024-06-01"}
    job = run(engine, "morning_report", event)
    assert (job.status, job.error) == ("SUCCESS", None)
    assert steps(engine, job.execution_id) == {"sales": "SUCCESS", "regions": "SUCCESS"}
    assert engine.rows("SELECT * FROM data_prim.failure_note") == []

    (store / "tills" / "tills.csv").write_text(HEAD + "1,Lille,a lot,2024-05-01 08:00\n")
    job = run(engine, "morning_report", event)
    assert job.status == "FAILED"
    assert "sales FAILED: 1 of 3 steps failed: tills FAILED: " in str(job.error)
    assert steps(engine, job.execution_id) == {"sales": "FAILED", "note": "SUCCESS"}
    found = engine.rows("SELECT run_id, done FROM data_prim.failure_note")
    assert found == [(str(job.execution_id), "nothing")]
