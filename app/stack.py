"""`dpe up`: the whole stack on one machine.  Starts it, mends it, ends it.

Each role is a process of its own, with a log under DPE_HOME/log.  What others need to know of the
stack (`dpe env`, `dpe ps`, the client commands) stands in DPE_HOME/stack.json.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from app.child import die_with_parent
from app.embedded import Postgres, Valkey
from worker.errors import DpeError
from worker.settings import Settings
from worker.store import access
from worker.store.database import connect
from worker.store.migrate import migrate

READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
POLL_S = 0.02
BACKOFF_S, MAX_BACKOFF_S = 0.2, 10.0
STEADY_S = 10.0  # a process that lived so long is not in a crash loop
PORTS_TRIED = 50
LOG_TAIL_BYTES = 800


class StackError(DpeError):
    """The stack can't start, or stands already."""


def up(settings: Settings, *, flower: bool = True, demo: bool = False) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP, then end all of it."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.home):
        stack = Stack(settings)
        try:
            stack.start(flower=flower)
            if demo:
                from app.demo import show  # noqa: PLC0415 -- only this command needs it

                threading.Thread(target=show, args=(stack.environ,), daemon=True).start()
            stack.mend_until_told()
        finally:
            stack.end()


@dataclass(slots=True)
class Role:
    """One process of the stack."""

    name: str
    address: str
    environ: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    born: float = 0.0
    backoff_s: float = BACKOFF_S
    start_at: float = 0.0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    def start(self) -> None:
        self.since, self.born = datetime.now(UTC), time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 -- our own command
                [sys.executable, "-m", "app.cli", self.name],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C in the terminal is for `dpe up`, which ends us in order
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 -- by the main thread
            )

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, and enforce it when the time is over."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _say(self.name, "does not end; killed", bad=True)
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Stack:
    """The servers and roles of one `dpe up`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.told = False
        self.servers: list[Postgres | Valkey] = []
        self.since: dict[str, datetime] = {}
        self.roles: list[Role] = []
        self.environ: dict[str, str] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._tell)

    def start(self, *, flower: bool) -> None:
        """Servers, tables, roles; returns when the API and a worker are ready."""
        settings = self.settings
        _check_port(settings.host, settings.port)
        database_url, broker_url = self._servers()
        own = {
            "DPE_HOME": str(settings.home),
            "DPE_DATABASE_URL": database_url,
            "DPE_BROKER_URL": broker_url,
            "DPE_URL": settings.url,
        }
        with contextlib.closing(connect(database_url, "dpe-up")) as conn:
            for name in migrate(conn):
                _say("database", f"applied {name}")
            own |= _credentials(conn, settings.home)
        host = settings.flower_host
        port = _first_free(host, settings.flower_port) if flower else 0
        if flower:
            own["DPE_FLOWER_URL"] = f"http://{host}:{port}"
        self.environ = own
        passed = (
            dict(os.environ)
            | own
            | {
                "DPE_HOST": settings.host,
                "DPE_PORT": str(settings.port),
                "DPE_WORKERS": str(settings.workers),
                "DPE_FLOWER_PORT": str(port or settings.flower_port),
            }
        )
        logs = settings.home / "log"
        logs.mkdir(exist_ok=True)
        self.roles = [
            Role("api", settings.url, passed, logs / "api.log"),
            Role("worker", f"{settings.workers} children", passed, logs / "worker.log"),
        ]
        if flower:
            self.roles.append(Role("flower", own["DPE_FLOWER_URL"], passed, logs / "flower.log"))
            if port != settings.flower_port:
                _say("flower", f"port {settings.flower_port} is taken; it gets {port}")
        for role in self.roles:
            role.start()
        self._write()
        self._wait_until_ready()
        if self.told:
            return
        for role in self.roles:
            _say(role.name, role.address)
        _say("stack", f"is up; Ctrl-C ends it. Data, logs and state: {settings.home}")

    def mend_until_told(self) -> None:
        """Start again what died, until a signal says to end."""
        while not self.told:
            changed = False
            for server in self.servers:
                changed |= self._mend_server(server)
            for role in self.roles:
                changed |= self._mend(role)
            if changed:
                self._write()
            time.sleep(5 * POLL_S)

    def end(self) -> None:
        """End all, the servers last; what does not end in time is killed."""
        if self.roles:
            _say("stack", "is ending")
        for role in reversed(self.roles):
            if role.process is not None and role.pid:
                role.process.terminate()
        deadline = time.monotonic() + END_TIMEOUT_S + self.settings.shutdown_grace_s
        for role in self.roles:
            role.wait(max(0.1, deadline - time.monotonic()))
        for server in reversed(self.servers):
            server.stop()
        self.roles, self.servers = [], []
        if self.environ:
            self._write()

    def _servers(self) -> tuple[str, str]:
        home, given = self.settings.home, self.settings
        urls = []
        for named, kind in ((given.database_url, Postgres), (given.broker_url, Valkey)):
            if named is not None:
                urls.append(named)
                continue
            server = kind(home)
            _say(server.role, "starting" if server.data.exists() else "making its data folder")
            self.servers.append(server)
            server.start()
            self.since[server.role] = datetime.now(UTC)
            urls.append(server.url)
        return urls[0], urls[1]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        with contextlib.closing(connect(self.environ["DPE_DATABASE_URL"], "dpe-up")) as conn:
            while not (self._api_answers() and self._worker_beats(conn)):
                for role in self.roles:
                    if role.pid is None and role.name != "flower":
                        raise StackError(f"{role.name} does not start: {_tail(role.log)}")
                if self.told:
                    return
                if time.monotonic() > deadline:
                    raise StackError(
                        "the stack did not get ready", f"see {self.roles[0].log.parent}"
                    )
                time.sleep(POLL_S)

    def _api_answers(self) -> bool:
        host = "127.0.0.1" if self.settings.host == "0.0.0.0" else self.settings.host  # noqa: S104
        try:
            with urllib.request.urlopen(
                f"http://{host}:{self.settings.port}/health", timeout=2
            ) as answer:
                return answer.status == 200  # noqa: PLR2004
        except OSError:
            return False

    def _worker_beats(self, conn: Any) -> bool:
        pid = self.roles[1].pid
        row = conn.execute(
            "SELECT 1 FROM dpe.workers WHERE pid = %s AND beat_at > now() - interval '5 seconds'",
            [pid],
        ).fetchone()
        return row is not None

    def _mend_server(self, server: Postgres | Valkey) -> bool:
        if server.pid is not None or self.told:
            return False
        _say(server.role, f"died; starting it again. Its log: {server.log}", bad=True)
        try:
            server.start()
        except DpeError as error:
            _say(server.role, f"{error}; trying again", bad=True)
            time.sleep(BACKOFF_S)
            return False
        self.since[server.role] = datetime.now(UTC)
        return True

    def _mend(self, role: Role) -> bool:
        now = time.monotonic()
        if role.pid is not None:
            return False
        if role.process is not None:
            code = role.process.returncode
            steady = now - role.born > STEADY_S
            role.backoff_s = BACKOFF_S if steady else min(role.backoff_s * 2, MAX_BACKOFF_S)
            role.start_at = now + role.backoff_s
            role.process = None
            how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
            _say(role.name, f"ended ({how}); starting it again. Its log: {role.log}", bad=True)
        if now < role.start_at or self.told:
            return False
        role.start()
        return True

    def _tell(self, number: int, _frame: object) -> None:
        if self.told and number == signal.SIGINT:
            for role in self.roles:
                if role.process is not None and role.pid:
                    role.process.kill()
        self.told = True

    def _write(self) -> None:
        listed = [
            {"role": server.role, "pid": server.pid, "since": self.since[server.role].isoformat()}
            for server in self.servers
        ] + [
            {
                "role": role.name,
                "pid": role.pid,
                "since": role.since.isoformat(),
                "address": role.address,
            }
            for role in self.roles
            if role.pid
        ]
        if listed:
            listed.insert(0, {"role": "up", "pid": os.getpid(), "since": _STARTED.isoformat()})
        _write_private(
            self.settings.home / "stack.json",
            json.dumps({"environment": self.environ, "processes": listed}, indent=1),
        )


_STARTED = datetime.now(UTC)


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            raise StackError(
                f"a stack is up in {home} already (pid {pid})",
                "end it with Ctrl-C, or set another DPE_HOME",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _credentials(conn: Any, home: Path) -> dict[str, str]:
    """The key that the client commands use on this machine: made once, kept for the owner alone."""
    path = home / "credentials.json"
    if path.exists():
        kept = json.loads(path.read_text())
        if any(key.apikey == kept["DPE_APIKEY"] for key in access.list_keys(conn)):
            return kept
    key = access.create_key(conn, name="local", role="DPE Admin")
    made = {"DPE_APIKEY": key.apikey, "DPE_SECRETKEY": key.secretkey}
    _write_private(path, json.dumps(made))
    return made


def _check_port(host: str, port: int) -> None:
    if not _is_free(host, port):
        raise StackError(
            f"port {port} on {host} is taken", "choose another: dpe up --port N, or DPE_PORT=N"
        )


def _first_free(host: str, port: int) -> int:
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        if _is_free(host, candidate):
            return candidate
    raise StackError(f"no free port for Flower from {port} on", "set DPE_FLOWER_PORT")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _tail(log: Path) -> str:
    text = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""
    return " | ".join(text.strip().splitlines()[-3:]) or f"see {log}"


def _say(role: str, what: str, *, bad: bool = False) -> None:
    colour = "red" if bad else "cyan"
    click.echo(f"{click.style(f'{role:>9}', fg=colour)}  {what}", err=bad)
    sys.stdout.flush()
