"""The product under test: real servers, and its own commands as processes, kept running.

Each process reaches Postgres and the broker over a link of its host.  The first host has the API,
a worker and Flower; the second one a worker, in a network namespace where the machine has them.
What dies is started again, as Compose or systemd would do it.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
from redis import Redis

from app.child import Child
from app.embedded import Postgres, Valkey
from tests.faults.host import Host, NoNamespaces
from worker.die_with_parent import die_with_parent

HERE = Path(__file__).parent
RESTART_PAUSE_S = 0.5
TURN_S = 0.05
WORKERS = ("worker-1", "worker-2")
CHILDREN = 4  # of each worker
FLOWER_ACCOUNT = "faults:harness"
DISK_BYTES = 1_500_000_000


class Link:
    """The proxy of `tests.faults.link`, as a child process."""

    def __init__(self, host: str, target: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.link", host, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- no threads yet
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def tell(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        with self.process:
            self.process.kill()


class Process(Child):
    """One of the product's commands, started again half a second after it dies."""

    def __init__(self, name: str, command: list[str], environ: dict[str, str], log: Path) -> None:
        super().__init__(name, log)
        self._command, self._environ = command, environ
        self._restart_at: float | None = None
        self.wanted = True

    def start(self) -> None:
        self.spawn(self._command, self._environ)

    def keep(self) -> None:
        """Start it again where it has died."""
        if self.pid is not None or not self.wanted:
            return
        if self._restart_at is None:
            self._restart_at = time.monotonic() + RESTART_PAUSE_S
        elif time.monotonic() > self._restart_at:
            self._restart_at = None
            self.start()

    def children(self) -> list[psutil.Process]:
        """Its living children; none where it is dead."""
        try:
            return psutil.Process(self.pid).children() if self.pid else []
        except psutil.NoSuchProcess:
            return []


