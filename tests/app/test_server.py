"""The API as it runs: granian, real sockets, real processes."""

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import psycopg
import pytest

from tests.app.conftest import Hand
from tests.stack import until
from worker.settings import Settings
from worker.store import access
from worker.store.actions import Action

SERVE = """
from app.server import main
from worker.settings import Settings
main(Settings.from_environ())
"""


@dataclass
class Api:
    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    log: Path

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, json.loads(answer.read())
        finally:
            connection.close()

    def raw(self, sent: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            s.sendall(sent)
            s.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := s.recv(65536):
                received += chunk
        return received


@pytest.fixture(scope="module")
def api(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("cwd")
    log = tmp_path_factory.mktemp("log") / "api.log"
    yield from served(folder, log)


def served(folder: Path, log: Path) -> Iterator[Api]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = os.environ | {"DPE_PORT": str(port), "DPE_MAX_BODY_BYTES": "100000"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=folder, env=environ, stderr=stderr
        )
    api = Api(process, port, folder, log)
    try:
        until(lambda: answers(api), 20)
        yield api
    finally:
        process.terminate()
        process.wait(15)


def answers(api: Api) -> bool:
    assert api.process.poll() is None, api.log.read_text()
    try:
        return api.call("GET", "/health")[0] == 200
    except OSError:
        return False


@pytest.fixture
def token(api: Api, conn: psycopg.Connection) -> str:
    key = access.create_key(conn, "server")
    login = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    status, _, session = api.call("POST", "/iam/login", json.dumps(login))
    assert status == 200
    return session["token"]


def test_the_main_call_over_real_http(api: Api, token: str, action: Action, hand: Hand) -> None:
    path = f"/dpe/v3/actions/{action.id}/start?app_id=5&type=cam&token={token}"
    status, head, answer = api.call("POST", path, b'[{"event_id": 1}]')
    assert status == 202
    hand.run(answer["execution_id"])
    status, _, job = api.call("GET", f"{head['location']}?wait=5&token={token}")
    assert (status, job["status"]) == (200, "SUCCESS")


def test_starts_that_share_a_commit_get_each_their_own_answer(
    api: Api, token: str, action: Action, conn: psycopg.Connection
) -> None:
    answered: dict[str, str] = {}

    def start(number: int) -> None:
        for event in (f"[{number}, {at}]" for at in range(10)):
            path = f"/dpe/v3/actions/{action.id}/start?token={token}"
            status, _, answer = api.call("POST", path, event)
            assert status == 202
            answered[answer["execution_id"]] = event

    callers = [Thread(target=start, args=(number,)) for number in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    stored = conn.execute("SELECT execution_id::text, event FROM dpe.jobs").fetchall()
    assert len(stored) == 120
    assert dict(stored) == answered


def test_a_busy_connection_gives_way_where_threads_are_few(
    environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPE_API_PROCESSES", "1")
    monkeypatch.setenv("DPE_API_THREADS", "2")
    serving = served(tmp_path, tmp_path / "api.log")
    api, over = next(serving), Event()

    def call_on_end() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
        while not over.is_set():
            connection.request("GET", "/health")
            connection.getresponse().read()
        connection.close()

    busy = [Thread(target=call_on_end) for _ in range(4)]
    for caller in busy:
        caller.start()
    try:
        for _ in range(20):
            began = time.monotonic()
            assert answers(api)
            assert time.monotonic() - began < 2
    finally:
        over.set()
        for caller in busy:
            caller.join(10)
        serving.close()


def test_each_process_listens_before_anybody_waits(
    environment: None, conn: psycopg.Connection, tmp_path: Path
) -> None:
    listens = "SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN dpe_%'"
    expected = len(conn.execute(listens).fetchall()) + Settings.from_environ().api_processes
    with contextmanager(served)(tmp_path, tmp_path / "api.log"):
        until(lambda: len(conn.execute(listens).fetchall()) == expected)


def test_neither_pandas_nor_the_runner_is_loaded(api: Api) -> None:
    code = (
        "import app.server, sys; print([m for m in ('pandas', 'numpy', 'pyarrow', 'forepaas',"
        " 'worker.run', 'worker.load', 'worker.lakehouse') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_commands_do_not_load_flask() -> None:
    code = "import app.cli, sys; print([m for m in ('flask', 'celery') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_leaves_no_file_where_it_was_started(api: Api) -> None:
    assert list(api.folder.iterdir()) == []


@pytest.mark.parametrize(("tokens", "status"), [("right", 413), ("wrong", 401)])
def test_who_sends_on_after_a_refusal_gets_its_answer(
    api: Api, token: str, action: Action, tokens: str, status: int
) -> None:
    path = f"/dpe/v3/actions/{action.id}/start?token={token if tokens == 'right' else 'x'}"
    body = b'"' + b"x" * 20_000_000 + b'"'  # more than the sockets hold
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as caller:
        caller.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        answered, _, _ = select.select([caller], [], [], 20)
        assert answered  # it was refused by its head
        caller.sendall(body)
        answer = caller.recv(65536)
    assert answer.split()[1] == str(status).encode()
    assert status != 413 or b"100000 bytes" in answer


@pytest.mark.parametrize(("size", "expected"), [(100_000, 202), (100_001, 413), (300_000, 413)])
def test_a_body_in_pieces_is_taken_whole_or_refused(
    api: Api, token: str, action: Action, conn: psycopg.Connection, size: int, expected: int
) -> None:
    body = b'"' + b"x" * (size - 3) + b'" '  # without its last character it is JSON as well
    path = f"/dpe/v3/actions/{action.id}/start?token={token}"
    pieces = (body[at : at + 10_000] for at in range(0, size, 10_000))
    status, _, _ = api.call("POST", path, pieces)
    assert status == expected
    stored = [event for (event,) in conn.execute("SELECT event FROM dpe.jobs").fetchall()]
    assert stored == ([body.decode()] if expected == 202 else [])


def test_a_body_in_pieces_is_taken(
    api: Api, token: str, action: Action, conn: psycopg.Connection
) -> None:
    path = f"/dpe/v3/actions/{action.id}/start?token={token}"
    status, _, _ = api.call("POST", path, iter([b"[1,", b"2]"]))
    assert status == 202
    assert conn.execute("SELECT event FROM dpe.jobs").fetchall() == [("[1,2]",)]


@pytest.mark.parametrize("how", ["Transfer-Encoding: chunked", "Content-Length: 30"])
@pytest.mark.parametrize(
    "sent", [b"no number\r\n", b"", b"3\r\n[1,\r\n", b"2\r\n12\r\n", b'2\r\n"x\r\n']
)
def test_a_body_that_breaks_off_is_refused(
    api: Api, token: str, action: Action, conn: psycopg.Connection, how: str, sent: bytes
) -> None:
    head = (
        f"POST /dpe/v3/actions/{action.id}/start?token={token} HTTP/1.1\r\nHost: x\r\n"
        f"Connection: close\r\n{how}\r\n\r\n"
    )
    answer, _, body = api.raw(head.encode() + sent).partition(b"\r\n\r\n")
    assert not answer or answer.split()[1] == b"400"
    assert not body or json.loads(body)["error"]
    assert conn.execute("SELECT count(*) FROM dpe.jobs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /x?token=very-secret HTTP/9.9\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 70_000 + b"?token=very-secret HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nbad header token=very-secret\r\n\r\n", b"400"),
        (b"nonsense very-secret\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_http_is_refused_and_not_logged(api: Api, sent: bytes, status: bytes) -> None:
    head, _, body = api.raw(sent).partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (status, b"")
    assert "very-secret" not in api.log.read_text()


def test_no_token_reaches_the_log(api: Api, token: str, action: Action) -> None:
    api.call("GET", f"/dpe/v3/jobs?token={token}")
    api.call("POST", f"/dpe/v3/actions/{action.id}/start?token={token}", b"{")
    api.call("GET", f"/nowhere?token={token}")
    assert token not in api.log.read_text()


def test_the_end_lets_waiting_requests_answer(
    environment: None, conn: psycopg.Connection, action: Action, tmp_path: Path
) -> None:
    (tmp_path / "cwd").mkdir()
    serving = served(tmp_path / "cwd", tmp_path / "api.log")
    api = next(serving)
    key = access.create_key(conn, "server")
    login = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    token = api.call("POST", "/iam/login", json.dumps(login))[2]["token"]
    answers: list[tuple[int, dict[str, str], Any]] = []
    path = f"/dpe/v3/actions/{action.id}/start?wait=30&token={token}"
    callers = [Thread(target=lambda: answers.append(api.call("POST", path))) for _ in range(4)]
    for caller in callers:
        caller.start()
    until(lambda: conn.execute("SELECT count(*) FROM dpe.jobs").fetchone() == (4,))
    processes = [psutil.Process(api.process.pid), *psutil.Process(api.process.pid).children()]
    began = time.monotonic()
    api.process.send_signal(signal.SIGTERM)
    assert api.process.wait(10) == 0
    assert time.monotonic() - began < 5
    for caller in callers:
        caller.join(5)
    assert [status for status, _, _ in answers] == [202] * 4
    assert not any(process.is_running() for process in processes)
    serving.close()


def test_the_address_is_free_soon_after_a_kill_of_the_main_process(
    environment: None, conn: psycopg.Connection, action: Action, tmp_path: Path
) -> None:
    (tmp_path / "cwd").mkdir()
    serving = served(tmp_path / "cwd", tmp_path / "api.log")
    api = next(serving)
    key = access.create_key(conn, "server")
    login = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    token = api.call("POST", "/iam/login", json.dumps(login))[2]["token"]
    kept = http.client.HTTPConnection("127.0.0.1", api.port)
    kept.request("GET", "/health")
    kept.getresponse().read()
    half = socket.create_connection(("127.0.0.1", api.port))
    half.sendall(b"POST /iam/v4/login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    path = f"/dpe/v3/actions/{action.id}/start?wait=30&token={token}"
    caller = Thread(target=lambda: suppress_broken(lambda: api.call("POST", path)))
    caller.start()
    until(lambda: conn.execute("SELECT count(*) FROM dpe.jobs").fetchone() == (1,))
    children = psutil.Process(api.process.pid).children()
    api.process.kill()
    api.process.wait(5)

    until(lambda: is_free(api.port), 4)
    psutil.wait_procs(children, 15)
    assert not any(child.is_running() for child in children)
    caller.join(5)
    kept.close()
    half.close()
    serving.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
        return False


def test_a_process_that_was_just_begun_ends_with_the_main_process(
    environment: None, tmp_path: Path
) -> None:
    (tmp_path / "cwd").mkdir()
    serving = served(tmp_path / "cwd", tmp_path / "api.log")
    api = next(serving)
    main = psutil.Process(api.process.pid)
    first = main.children()
    first[0].kill()
    begun = until(lambda: [child for child in main.children() if child not in first])
    main.kill()
    api.process.wait(5)
    _, alive = psutil.wait_procs([*begun, *first], 15)
    assert alive == []
    serving.close()


def suppress_broken(call: Callable[[], object]) -> None:
    with suppress(OSError, http.client.HTTPException):
        call()


def test_a_job_accepted_right_before_a_kill_is_there(
    environment: None, conn: psycopg.Connection, action: Action, tmp_path: Path
) -> None:
    (tmp_path / "cwd").mkdir()
    serving = served(tmp_path / "cwd", tmp_path / "api.log")
    api = next(serving)
    key = access.create_key(conn, "server")
    login = {"auth_mode": "apikey", "apikey": key.apikey, "secretkey": key.secretkey}
    token = api.call("POST", "/iam/login", json.dumps(login))[2]["token"]
    children = psutil.Process(api.process.pid).children()
    status, _, answer = api.call("POST", f"/dpe/v3/actions/{action.id}/start?token={token}", "[7]")
    for process in [psutil.Process(api.process.pid), *children]:
        process.kill()
    api.process.wait(5)
    assert status == 202
    stored = conn.execute("SELECT execution_id::text, event FROM dpe.jobs").fetchall()
    assert stored == [(answer["execution_id"], "[7]")]
    serving.close()
