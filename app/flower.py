"""`dpe flower`: Celery's Flower over the engine's broker.  A window, never the record (F19)."""

import logging
import os
import secrets
import socket

from worker.errors import SettingError
from worker.settings import Settings

logger = logging.getLogger("app.flower")

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104
NICENESS = 5  # who looks on can wait a little, who starts a job should not
MAX_TASKS = 2_000  # kept in memory, 6 KB each; the record of all is in Postgres


def check(settings: Settings) -> None:
    """Raise SettingError where Flower would stand open to others."""
    if settings.flower_host not in LOOPBACK and not _asks(settings):
        raise SettingError(
            f"Flower on {settings.flower_host} needs DPE_FLOWER_BASIC_AUTH=user:password",
            "or DPE_FLOWER_LOGIN=keys; or leave DPE_FLOWER_HOST at 127.0.0.1",
        )
    if settings.flower_basic_auth is not None and ":" not in settings.flower_basic_auth:
        raise SettingError("DPE_FLOWER_BASIC_AUTH must be like user:password")


def _asks(settings: Settings) -> bool:
    return bool(settings.flower_basic_auth or settings.flower_login)


def url(host: str, port: int) -> str:
    """Where a browser finds it."""
    name = socket.gethostname() if host in EVERYWHERE else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def main(settings: Settings) -> None:
    """Run Flower until SIGTERM or SIGINT; its state is saved then, and now and then before.

    Raises SettingError where it would stand open to others.
    """
    check(settings)
    settings.broker()
    settings.home.mkdir(parents=True, exist_ok=True)
    import flower.app  # noqa: PLC0415 -- it, and Celery, are slow to load
    import flower.events  # noqa: PLC0415
    from flower import command  # noqa: PLC0415
    from flower.views.monitor import Metrics  # noqa: PLC0415
    from tornado.web import authenticated  # noqa: PLC0415

    from app import flower_login  # noqa: PLC0415
    from app.flower_catch_up import RecordedFlower  # noqa: PLC0415
    from app.flower_state import JobsEvents, JobsState  # noqa: PLC0415
    from worker.broker import celery  # noqa: PLC0415

    # Under these names Flower finds them, and so does a state that was saved with its own.
    flower.app.Events, flower.events.EventsState = JobsEvents, JobsState
    if settings.database_url is None:
        logger.warning("DPE_DATABASE_URL is not set: ends that no event tells of are not seen")
    else:
        command.Flower = RecordedFlower  # the class that its command makes its application of
    if _asks(settings):
        flower_login.install(settings)
    # The one page but its health that Flower shows to everybody; it names the actions.
    setattr(Metrics, "get", authenticated(Metrics.get))  # noqa: B010 -- for the type checker
    # It only looks on: without the tasks' code it takes half the memory, and starts sooner.
    celery.conf.include = []
    os.nice(NICENESS)
    # Celery's own parser, in this process: what others see of it in `ps` is `dpe flower`.
    celery.start(["--quiet", "flower", *_options(settings)])


def _options(settings: Settings) -> list[str]:
    options = {
        "address": settings.flower_host,
        "port": settings.flower_port,
        "persistent": True,
        "db": settings.home / "flower.db",
        # Saved at its end, and now and then for the ends that come without a warning.
        "state_save_interval": 30_000,  # milliseconds
        "max_tasks": MAX_TASKS,
        "purge_offline_workers": 60,  # seconds
        # Jobs are stopped and retried through the API, which knows who may, and keeps the record.
        "read_only": True,
    }
    if _asks(settings):
        # Flower asks where this is set; what is right is for `flower_login` to say.
        options["basic_auth"] = f"nobody:{secrets.token_hex(24)}"
    return [f"--{name}={value}" for name, value in options.items()]