class Stack:
    """Servers, links and processes; call it from the main thread only (see `app.child`)."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source
        self.postgres, self.valkey = Postgres(folder / "home"), Valkey(folder / "home")
        self.host = Host(f"dpe{os.getpid()}")
        self.why_no_host: str | None = None
        self.why_no_disk: str | None = None
        self.links: dict[str, Link] = {}
        self.processes: dict[str, Process] = {}
        self.key: tuple[str, str] | None = None
        self.laters: list[tuple[float, Callable[[], None]]] = []
        self.under_way: set[str] = set()  # of the faults that are healed later
        self.port, self.flower_port = _free_port(), _free_port()

    # Start and end

    def start(self) -> None:
        """Start all of it, and wait until it works."""
        self._make_disk()
        self.postgres.start()
        self.valkey.start()
        try:
            self.host.make()
        except NoNamespaces as error:
            self.why_no_host = str(error)
        far = "127.0.0.1" if self.why_no_host else self.host.near
        for host, address in (("1", "127.0.0.1"), ("2", far)):
            self.links[f"postgres-{host}"] = Link(address, self.postgres.address)
            self.links[f"broker-{host}"] = Link(address, self.valkey.address)
        self._dpe("migrate")
        for name in ("api", "worker-1", "flower"):
            self._launch(name, self._environ("1", "127.0.0.1"))
        self._launch("worker-2", self._environ("2", far))
        self.until_ready()

    def end(self) -> None:
        """End all of it, in whatever state it is."""
        for process in self.processes.values():
            process.wanted = False
            with contextlib.suppress(OSError, psutil.Error):
                for child in process.children():
                    child.kill()
            process.kill_group()
        for link in self.links.values():
            link.end()
        self.valkey.signal(signal.SIGCONT)
        self.valkey.kill()
        self.postgres.stop(3)
        self.host.remove()
        if self.why_no_disk is None:
            subprocess.run(["umount", "--lazy", str(self.folder / "home")], check=False)

    def _make_disk(self) -> None:
        """A disk of its own for the servers, small enough to be filled, where we may make one."""
        home = self.folder / "home"
        home.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(home)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            self.why_no_disk = f"no small disk: {done.stderr.strip()}"

    def _environ(self, host: str, address: str) -> dict[str, str]:
        words = urlsplit(self.postgres.url)
        broker = urlsplit(self.valkey.url)
        postgres_port, broker_port = (
            self.links[f"{server}-{host}"].port for server in ("postgres", "broker")
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DPE_")}
        return kept | {
            # The source under test comes before an installed one.
            "PYTHONPATH": str(self.source),
            "PYTHONSAFEPATH": "1",
            "DPE_HOME": str(self.folder / f"host-{host}"),
            "DPE_DATABASE_URL": (
                f"postgresql://{words.username}:{words.password}@{address}:{postgres_port}/dpe"
            ),
            "DPE_BROKER_URL": f"redis://:{broker.password}@{address}:{broker_port}/0",
            "DPE_PORT": str(self.port),
            "DPE_FLOWER_PORT": str(self.flower_port),
            "DPE_FLOWER_BASIC_AUTH": FLOWER_ACCOUNT,
            "DPE_API_PROCESSES": "2",
            "DPE_WORKERS": str(CHILDREN),
        }

    def _launch(self, name: str, environ: dict[str, str]) -> None:
        role = name.partition("-")[0]
        words = [sys.executable, "-m", "app.cli", role]
        if name == "worker-2" and not self.why_no_host:
            words = self.host.command(words)
        process = Process(name, words, environ, self.folder / f"{name}.log")
        process.start()
        self.processes[name] = process

    def _dpe(self, *words: str) -> str:
        environ = self._environ("1", "127.0.0.1")
        if self.key:
            environ |= {"DPE_APIKEY": self.key[0], "DPE_SECRETKEY": self.key[1]}
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"dpe {' '.join(words)}: {done.stderr}"
        return done.stdout

    def make_key(self) -> tuple[str, str]:
        """Make an API key, the one that the commands of this stack use from now on."""
        made = json.loads(self._dpe("key", "create", "--name", "faults", "--json"))
        self.key = made["apikey"], made["secretkey"]
        return self.key

    def push(self, name: str, config: dict[str, Any]) -> str:
        """Push the harness' handler as an action of this name; return its id."""
        folder = self.folder / "actions" / name
        shutil.copytree(HERE / "action", folder, ignore=shutil.ignore_patterns("__pycache__"))
        settings = {"display_name": name, "function_name": "handle"} | config
        (folder / "forepaas.json").write_text(json.dumps(settings))
        return json.loads(self._dpe("action", "push", str(folder), "--json"))["id"]

    def push_workflow(self, definition: dict[str, Any]) -> str:
        """Push a workflow; return its id."""
        file = self.folder / f"{definition['display_name']}.json"
        file.write_text(json.dumps(definition))
        return json.loads(self._dpe("workflow", "push", str(file), "--json"))["id"]

    def build_tables(self) -> None:
        """Build the tables that the handler writes to."""
        for table in sorted((HERE / "tables").iterdir()):
            self._dpe("table", "build", str(table))

    # While it runs

    def keep(self) -> None:
        """Start again what has died, and do what has come due."""
        for process in self.processes.values():
            process.keep()
        now = time.monotonic()
        due = [what for at, what in self.laters if at <= now]
        self.laters = [(at, what) for at, what in self.laters if at > now]
        for what in due:
            what()

    def rest(self, seconds: float) -> None:
        """Let time pass, keeping the stack running."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.keep()
            time.sleep(min(TURN_S, left))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do it in so many seconds, while other things go on."""
        self.laters.append((time.monotonic() + seconds, what))

    def until_ready(self, timeout_s: float = 30) -> None:
        """Wait until the API answers and both workers beat."""
        deadline = time.monotonic() + timeout_s
        beating = (
            "SELECT count(DISTINCT host || pid) FROM dpe.workers"
            " WHERE beat_at > now() - interval '3 seconds'"
        )
        while True:
            self.keep()
            with contextlib.suppress(OSError, psycopg.Error):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                with self.database() as conn:
                    if conn.execute(beating).fetchall()[0][0] >= len(WORKERS):
                        return
            assert time.monotonic() < deadline, f"not ready; see the logs in {self.folder}"
            time.sleep(TURN_S)

    @contextlib.contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A connection of the harness' own, past all links; each statement commits."""
        with psycopg.connect(
            self.postgres.url, autocommit=True, application_name="faults", connect_timeout=5
        ) as conn:
            yield conn

    def broker(self) -> Redis:
        """A client of the harness' own, past all links."""
        return Redis.from_url(self.valkey.url, socket_timeout=5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
