"""Secrets in a real worker: given to the handler, and hidden in all that is kept of its job."""

import json
from collections.abc import Iterator

import pytest

from tests.stack import Engine, Worker, start_worker
from worker import sealing, secret_params
from worker.settings import Settings
from worker.store import handler_secrets

SECRET = 'pa"ss\\wörd 4711'
PEM = "-----BEGIN KEY-----\nMIIEvgIBADANBgkqhkiG9w0\nabcdefghijklmnopqrs\n-----END KEY-----"
SPEAK = """
import logging, os, sys
from forepaas.core.settings import PARAMS
PASSWORD = PARAMS["shop"]["password"]
logger = logging.getLogger(__name__)

def handle(event):
    assert os.environ["PEM"] == PARAMS["pem"] and "BEGIN" in PARAMS["pem"]
    logger.info("logged %s and %r", PASSWORD, [PASSWORD])
    print("printed", PASSWORD)
    print(PARAMS["pem"], file=sys.stderr)
    if event.content == "raise":
        raise ValueError(f"could not log in with {PASSWORD!r}")
    if event.content == "number":
        return 47114711
    if event.content == "object":
        return object.__new__(type("T", (), {"__repr__": lambda self: PASSWORD}))
    return {"told": [PASSWORD], PASSWORD: len(PASSWORD)}
"""
CONFIG = {
    "params": {"shop": {"password": {"$secret": "password"}}, "pem": {"$secret": "pem"}},
    "environment": {"variables": {"PEM": {"$secret": "pem"}}},
}


@pytest.fixture(scope="module")
def worker(environment: None) -> Iterator[Worker]:
    worker = start_worker(children=1)
    yield worker
    worker.end()


@pytest.fixture
def engine(engine: Engine, worker: Worker) -> Engine:
    engine.conn.execute("TRUNCATE dpe.secrets")
    put(engine, "password", SECRET)
    put(engine, "pem", PEM)
    return engine


def put(engine: Engine, name: str, value: str) -> None:
    sealed = sealing.seal(Settings.from_environ(), secret_params.whose(name), value)
    handler_secrets.put(engine.conn, name, sealed)


@pytest.mark.parametrize("what", ["return", "raise", "number", "object"])
def test_a_secret_reaches_the_handler_and_nothing_that_is_kept(engine: Engine, what: str) -> None:
    put(engine, "digits", "47114711")
    config = CONFIG | {"params": {**CONFIG["params"], "pin": {"$secret": "digits"}}}
    job = engine.run(engine.push(SPEAK, config=config), what)
    assert job.status == ("FAILED" if what == "raise" else "SUCCESS"), job.error
    if what == "return":
        assert job.result == {"told": ["***"], "***": len(SECRET)}
    if what == "raise":
        assert job.error is not None
        assert "could not log in with '***'" in job.error["message"]
    messages = [line["message"] for line in engine.log(job.execution_id)]
    assert "logged *** and ['***']" in messages
    assert "printed ***" in messages
    kept = engine.rows(
        "SELECT row_to_json(j)::text FROM dpe.jobs j UNION ALL SELECT lines FROM dpe.job_logs"
    )
    for (text,) in kept:
        for secret in (SECRET, *(line for line in PEM.splitlines())):
            for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
                assert form not in text
                assert json.dumps(form, ensure_ascii=False)[1:-1] not in text


def test_a_secret_set_anew_holds_for_the_next_job(engine: Engine) -> None:
    main = """
from forepaas.core.settings import PARAMS
LENGTH = len(PARAMS["password"])
def handle(event): return LENGTH
"""
    action = engine.push(main, config={"params": {"password": {"$secret": "password"}}})
    assert engine.run(action).result == len(SECRET)
    put(engine, "password", "another one, and longer")
    assert engine.run(action).result == len("another one, and longer")


def test_a_secret_that_is_not_set_is_named(engine: Engine) -> None:
    config = {"params": {"password": {"$secret": "no_such"}}}
    error = engine.run(engine.push("def handle(event): pass", config=config)).error
    assert error is not None
    assert "needs the secret 'no_such'" in error["message"]
    assert "dpe secret set no_such" in error["message"]


def test_what_refers_to_a_secret_says_nothing_else(engine: Engine) -> None:
    config = {"params": {"password": {"$secret": "password", "default": "x"}}}
    error = engine.run(engine.push("def handle(event): pass", config=config)).error
    assert error is not None
    assert "and nothing else" in error["message"]


def test_the_warnings_of_an_insert_hide_it_too(engine: Engine) -> None:
    engine.conn.execute("CREATE SCHEMA data_prim")
    engine.conn.execute("CREATE TABLE data_prim.t (n int)")
    main = """
from forepaas.core.settings import PARAMS
from forepaas.dwh import bulk_insert, connect
def handle(event):
    bulk_insert(connect("dwh/data_prim/"), "t", [{"n": PARAMS["password"]}])
"""
    params = {"password": {"$secret": "password"}, "on_insert_error": "continue"}
    job = engine.run(engine.push(main, config={"params": params}))
    assert job.status == "SUCCESS", job.error
    text = json.dumps(job.stats, ensure_ascii=False)
    assert "***" in text
    assert "wörd 4711" not in text
