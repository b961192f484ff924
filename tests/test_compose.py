"""docker-compose.yml and Dockerfile, as far as they can be checked without a Docker engine.

What the file promises is read off it; the commands in it run in test_compose_commands.py.
"""

import re
import subprocess
import sys

import pytest

from app.cli import dpe
from tests.compose import OURS, ROOT, SERVICES, TEXT

SETTINGS = set(re.findall(r'"(DPE_\w+)"', (ROOT / "worker" / "settings.py").read_text()))
PASSWORDS = {f"{name}_PASSWORD" for name in ("POSTGRES", "ENGINE", "DATASETS", "BROKER", "FLOWER")}


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
    assert SERVICES[name]["command"][0] in dpe.commands
    check = SERVICES[name]["healthcheck"].get("test")
    assert check is None or (check[:2] == ["CMD", "dpe"] and check[2] in dpe.commands)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_has_a_health_check_or_ends_by_itself(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check.get("test") or (name == "migrate" and check == {"disable": True})


def test_nothing_but_the_api_can_be_published_outside() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "flower"}
    assert not any("network_mode" in service for service in SERVICES.values())
    (flower,) = published["flower"]
    assert flower.startswith("127.0.0.1:")
    (api,) = published["api"]
    assert api.startswith("${API_BIND:-127.0.0.1}:")


def test_no_secret_has_a_default_or_stands_in_the_file() -> None:
    used = re.findall(r"(?<!\$)\$\{(\w*PASSWORD\w*)([^}]*)\}", TEXT)
    assert {name for name, _ in used} == PASSWORDS
    assert all(rest.startswith(":?") for _, rest in used)
    for name, service in SERVICES.items():
        for key, value in service["environment"].items():
            if "PASSWORD" in key or "AUTH" in key or re.search(r"//[^@]*:[^@]*@", value):
                assert re.search(r"\$\{\w+:\?", value), f"{name}: {key}"


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_is_one_that_the_engine_reads(name: str) -> None:
    assert {"DPE_DATABASE_URL", "DPE_WORKERS"} <= SETTINGS
    assert set(SERVICES[name]["environment"]) <= SETTINGS


def test_no_other_name_looks_like_a_setting() -> None:
    image = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"\bDPE_[A-Z_]+", TEXT + image)) <= SETTINGS


def test_a_role_is_given_the_addresses_that_it_needs_and_no_others() -> None:
    given = {
        name: {key for key in SERVICES[name]["environment"] if key in ADDRESSES} for name in OURS
    }
    both = {"DPE_DATABASE_URL", "DPE_BROKER_URL"}
    assert given == {
        "migrate": {"DPE_ADMIN_URL", "DPE_DATABASE_URL", "DPE_DATASETS_URL"},
        "api": {*both, "DPE_DATASETS_URL"},
        "worker": {*both, "DPE_DATASETS_URL"},
        "flower": both,
    }


ADDRESSES = ("DPE_ADMIN_URL", "DPE_DATABASE_URL", "DPE_DATASETS_URL", "DPE_BROKER_URL")


def test_a_worker_can_be_scaled_and_has_time_to_end() -> None:
    worker = SERVICES["worker"]
    assert not {"container_name", "hostname", "ports"} & set(worker)
    grace_s = float(worker["environment"]["DPE_SHUTDOWN_GRACE_S"])
    assert float(worker["stop_grace_period"].removesuffix("s")) > grace_s + 5


@pytest.mark.parametrize("name", sorted({*SERVICES} - {"postgres"}))
def test_a_container_can_write_nothing_but_its_own_and_gain_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "devices"} & set(service)


def test_data_outlive_their_containers() -> None:
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert SERVICES["broker"]["volumes"] == ["broker:/data"]
    assert SERVICES["flower"]["volumes"] == ["flower:/var/lib/dpe"]
    assert SERVICES["worker"]["volumes"] == ["files:/var/lib/dpe"]


def test_the_servers_start_before_what_needs_them() -> None:
    needs = {name: SERVICES[name]["depends_on"] for name in OURS}
    assert needs["migrate"]["postgres"]["condition"] == "service_healthy"
    for name in ("api", "worker"):
        assert needs[name]["migrate"]["condition"] == "service_completed_successfully"
    # Starts are accepted while the broker is away, at the start of everything as well.
    assert needs["api"]["broker"]["condition"] == "service_started"


def test_the_image_is_not_run_by_root_and_has_a_health_check() -> None:
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    instructions = [line.split()[0] for line in last_stage.splitlines() if line[:1].isupper()]
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT"} <= set(instructions)
    assert re.search(r"^USER dpe$", last_stage, re.M)
    assert "RUN" not in instructions[instructions.index("USER") :]


def test_what_the_image_is_made_of_is_in_its_context() -> None:
    given = (ROOT / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    names = [name for words in copied for name in words.split()]
    assert names
    assert given[0] == "*"  # nothing else gets in: no .env, no data
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in given
