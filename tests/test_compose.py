"""docker-compose.yml and Dockerfile, as far as they can be checked without a Docker engine.

The commands in them are the ones that the other tests run as processes.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import dpe
from worker.settings import Settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {"migrate", "api", "worker", "flower"}


def test_the_file_fits_the_compose_specification() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
         str(ROOT / "docker-compose.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_services_are_those_of_the_readme() -> None:
    assert set(SERVICES) == OURS | {"postgres", "broker"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_run_commands_that_there_are(name: str) -> None:
    for command in (SERVICES[name]["command"], _check_of(name)):
        if command:
            assert command[0] in dpe.commands


def _check_of(name: str) -> list[str]:
    test = SERVICES[name].get("healthcheck", {}).get("test", [])
    assert not test or test[:2] == ["CMD", "dpe"]
    return test[2:]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_has_a_health_check_or_ends_by_itself(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check.get("test") or (name == "migrate" and check == {"disable": True})


def test_nothing_but_the_api_can_be_published_outside() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert {name for name, ports in published.items() if ports} == {"api", "flower"}
    (flower,) = published["flower"]
    assert flower.startswith("127.0.0.1:")
    (api,) = published["api"]
    assert api.startswith("${DPE_BIND:-127.0.0.1}:")


def test_no_secret_has_a_default() -> None:
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*)([^}]*)\}", TEXT)
    assert {name for name, _ in secrets} == {
        "POSTGRES_PASSWORD",
        "BROKER_PASSWORD",
        "FLOWER_PASSWORD",
    }
    assert all(rest.startswith(":?") for _, rest in secrets)


def test_every_setting_is_one_that_the_engine_reads() -> None:
    source = (ROOT / "worker" / "settings.py").read_text()
    known = set(re.findall(r'"(DPE_\w+)"', source))
    assert Settings.__slots__
    for name in OURS:
        given = SERVICES[name].get("environment", {})
        assert set(given) <= known, name


def test_a_worker_can_be_scaled_and_has_time_to_end() -> None:
    worker = SERVICES["worker"]
    assert not {"container_name", "hostname", "ports"} & set(worker)
    grace_s = float(worker["environment"]["DPE_SHUTDOWN_GRACE_S"])
    assert float(worker["stop_grace_period"].removesuffix("s")) > grace_s + 5


def test_data_outlive_their_containers() -> None:
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert SERVICES["broker"]["volumes"] == ["broker:/data"]
    assert "--appendonly yes --maxmemory-policy noeviction" in SERVICES["broker"]["command"][-1]


def test_the_image_is_not_run_by_root_and_has_a_health_check() -> None:
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    instructions = [line.split()[0] for line in last_stage.splitlines() if line[:1].isupper()]
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT"} <= set(instructions)
    assert re.search(r"^USER dpe$", last_stage, re.M)
