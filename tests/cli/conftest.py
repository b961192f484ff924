"""One stack for all tests of the command line, and an action to work with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.shell import Shell, end_stack, start_stack

ACTION = "c11c11c11c11c11c11c11c11"
MAIN = """
import logging
import time
from lib.words import GREETING

logger = logging.getLogger(__name__)

def handle(event):
    for row in event.content or []:
        logger.info("%s %s", GREETING, row["who"])
        if row["who"] == "nobody":
            raise ValueError("nobody is there")
        time.sleep(row.get("seconds", 0))
    return {"greeted": len(event.content or [])}
"""


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell beside a `dpe up` that runs."""
    shell = Shell(tmp_path_factory.mktemp("home"))
    up, _ = start_stack(shell, "--no-flower", "--workers", "2")
    yield shell
    end_stack(up)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An action of two modules, and what lies around in such folders."""
    folder = tmp_path_factory.mktemp("greeter")
    (folder / "main.py").write_text(MAIN)
    config = {"display_name": "Greeter", "function_name": "handle", "my_own_key": [1, 2]}
    (folder / "forepaas.json").write_text(json.dumps(config))
    (folder / "lib").mkdir()
    (folder / "lib" / "words.py").write_text('GREETING = "good day,"\n')
    (folder / "lib" / "__pycache__").mkdir()
    (folder / "lib" / "__pycache__" / "words.cpython-311.pyc").write_bytes(b"\0")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / ".env").write_text("PASSWORD=secret\n")
    return folder


@pytest.fixture
def greeter(shell: Shell, folder: Path) -> str:
    """The id of the action, pushed."""
    shell.ok("action", "push", folder, "--id", ACTION)
    return ACTION
