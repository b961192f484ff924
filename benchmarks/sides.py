"""The two systems that are compared, each started and ended as its users would."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from app.embedded import Postgres, Valkey

ROOT = Path(__file__).parent.parent
ACTION = "dec0de000000000000000001"
CHILDREN = 4
PORTS = {"product": 18180, "baseline": 18280, "flower": 18355, "empty": 18380}
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 20.0
DPE = [sys.executable, "-m", "app.cli"]


@dataclass
class Side:
    """A running system: where to start, how to see an end, and its processes."""

    name: str
    url: str
    start_url: str
    headers: dict[str, str]
    processes: list[psutil.Process]

    def start(self, rows: bytes, query: str = "") -> dict[str, Any]:
        """Start once; the answer."""
        return call("POST", self.start_url + query, self.headers, rows)

    def status_url(self, started: dict[str, Any]) -> str:
        """Where to poll for its end."""
        if self.name == "baseline":
            return f"{self.url}/status/{started['id']}"
        return f"{self.url}/dpe/v3/jobs/{started['execution_id']}"

    def pss_bytes(self) -> float:
        """Proportional set size of all its processes; the servers are counted apart."""
        return sum(self._of_each(lambda process: process.memory_full_info().pss))

    def cpu_s(self) -> float:
        """Processor time that all its processes have used."""
        return sum(self._of_each(lambda process: sum(process.cpu_times()[:2])))

    def _of_each(self, what: Callable[[psutil.Process], float]) -> Iterator[float]:
        tree = {p.pid: p for top in self.processes for p in [top, *top.children(recursive=True)]}
        for process in tree.values():
            with suppress(psutil.NoSuchProcess):
                yield what(process)


_connections: dict[str, http.client.HTTPConnection] = {}


def call(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Any:
    """One HTTP call, on the connection of the one before where the server keeps it, as clients do.

    Its decoded answer.  Raises OSError, or RuntimeError where the answer is not 2xx.
    """
    place, _, path = url.removeprefix("http://").partition("/")
    for fresh in (False, True):
        if fresh or place not in _connections:
            _connections[place] = http.client.HTTPConnection(place, timeout=40)
        try:
            _connections[place].request(method, f"/{path}", body, dict(headers))
            answer = _connections[place].getresponse()
            text = answer.read()
            break
        except (http.client.HTTPException, ConnectionError):
            if fresh:
                raise
    if answer.status >= 300:
        raise RuntimeError(f"{method} {url}: {answer.status} {text[:200]!r}")
    return json.loads(text or b"null")


class Product:
    """This engine on the given servers, with everything on: logs, live status, Flower.

    `number` parts those that run beside each other: their ports, folders, and queues.
    """

    def __init__(self, home: Path, database_url: str, broker_url: str, number: int = 0) -> None:
        self.log = home / f"product{number}.log"
        self.port = PORTS["product"] + number
        self.environ = os.environ | {
            "DPE_HOME": str(home / f"product{number}"),
            "DPE_DATABASE_URL": database_url,
            # The baseline has the first after that of the first product.
            "DPE_BROKER_URL": f"{broker_url.removesuffix('/0')}/{2 * number}",
            "DPE_PORT": str(self.port),
            "DPE_FLOWER_PORT": str(PORTS["flower"] + number),
            "DPE_WORKERS": str(CHILDREN),
        }

    def dpe(self, *words: str) -> str:
        """Run one of its commands."""
        return subprocess.run(
            [*DPE, *words], env=self.environ, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    def prepare(self) -> None:
        """Build the table and push the action; `dpe up` must run."""
        self.dpe("table", "build", "examples/tables/event_archive.json")
        self.dpe("action", "push", "examples/event_archive", "--id", ACTION)

    @contextmanager
    def up(self, *words: str, prepared: bool = False) -> Iterator[Side]:
        """`dpe up`; `prepared`: its database has the table and the action."""
        with running([*DPE, "up", *words], self.environ, self.log) as up:
            wait_for(lambda: "is up" in self.log.read_text(), up)
            if not prepared:
                self.prepare()
            processes = [psutil.Process(up.pid)]
            yield Side("product", self.url, self.start_url, self.headers(), processes)

    @contextmanager
    def process(self, name: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """`dpe api`, `dpe worker` or `dpe up`."""
        log = self.log.with_name(f"{name}.log")
        with running([*DPE, name], self.environ | environ, log) as process:
            yield process

    def answers(self) -> bool:
        """Whether the API accepts starts."""
        try:
            call("GET", f"{self.url}/ready", {})
        except (OSError, RuntimeError):
            return False
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def start_url(self) -> str:
        return f"{self.url}/dpe/v3/actions/{ACTION}/start"

    def headers(self) -> dict[str, str]:
        """What a caller sends."""
        token = self.dpe("token").strip()
        return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


@contextmanager
def baseline(home: Path, postgres: Postgres, valkey: Valkey) -> Iterator[Side]:
    """gunicorn with four sync workers, Celery with four prefork children."""
    environ = os.environ | {
        "BASELINE_BROKER_URL": valkey.url.replace("/0", "/1"),
        "BASELINE_DATABASE_URL": postgres.url,
    }
    web = ["gunicorn", "-k", "sync", "-w", str(CHILDREN), "benchmarks.baseline.web:app"]
    web += ["-b", f"127.0.0.1:{PORTS['baseline']}", "--log-level", "error"]
    work = ["celery", "-A", "benchmarks.baseline.web:celery", "worker", "-c", str(CHILDREN)]
    work += ["-l", "ERROR", "--without-gossip", "--without-mingle"]
    log = home / "baseline.log"
    with (
        running([sys.executable, "-m", *web], environ, log) as server,
        running([sys.executable, "-m", *work], environ, log) as worker,
    ):
        url = f"http://127.0.0.1:{PORTS['baseline']}"
        side = Side(
            "baseline",
            url,
            f"{url}/start",
            {"Content-Type": "application/json"},
            [psutil.Process(server.pid), psutil.Process(worker.pid)],
        )
        wait_for(lambda: _serves(side), server)
        yield side


@contextmanager
def empty(home: Path) -> Iterator[str]:
    """The product's own server, with as many processes and threads, that only answers a POST."""
    environ = os.environ | {"DPE_PORT": str(PORTS["empty"])}
    words = [sys.executable, "-m", "benchmarks.baseline.empty"]
    url = f"http://127.0.0.1:{PORTS['empty']}/start"
    with running(words, environ, home / "empty.log") as process:
        wait_for(lambda: _answers(url), process)
        yield url


def _answers(url: str) -> bool:
    try:
        call("POST", url, {}, b"[]")
    except OSError:
        return False
    return True


def _serves(side: Side) -> bool:
    try:
        url = side.status_url(side.start(b"[]"))
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if call("GET", url, side.headers)["status"] in {"SUCCESS", "FAILURE"}:
                return True
            time.sleep(0.05)
    except OSError:
        pass
    return False


def rows_written(conn: psycopg.Connection) -> int:
    """How many rows stand in the table that both sides write."""
    row = conn.execute("SELECT count(*) FROM data_prim.event_archive").fetchone()
    assert row is not None
    return row[0]


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until a process is ready; raises RuntimeError where it is not in time, or has ended."""
    until = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args} does not start")
        time.sleep(0.02)


@contextmanager
def running(
    words: Sequence[str], environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block lasts."""
    with log.open("w") as file:
        process = subprocess.Popen(list(words), env=environ, cwd=ROOT, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
