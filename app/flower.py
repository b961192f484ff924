"""`dpe flower`: Celery's Flower over the engine's broker.  A window, never the record (F19)."""

import os
import sys

from worker.errors import SettingError
from worker.settings import Settings

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
MAX_TASKS = 10_000  # kept in memory; the record of all is in Postgres


def main(settings: Settings) -> None:
    """Become Flower.  Raises SettingError where it would stand open to others."""
    settings.broker()
    if settings.flower_host not in LOOPBACK and not settings.flower_basic_auth:
        raise SettingError(
            f"Flower on {settings.flower_host} needs DPE_FLOWER_BASIC_AUTH=user:password",
            "or leave DPE_FLOWER_HOST at 127.0.0.1",
        )
    settings.home.mkdir(parents=True, exist_ok=True)
    options = {
        "address": settings.flower_host,
        "port": str(settings.flower_port),
        "persistent": "true",
        "db": str(settings.home / "flower.db"),
        # Saved at its end, and now and then for the ends that come without a warning.
        "state_save_interval": "10000",  # milliseconds
        "max_tasks": str(MAX_TASKS),
        "purge_offline_workers": "60",  # seconds
        # Jobs are stopped and retried through the API, which knows who may.
        "read_only": "true",
    }
    environ = os.environ | {f"FLOWER_{name.upper()}": value for name, value in options.items()}
    if settings.flower_basic_auth:
        environ["FLOWER_BASIC_AUTH"] = settings.flower_basic_auth  # not in `ps`, as an option were
    command = [sys.executable, "-m", "celery", "-A", "worker.broker:celery", "-q", "flower"]
    os.execve(sys.executable, command, environ)  # noqa: S606 -- no shell
