"""Every `DPE_*` variable, read once, checked, frozen.  No other module touches `os.environ`."""

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from worker.errors import SettingError


@dataclass(frozen=True, slots=True)
class Settings:
    """What one process was started with.  Times end in `_s` and are seconds."""

    home: Path  # DPE_HOME: data, logs and state of the embedded stack
    database_url: str | None  # DPE_DATABASE_URL: postgresql://…; None: the embedded server's
    admin_url: str | None = field(repr=False)  # DPE_ADMIN_URL: a superuser's; `dpe migrate` alone
    broker_url: str | None  # DPE_BROKER_URL: redis://…; None: the embedded server's
    url: str  # DPE_URL: where clients find the API
    host: str  # DPE_HOST, DPE_PORT: where the API listens
    port: int
    api_processes: int  # DPE_API_PROCESSES
    api_threads: int  # DPE_API_THREADS: calls through Flask at a time, per process
    workers: int  # DPE_WORKERS: prefork children of one `dpe worker`
    flower_host: str  # DPE_FLOWER_HOST, DPE_FLOWER_PORT
    flower_port: int
    flower_basic_auth: str | None  # DPE_FLOWER_BASIC_AUTH: user:password
    flower_login: str  # DPE_FLOWER_LOGIN: "keys", or nothing
    apikey: str | None  # DPE_APIKEY, DPE_SECRETKEY: what the client commands log in with
    secretkey: str | None
    default_dataset: str  # DPE_DEFAULT_DATASET: what "dwh/default_dataset/" stands for
    dataset_urls: dict[str, str] = field(
        repr=False
    )  # DPE_DATASET_<NAME>_URL, by name in lower case
    datasets_url: str | None = field(repr=False)  # DPE_DATASETS_URL: of all that have none
    data_store: str | None  # DPE_DATA_STORE: a folder or an address; None: a folder under home
    data_store_options: dict[str, Any]  # DPE_DATA_STORE_OPTIONS: what fsspec is given with it
    secrets_key: str | None  # DPE_SECRETS_KEY: what secrets are encrypted with
    webhook_tolerance_s: float  # DPE_WEBHOOK_TOLERANCE_S: how old a signed call may be
    token_lifetime_s: float  # DPE_TOKEN_LIFETIME_S
    max_body_bytes: int  # DPE_MAX_BODY_BYTES: of one start call
    max_waiting: int  # DPE_MAX_WAITING: accepted jobs that have not begun; then 429; 0: no limit
    max_starts_per_s: float | None  # DPE_MAX_STARTS_PER_S: of one API key; None: no limit
    trusted_proxies: tuple[str, ...]  # DPE_TRUSTED_PROXIES: whose X-Forwarded-For is believed
    cors_origins: tuple[str, ...]  # DPE_CORS_ORIGINS: pages that may call; none: no page
    max_losses: int  # DPE_MAX_LOSSES: lost workers that one job survives before it is FAILED
    heartbeat_interval_s: float  # DPE_HEARTBEAT_INTERVAL_S
    heartbeat_timeout_s: float  # DPE_HEARTBEAT_TIMEOUT_S: silent for longer: the worker is lost
    shutdown_grace_s: float  # DPE_SHUTDOWN_GRACE_S: what running jobs get when a worker ends
    keep_jobs_s: float  # DPE_KEEP_JOBS_S: ended jobs are deleted after this long
    keep_environments_s: float  # DPE_KEEP_ENVIRONMENTS_S: unused for longer, they are removed
    max_jobs_per_child: int  # DPE_MAX_JOBS_PER_CHILD: then the child is replaced (memory)
    max_child_bytes: int  # DPE_MAX_CHILD_BYTES: resident memory at which a child is replaced

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read and check `DPE_*`; raise SettingError naming the variable that is wrong."""
        read = _Reader(os.environ if environ is None else environ)
        host, port = read.text("DPE_HOST", "127.0.0.1"), read.port("DPE_PORT", 8080)
        settings = cls(
            home=Path(read.text("DPE_HOME", ".dpe")).expanduser().absolute(),
            database_url=read.url("DPE_DATABASE_URL", ("postgresql://", "postgres://")),
            admin_url=read.url("DPE_ADMIN_URL", ("postgresql://", "postgres://")),
            broker_url=read.url("DPE_BROKER_URL", ("redis://", "rediss://", "redis+socket://")),
            url=read.text("DPE_URL", f"http://{_reachable(host)}:{port}").rstrip("/"),
            host=host,
            port=port,
            api_processes=read.count("DPE_API_PROCESSES", max(2, os.cpu_count() or 2)),
            api_threads=read.count("DPE_API_THREADS", 32),
            workers=read.count("DPE_WORKERS", max(2, os.cpu_count() or 2)),
            flower_host=read.text("DPE_FLOWER_HOST", "127.0.0.1"),
            flower_port=read.port("DPE_FLOWER_PORT", 5555),
            flower_basic_auth=read.optional("DPE_FLOWER_BASIC_AUTH"),
            flower_login=read.choice("DPE_FLOWER_LOGIN", ("", "keys")),
            apikey=read.optional("DPE_APIKEY"),
            secretkey=read.optional("DPE_SECRETKEY"),
            default_dataset=read.text("DPE_DEFAULT_DATASET", "data_prim"),
            dataset_urls=read.dataset_urls(),
            datasets_url=read.url("DPE_DATASETS_URL", ("postgresql://", "postgres://")),
            data_store=read.optional("DPE_DATA_STORE"),
            data_store_options=read.json_object("DPE_DATA_STORE_OPTIONS"),
            secrets_key=read.optional("DPE_SECRETS_KEY"),
            webhook_tolerance_s=read.seconds("DPE_WEBHOOK_TOLERANCE_S", 300.0),
            token_lifetime_s=read.seconds("DPE_TOKEN_LIFETIME_S", 3600.0),
            max_body_bytes=read.count("DPE_MAX_BODY_BYTES", 10_000_000),
            max_waiting=read.count("DPE_MAX_WAITING", 100_000, least=0),
            max_starts_per_s=read.rate("DPE_MAX_STARTS_PER_S"),
            trusted_proxies=read.networks("DPE_TRUSTED_PROXIES"),
            cors_origins=read.words("DPE_CORS_ORIGINS"),
            max_losses=read.count("DPE_MAX_LOSSES", 5),
            heartbeat_interval_s=read.seconds("DPE_HEARTBEAT_INTERVAL_S", 1.0),
            heartbeat_timeout_s=read.seconds("DPE_HEARTBEAT_TIMEOUT_S", 8.0),
            shutdown_grace_s=read.seconds("DPE_SHUTDOWN_GRACE_S", 5.0),
            keep_jobs_s=read.seconds("DPE_KEEP_JOBS_S", 30 * 86400.0),
            keep_environments_s=read.seconds("DPE_KEEP_ENVIRONMENTS_S", 30 * 86400.0),
            max_jobs_per_child=read.count("DPE_MAX_JOBS_PER_CHILD", 50_000),
            max_child_bytes=read.count("DPE_MAX_CHILD_BYTES", 1_000_000_000),
        )
        if settings.heartbeat_timeout_s < 3 * settings.heartbeat_interval_s:
            raise SettingError(
                "DPE_HEARTBEAT_TIMEOUT_S must be at least three times DPE_HEARTBEAT_INTERVAL_S,"
                f" got {settings.heartbeat_timeout_s} and {settings.heartbeat_interval_s}"
            )
        return settings

    def database(self) -> str:
        """The database's address, for processes that can't do without one."""
        return self._required(self.database_url, "DPE_DATABASE_URL")

    def dataset_url(self, dataset: str) -> str | None:
        """Where a dataset is, if not in the engine's database."""
        return self.dataset_urls.get(dataset.lower(), self.datasets_url)

    def broker(self) -> str:
        """The broker's address, for processes that can't do without one."""
        return self._required(self.broker_url, "DPE_BROKER_URL")

    @staticmethod
    def _required(value: str | None, name: str) -> str:
        if value is None:
            raise SettingError(f'{name} is not set: run `eval "$(dpe env)"`, or use `dpe up`')
        return value


