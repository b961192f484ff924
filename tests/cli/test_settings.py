"""`dpe settings`: what holds, and which level says so."""

import json
from pathlib import Path
from typing import Any

from tests.cli.shell import Shell


def shown(found: list[dict[str, Any]]) -> dict[str, tuple[Any, str]]:
    return {one["name"]: (one["value"], one["level"]) for one in found}


def test_defaults_are_set_shown_and_taken_back(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "main.py").write_text("def customfunc(event): pass\n")
    (folder / "forepaas.json").write_text(json.dumps({"display_name": "Shown", "priority": "low"}))
    id = shell.ok("action", "push", folder, "--json").data["id"]
    try:
        told = shell.ok("settings", "set", "timeout=30m", 'retry={"max_attempts": 2}', "--json")
        assert shown(told.data)["timeout"] == ("30m", "environment")
        assert shown(told.data)["retry"] == ({"max_attempts": 2}, "environment")
        of_action = shown(shell.ok("settings", "show", "--action", "Shown", "--json").data)
        assert (of_action["priority"], of_action["timeout"]) == (
            ("low", "action"),
            ("30m", "environment"),
        )
        flow = tmp_path / "flow.json"
        definition = {"display_name": "F", "stages": [{"actions": [{"action_conf": id}]}]}
        flow.write_text(json.dumps(definition))
        shell.ok("workflow", "push", flow)
        lines = shell.ok("settings", "show", "--workflow", "F").out
        assert "environment" in lines
        assert "built in" in lines
        err = shell.fails("settings", "set", "timeout=never")
        assert "timeout" in err
        assert "NAME=VALUE" in shell.fails("settings", "set", "timeout")
        assert "one of them" in shell.fails("settings", "show", "--action", "a", "--workflow", "b")
    finally:
        shell.ok("workflow", "delete", "F", "--yes")
        shell.ok("action", "delete", id, "--yes")
        left = shell.ok("settings", "unset", "timeout", "retry", "--json").data
    assert {level for _, level in shown(left).values()} == {"built in"}
