"""`dpe up`: the whole stack on one machine.  Starts it, mends it, ends it.

Each role is a process of its own, with a log under DPE_HOME/log.  What others need to know of the
stack (`dpe env`, `dpe ps`, the client commands) stands in DPE_HOME/stack.json.

One thread and one loop: whatever is waited for here can be broken off by a signal.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import flower as flower_role
from app import roles
from app.child import POLL_S
from app.embedded import Postgres, Valkey
from app.embedded.server import Server, write_private
from app.mending import Mended, say
from app.roles import Role
from worker import sealing
from worker.die_with_parent import die_with_parent
from worker.errors import DpeError
from worker.settings import Settings
from worker.store import access
from worker.store.database import connect
from worker.store.migrate import migrate

READY_TIMEOUT_S = 60.0
TURN_S = 0.5  # a death is known at once (SIGCHLD); this bounds what a lost signal would cost
# How long each may take to end; all together 10 s with the default grace of a worker.
END_API_S, END_WORKER_S, END_SERVERS_S = 2.0, 1.0, 2.0


class StackError(DpeError):
    """The stack can't start, or stands already."""


class Told(Exception):
    """A signal said to end, while something was waited for."""


def up(settings: Settings, *, flower: bool = True, demo: bool = False) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP, then end all of it.

    Raises StackError, ServerFailed or PortTaken where it can't start; nothing is left then.
    """
    if flower:
        flower_role.check(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.home):
        stack = Stack(settings)
        try:
            stack.start(flower=flower)
            if demo:
                stack.show_demo()
            stack.mend_until_told()
        except Told:
            pass
        finally:
            stack.end()


class Stack:
    """The servers and roles of one `dpe up`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.told = 0  # how often a signal said to end
        self.since = datetime.now(UTC)
        self.servers: list[Server] = []
        self.roles: list[Role] = []
        self.mended: list[Mended] = []  # all that run; in the order of their start
        self.demo: subprocess.Popen[bytes] | None = None
        self.environ: dict[str, str] = {}
        self._wake = self._listen_to_signals()

    def start(self, *, flower: bool) -> None:
        """Servers, tables, roles; returns when starts are accepted and a worker is there."""
        began, settings = time.monotonic(), self.settings
        roles.end_leftovers(settings.home)
        roles.check_port(settings)
        database_url, broker_url = self._start_servers()
        if settings.secrets_key is None:
            sealing.make_key(settings.home)
        self.environ = {
            "DPE_HOME": str(settings.home),
            "DPE_DATABASE_URL": database_url,
            "DPE_BROKER_URL": broker_url,
            "DPE_URL": settings.url,
        }
        with contextlib.closing(connect(database_url, "dpe-up")) as conn:
            for name in migrate(conn):
                say("database", f"applied {name}")
            self.environ |= _credentials(conn, settings.home)
        self._start_roles(flower=flower)
        self._wait(lambda: self._roles_live() and roles.is_ready(settings), "the API")
        if flower:  # not sooner: on a small machine it would take the processor from the others
            self._launch(self.roles[-1])
        for role in self.roles:
            say(role.role, role.address)
        took = time.monotonic() - began
        say("stack", f"is up after {took:.1f} s; Ctrl-C ends it. Data and logs: {settings.home}")

    def show_demo(self) -> None:
        """Play the demo beside the stack, in a process that the end need not wait for."""
        sys.stdout.flush()
        self.demo = subprocess.Popen(
            [sys.executable, "-P", "-c", "import os, app.demo; app.demo.show(os.environ)"],
            env=dict(os.environ) | self.environ,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- by the only thread
        )

    def mend_until_told(self) -> None:
        """Start again what died, until a signal says to end."""
        while not self.told:
            changed = [mended.mend() for mended in self.mended]
            if any(changed):
                self._write()
            self._sleep(min([TURN_S, *(mended.due_in_s() for mended in self.mended)]))

    def end(self) -> None:
        """End all, the servers last; what does not end in time is killed, as is all when told so
        again.
        """
        if self.demo is not None and self.demo.poll() is None:
            self.demo.kill()
            self.demo.wait()
        if self.roles or self.servers:
            say("stack", "is ending; Ctrl-C once more kills it")
        self._end(["api", "flower"], END_API_S)
        self._end(["worker"], self.settings.shutdown_grace_s + END_WORKER_S)
        for server in self.servers:
            server.signal(server.when_orphaned)
        self._ended(self.servers, END_SERVERS_S)
        for server in self.servers:
            server.stop(0.0)
        self.roles, self.servers, self.mended = [], [], []
        if self.environ:
            self._write()

    # Starting

    def _start_servers(self) -> tuple[str, str]:
        """Start those that no setting names, both at once; return the addresses."""
        home, given = self.settings.home, self.settings
        urls = {"postgres": given.database_url, "valkey": given.broker_url}
        self.servers = [s for s in (Valkey(home), Postgres(home)) if urls[s.role] is None]
        for server in self.servers:
            if not server.data.exists():
                say(server.role, "makes its data folder, this once")
            self._launch(server)
        for server in self.servers:
            self._wait(server.ready, server.role)
            urls[server.role] = server.url
            say(server.role, server.address)
        return urls["postgres"] or "", urls["valkey"] or ""

    def _start_roles(self, *, flower: bool) -> None:
        settings, logs = self.settings, self.settings.home / "log"
        environ = dict(os.environ) | {
            "DPE_HOST": settings.host,
            "DPE_PORT": str(settings.port),
            "DPE_WORKERS": str(settings.workers),
        }
        addresses = {"api": settings.url, "worker": f"{settings.workers} jobs at a time"}
        if flower:
            wish, host = settings.flower_port, settings.flower_host
            port = roles.free_port(host, wish)
            if port != wish:
                say("flower", f"port {wish} is taken: {port} serves instead")
            environ["DPE_FLOWER_PORT"] = str(port)
            addresses["flower"] = self.environ["DPE_FLOWER_URL"] = flower_role.url(host, port)
        environ |= self.environ
        self.roles = [Role(name, where, environ, logs) for name, where in addresses.items()]
        for role in self.roles[:2]:
            self._launch(role)

    def _launch(self, child: Server | Role) -> None:
        self.mended.append(Mended(child))
        self.mended[-1].launch()
        self._write()

    def _roles_live(self) -> bool:
        for role in self.roles[:2]:
            if role.pid is None:
                words = f"{role.role} does not start ({role.how_it_ended()}): {role.log_tail()}"
                raise StackError(words, f"its log: {role.log}")
        return True

    # Waiting

    def _listen_to_signals(self) -> int:
        def tell(*_: object) -> None:
            self.told += 1

        wake, woken = os.pipe()
        for end in (wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # `nohup dpe up` stays when its terminal goes.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, tell)
        return wake

    def _sleep(self, seconds: float) -> None:
        """Sleep until a signal comes, or a child ends."""
        select.select([self._wake], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not condition():
            if self.told:
                raise Told
            if time.monotonic() > deadline:
                hint = f"its log is in {self.settings.home / 'log'}"
                raise StackError(f"{what} is not ready after {READY_TIMEOUT_S:g} s", hint)
            self._sleep(POLL_S)
        if self.told:
            raise Told

    # Ending

    def _end(self, names: list[str], limit_s: float) -> None:
        children = [role for role in self.roles if role.role in names]
        for child in children:
            child.signal(signal.SIGTERM)
        if not self._ended(children, limit_s):
            for child in children:
                if child.pid is not None:
                    say(child.role, f"did not end within {limit_s:g} s: killed", bad=True)
        for child in children:
            child.kill_group()

    def _ended(self, children: Sequence[Server | Role], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while any(child.pid is not None for child in children):
            if self.told > 1 or time.monotonic() > deadline:
                return False
            self._sleep(POLL_S)
        return True

    def _write(self) -> None:
        entries = [mended.entry() for mended in self.mended if mended.child.pid]
        if entries:
            me = {"role": "up", "pid": os.getpid(), "since": self.since.isoformat()}
            entries.insert(0, me)
        left = {"environment": self.environ, "processes": entries}
        write_private(self.settings.home / "stack.json", json.dumps(left, indent=1))


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go when we die
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            hint = "`dpe env` tells how to use it; for a second one set another DPE_HOME"
            raise StackError(f"a stack is up in {home} already, pid {pid}", hint) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _credentials(conn: Any, home: Path) -> dict[str, str]:
    """The key that the client commands use on this machine: made once, kept for the owner alone."""
    path = home / "credentials.json"
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        kept = json.loads(path.read_text())
        valid = [key.apikey for key in access.list_keys(conn) if _is_valid(key)]
        if kept["DPE_APIKEY"] in valid:
            return kept
    key = access.create_key(conn, name="local", role="DPE Admin")
    made = {"DPE_APIKEY": key.apikey, "DPE_SECRETKEY": key.secretkey}
    write_private(path, json.dumps(made))
    return made


def _is_valid(key: access.Key) -> bool:
    return key.revoked_at is None and key.expires_at > datetime.now(UTC)
