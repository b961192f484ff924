"""What `dpe up` writes down for others in DPE_HOME/stack.json: its environment, its processes.

Apart from `app.stack`, since every client command reads it and none should load the servers.
"""

import json
from pathlib import Path
from typing import Any

from worker.errors import DpeError


def environment(home: Path) -> dict[str, str]:
    """The DPE_* variables of the stack under `home`; empty where none has run."""
    return _read(home).get("environment", {})


def processes(home: Path) -> list[dict[str, Any]]:
    """What `dpe up` started last under `home`: role, pid, since (ISO 8601, UTC).

    Some may have ended since: a killed `dpe up` takes nothing back.
    """
    return _read(home).get("processes", [])


def _read(home: Path) -> dict[str, Any]:
    path = home / "stack.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DpeError(f"{path} is damaged: {error}", "run `dpe up`, which writes it") from error
