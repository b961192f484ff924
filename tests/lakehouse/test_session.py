"""What a job must not leave on the connection that the next one gets."""

import importlib
from uuid import uuid4

import pytest

from worker.lakehouse import Connector
from worker.store.claims import Claim


def next_job(job: Claim) -> None:
    job.conn.commit()
    job.execution_id = uuid4()


@pytest.mark.parametrize("statement", ["SET work_mem = '7MB'", "SET SESSION work_mem TO '7MB'"])
def test_settings_end_with_their_job(job: Claim, data_prim: Connector, statement: str) -> None:
    before = data_prim.query("SHOW work_mem").iloc[0, 0]
    data_prim.query(statement)
    assert data_prim.query("SHOW work_mem").iloc[0, 0] == "7MB"
    next_job(job)
    assert data_prim.query("SHOW work_mem").iloc[0, 0] == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE scratch AS SELECT 1 AS x",
        "create temporary table scratch (x int)",
        "SELECT 1 AS x INTO TEMP scratch",
        "CREATE TABLE pg_temp.scratch (x int)",
    ],
)
def test_temporary_tables_end_with_their_job(
    job: Claim, data_prim: Connector, statement: str
) -> None:
    for _ in range(2):  # a second one of that name would be an error
        data_prim.query(statement)
        data_prim.query("SELECT x FROM scratch")
        next_job(job)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("import forepaas.ml", "machine learning is not part of open-dpe"),
        ("from forepaas.core.settings import ML_CONFIG", "ML_CONFIG: .* not part of open-dpe"),
        ("from forepaas.actions.aggregate import Aggregate", "ready-made actions"),
        ("from forepaas.core.settings import OTHER", "cannot import name 'OTHER'"),
    ],
)
def test_what_the_sdk_lacks_is_said_at_the_import(statement: str, words: str) -> None:
    importlib.import_module("forepaas")
    with pytest.raises(ImportError, match=words):
        exec(statement)
