"""One job, from its claim to its end, in a real worker."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack import Engine, Worker, start_worker, until
from worker.store import jobs

INSERT = """
from worker.store import claims
def write(n):
    conn = claims.running.conn
    conn.execute("INSERT INTO data_prim.t SELECT generate_series(1, %s)", [n])
"""


@pytest.fixture(scope="module")
def worker(environment: None) -> Iterator[Worker]:
    """One worker for all of these: nothing here kills it."""
    worker = start_worker(children=2)
    yield worker
    worker.end()


@pytest.fixture
def engine(engine: Engine, worker: Worker) -> Engine:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (x int)")
    return engine


def count(engine: Engine) -> int:
    return engine.rows("SELECT count(*) FROM data_prim.t")[0][0]


def test_a_handlers_rows_and_its_success_stand_together(engine: Engine) -> None:
    action = engine.push("from rows import write\ndef handle(event): write(5)", rows=INSERT)
    job = engine.run(action, [1])
    assert (job.status, job.attempt, count(engine)) == ("SUCCESS", 1, 5)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("raise ValueError('no such thing')", "ValueError"),
        ("import sys; sys.exit('no such thing')", "SystemExit"),
        ("1 / 0", "ZeroDivisionError"),
        ("claims.running.conn.execute('SELECT nothing')", "psycopg.errors.UndefinedColumn"),
    ],
)
def test_a_handler_that_raises_leaves_nothing(engine: Engine, ending: str, kind: str) -> None:
    action = engine.push(
        f"from rows import write, claims\ndef handle(event):\n    write(5)\n    {ending}",
        rows=INSERT,
    )
    job = engine.run(action)
    assert (job.status, count(engine)) == ("FAILED", 0)
    assert job.error is not None
    assert job.error["type"] == kind
    assert "main.py" in job.error["traceback"]
    assert "worker/run.py" not in job.error["traceback"]


@pytest.mark.parametrize(
    ("main", "kind", "words"),
    [
        ("import no_such_module", "ModuleNotFoundError", "no_such_module"),
        ("def handle(event:", "SyntaxError", "was never closed"),
        ("def other(event): pass", "LoadError", "no function 'handle'; it has: other"),
        ("raise RuntimeError('at import')", "RuntimeError", "at import"),
    ],
)
def test_code_that_cannot_be_loaded_fails_the_job_with_its_error(
    engine: Engine, main: str, kind: str, words: str
) -> None:
    action = engine.push(main)
    for _ in range(2):  # the second attempt must not meet a half-imported module
        job = engine.run(action)
        assert job.status == "FAILED"
        assert job.error is not None
        assert job.error["type"] == kind
        assert words in job.error["message"]


def test_the_event_has_its_content_and_a_token_for_the_outside(engine: Engine) -> None:
    action = engine.push(
        "def handle(event): return [event.type, event.content, event.attempt, event.execution_id]"
    )
    content = {"id": 2**63 - 1, "text": "é\u0000"}
    job = engine.run(action, content)
    assert job.result == ["api", content, 1, str(job.execution_id)]


def test_a_new_version_serves_the_very_next_start(engine: Engine) -> None:
    first = engine.push("def handle(event): return 'old'")
    assert engine.run(first).result == "old"
    engine.push("def handle(event): return 'new'", first.id)
    job = engine.run(first)
    assert (job.result, job.version) == ("new", 2)


def test_a_job_runs_the_version_that_was_newest_when_it_was_accepted(engine: Engine) -> None:
    first = engine.push("def handle(event): return 'old'")
    accepted = engine.accept(first)
    engine.push("def handle(event): return 'new'", first.id)
    assert engine.ended(accepted.execution_id).result == "old"  # published by the watch


def test_modules_of_the_same_name_do_not_meet(engine: Engine) -> None:
    main = (
        "import rules\ndef handle(event):\n"
        "    import rules as again\n    return [rules.WHO, again.WHO]"
    )
    one = engine.push(main, rules="WHO = 'one'")
    two = engine.push(main, rules="WHO = 'two'")
    for _ in range(4):  # both children meet both actions
        assert engine.run(one).result == ["one", "one"]
        assert engine.run(two).result == ["two", "two"]


def test_parameters_are_there_at_import_and_in_the_environment(engine: Engine) -> None:
    main = (
        "import os\n"
        "from forepaas.core.settings import PARAMS, CONFIG\n"
        "LIMIT = PARAMS['limit']\n"
        "def handle(event): return [LIMIT, PARAMS['city'], os.environ['city'], os.environ['A'],"
        " bool(CONFIG.get('dataplant_id'))]"
    )
    config: dict[str, Any] = {
        "params": {"limit": 7, "city": "Lyon"},
        "environment": {"variables": {"A": "b"}},
    }
    assert engine.run(engine.push(main, config=config)).result == [7, "Lyon", "Lyon", "b", True]
    other = engine.push(
        "import os\nfrom forepaas.core.settings import PARAMS\n"
        "def handle(event): return [dict(PARAMS), 'city' in os.environ]"
    )
    assert engine.run(other).result == [{}, False]


def test_what_a_handler_sets_in_the_environment_ends_with_its_job(engine: Engine) -> None:
    config = {"environment": {"variables": {"A": "b"}}}
    main = (
        "import os\ndef handle(event):\n"
        "    found = [os.environ.get('A'), os.environ.get('LEFT'), 'HOME' in os.environ]\n"
        "    os.environ['LEFT'] = os.environ['A'] = 'x'\n"
        "    os.environ.pop('HOME', None)\n"
        "    return found\n"
    )
    action = engine.push(main, config=config)
    for _ in range(4):  # both children, twice
        assert engine.run(action).result[:2] == ["b", None]
    assert engine.run(action).result[2] == ("HOME" in os.environ)


def test_everything_a_handler_says_is_in_its_log(engine: Engine) -> None:
    main = (
        "import logging, threading, warnings\n"
        "logger = logging.getLogger(__name__)\n"
        "def handle(event):\n"
        "    logger.debug('not this'); logger.info('info %s', 1); logger.notice('noticed')\n"
        "    print('printed'); warnings.warn('warned')\n"
        "    thread = threading.Thread(target=lambda: logger.error('from a thread'))\n"
        "    thread.start(); thread.join()\n"
    )
    job = engine.run(engine.push(main))
    log = engine.log(job.execution_id)
    said = [(line["level"], line["message"]) for line in log]
    assert said[0] == ("notice", '"Test" BEGIN (custom) action.')
    assert said[-1][1].startswith('"Test" END (custom) action. Duration: ')
    assert ("info", "info 1") in said
    assert ("notice", "noticed") in said
    assert ("info", "printed") in said
    assert ("error", "from a thread") in said
    assert any(level == "warning" and "warned" in message for level, message in said)
    assert not any("not this" in message for _, message in said)


def test_the_log_of_a_running_job_can_be_read(engine: Engine) -> None:
    main = "import time\ndef handle(event):\n    print('so far')\n    time.sleep(30)\n"
    id = engine.start(engine.push(main))
    until(lambda: any(line["message"] == "so far" for line in engine.log(id)), 3)
    assert engine.job(id).status == "PROCESSING"
    assert jobs.stop(engine.conn, id, "test")


def test_a_result_that_is_no_json_is_kept_as_text(engine: Engine) -> None:
    job = engine.run(engine.push("def handle(event): return object"))
    assert (job.status, job.result) == ("SUCCESS", "<class 'object'>")


def test_a_swallowed_insert_error_fails_the_job_unless_the_action_says_otherwise(
    engine: Engine,
) -> None:
    main = (
        "from forepaas.dwh import connect, bulk_insert\n"
        "def handle(event):\n"
        "    bulk_insert(connect('dwh/data_prim/'), 't', [{'x': 1}])\n"
        "    bulk_insert(connect('dwh/data_prim/'), 't', [{'x': 'many'}])\n"
    )
    job = engine.run(engine.push(main))
    assert (job.status, count(engine)) == ("FAILED", 0)
    assert "many" in str(job.error)
    lenient = engine.push(main, config={"params": {"on_insert_error": "continue"}})
    assert (engine.run(lenient).status, count(engine)) == ("SUCCESS", 1)
