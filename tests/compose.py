"""docker-compose.yml as Docker would read it: services, and values from the environment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {"migrate", "api", "worker", "flower"}


def fill(text: str, environ: Mapping[str, str]) -> str:
    """Put in `${NAME:-default}`, `${NAME:?message}` and `$$`; KeyError: a required one is missing.

    https://docs.docker.com/reference/compose-file/interpolation/
    """

    def value(found: re.Match[str]) -> str:
        name, how, rest = found.group("name", "how", "rest")
        if name is None:
            return "$"
        given = environ.get(name)
        if not given and how != ":-":
            raise KeyError(f"{name}: {rest}")
        return given or rest

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?P<how>:[-?])(?P<rest>[^}]*)\}", value, text)


def environment(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a container of this service is given."""
    given = SERVICES[service]["environment"]
    return {name: fill(value, environ) for name, value in given.items()}