@cache
def current_settings() -> Settings:
    """This process's settings, read at the first call and then kept."""
    return Settings.from_environ()


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def optional(self, name: str) -> str | None:
        return self.environ.get(name) or None

    def text(self, name: str, default: str) -> str:
        return self.environ.get(name) or default

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        value = self.environ.get(name, "")
        if value not in known:
            raise SettingError(f"{name} must be one of {', '.join(filter(None, known))}")
        return value

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        value = self.optional(name)
        if value is not None and not value.startswith(schemes):
            raise SettingError(f"{name} must start with one of {', '.join(schemes)}")
        return value

    def dataset_urls(self) -> dict[str, str]:
        found = {name: re.fullmatch(r"DPE_DATASET_(\w+)_URL", name) for name in self.environ}
        return {
            match[1].lower(): url
            for name, match in found.items()
            if match and (url := self.url(name, ("postgresql://", "postgres://")))
        }

    def count(self, name: str, default: int, least: int = 1) -> int:
        value = self.environ.get(name)
        if not value:
            return default
        if not value.isdecimal() or int(value) < least:
            raise SettingError(f"{name} must be a whole number from {least} up, got {value!r}")
        return int(value)

    def rate(self, name: str) -> float | None:
        value = self.environ.get(name)
        try:
            rate = float(value) if value else None
        except ValueError:
            rate = -1.0
        if rate is not None and not 0 < rate < 1e9:  # noqa: PLR2004
            raise SettingError(f"{name} must be a number a second above 0, got {value!r}")
        return rate

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(self.environ.get(name, "").replace(",", " ").split())

    def networks(self, name: str) -> tuple[str, ...]:
        for network in self.words(name):
            try:
                ip_network(network)
            except ValueError as error:
                raise SettingError(f"{name} must be networks like 10.0.0.0/8: {error}") from None
        return self.words(name)

    def json_object(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self.environ.get(name) or "{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise SettingError(f"{name} must be a JSON object")  # may hold secrets: not shown
        return value

    def port(self, name: str, default: int) -> int:
        value = self.count(name, default)
        if value > 65535:  # noqa: PLR2004
            raise SettingError(f"{name} must be a port from 1 to 65535, got {value}")
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self.environ.get(name)
        if not value:
            return default
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < 1e10:  # noqa: PLR2004
            raise SettingError(f"{name} must be a number of seconds above 0, got {value!r}")
        return seconds


def _reachable(host: str) -> str:
    return socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104
