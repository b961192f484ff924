"""`dpe healthy`: what the health checks of containers ask."""

import socket
import uuid

import psycopg
import pytest

from tests.cli.shell import Shell
from worker.store import workers

HOST = socket.gethostname()


def test_a_stack_that_is_up_is_healthy(shell: Shell) -> None:
    environ = dict(
        line.split("=", 1) for line in shell.ok("env").out.replace("export ", "").split()
    )
    environ = {name: value.strip("'\"") for name, value in environ.items()}
    port = environ["DPE_URL"].rsplit(":", 1)[1]
    given = {"DPE_PORT": port, "DPE_DATABASE_URL": environ["DPE_DATABASE_URL"]}
    given["DPE_BROKER_URL"] = environ["DPE_BROKER_URL"]
    assert shell.ok("healthy", "api", **given).out == "api is healthy\n"
    assert shell.ok("healthy", "worker", **given).out == "worker is healthy\n"


def test_what_does_not_answer_is_not_healthy(shell: Shell) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ended = shell.run("healthy", "flower", DPE_FLOWER_PORT=str(probe.getsockname()[1]))
    assert ended.code == 1
    assert "flower is not healthy" in ended.err


@pytest.fixture
def worker(conn: psycopg.Connection) -> uuid.UUID:
    conn.execute("DELETE FROM dpe.workers")
    id = uuid.uuid4()
    workers.register(conn, id, HOST, 1, 2)
    return id


def test_liveness_is_progress(conn: psycopg.Connection, worker: uuid.UUID) -> None:
    old = "now() - interval '1 minute'"
    assert workers.unhealthy(conn, HOST, 15) is None
    conn.execute(f"UPDATE dpe.workers SET progress_at = {old}, started_at = {old}".encode())
    assert workers.unhealthy(conn, HOST, 15) is None  # it has nothing to do
    conn.execute(
        "INSERT INTO dpe.jobs (execution_id, action_id, version, name, status, event_type,"
        f" published_at) VALUES (gen_random_uuid(), 'a', 1, 'a', 'QUEUED', 'api', {old})".encode()
    )
    assert "jobs wait" in (workers.unhealthy(conn, HOST, 15) or "")
    assert workers.unhealthy(conn, HOST, 15, progress_possible=False) is None
    conn.execute(f"UPDATE dpe.workers SET beat_at = {old}".encode())
    assert "no" in (workers.unhealthy(conn, HOST, 15) or "")
    assert "has given a sign" in (workers.unhealthy(conn, HOST, 15) or "")
    assert "none on elsewhere" in (workers.unhealthy(conn, "elsewhere", 15) or "")
