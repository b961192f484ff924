"""`dpe healthy`: whether a role does its work, for the health checks of containers and units."""

import re
import socket

import click

from worker.errors import DpeError
from worker.settings import Settings

ROLES = ("api", "worker", "flower")
TIMEOUT_S = 4.0


@click.command()
@click.argument("role", type=click.Choice(ROLES), required=False)
def healthy(role: str | None) -> None:
    """Exit with 0 where ROLE does its work on this host, with 1 and the reason where not.

    api: it answers, Postgres too, and the tables are there.  worker: one of this host gives signs
    and makes progress while jobs wait.  flower: it answers.  Without ROLE: those that run here.

    \b
    Example:
      dpe healthy worker
    """
    settings = Settings.from_environ()
    asked = [role] if role else _running()
    if not asked:
        raise DpeError("no role runs here", "start one: dpe api, dpe worker, dpe flower")
    for name in asked:
        _CHECKS[name](settings)
        click.echo(f"{name} is healthy")


def _running() -> list[str]:
    import psutil  # noqa: PLC0415 -- the other commands start quicker without it

    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [role for role in ROLES if any(_is_role(line, role) for line in lines)]


def _is_role(words: list[str], role: str) -> bool:
    # As typed (`…/python …/bin/dpe api`), or by its title (`dpe api worker-1`).
    typed = rf"(^|[\[/ ])(dpe|app\.cli) {role}([\] ]|$)"
    return re.search(typed, " ".join(words).strip()) is not None


def _api(settings: Settings) -> None:
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104
    _answers(f"http://{host}:{settings.port}/ready", "api")


def _flower(settings: Settings) -> None:
    host = settings.flower_host
    host = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    _answers(f"http://{host}:{settings.flower_port}/healthcheck", "flower")


def _answers(url: str, role: str) -> None:
    import urllib.request  # noqa: PLC0415 -- the other commands start quicker without it

    try:
        urllib.request.urlopen(url, timeout=TIMEOUT_S).close()  # noqa: S310 -- http, our own
    except OSError as error:
        raise DpeError(f"{role} is not healthy: {url}: {error}") from None


def _worker(settings: Settings) -> None:
    from worker.store import workers  # noqa: PLC0415 -- only this check needs Postgres
    from worker.store.database import connect  # noqa: PLC0415

    with connect(settings.database(), "dpe-healthy") as conn:
        reason = workers.unhealthy(
            conn,
            socket.gethostname(),
            settings.heartbeat_timeout_s,
            progress_possible=_broker_answers(settings),
        )
    if reason:
        raise DpeError(f"worker is not healthy: {reason}")


def _broker_answers(settings: Settings) -> bool:
    from redis import Redis, RedisError  # noqa: PLC0415 -- only this check needs it

    client = Redis.from_url(settings.broker(), socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()


_CHECKS = {"api": _api, "worker": _worker, "flower": _flower}
