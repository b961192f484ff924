"""`dpe environment`: what was installed on this machine, for which actions."""

import json
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.packages import slow_package


@pytest.mark.slow
def test_environments_are_listed_with_the_actions_that_ask_for_them_and_removed(
    shell: Shell, tmp_path: Path
) -> None:
    package, folder = tmp_path / "package", tmp_path / "action"
    asked = slow_package(package)
    (package / "go").touch()
    folder.mkdir()
    config = {"display_name": "Asks", "function_name": "handle"}
    config |= {"dependencies": {"python": {asked: None}}}
    (folder / "forepaas.json").write_text(json.dumps(config))
    (folder / "main.py").write_text("import slow\ndef handle(event): return slow.READY")
    id = shell.ok("action", "push", folder, "--json").data["id"]
    for left in shell.ok("environment", "list", "--json").data:  # of tests before, in this home
        shell.ok("environment", "remove", left["name"])
    assert shell.ok("environment", "list", "--json").data == []
    started = shell.ok("start", "action", id, "--wait", "--json").data
    assert started["result"] is True

    (found,) = shell.ok("environment", "list", "--json").data
    assert found["requirements"] == [asked]
    assert found["actions"] == [{"id": id, "name": "Asks"}]
    assert found["bytes"] > 1000
    shown = shell.ok("environment", "list").out
    assert "Asks" in shown
    assert asked in shown
    alone = shell.ok("environment", "list", DPE_URL="http://127.0.0.1:9", DPE_APIKEY="a")
    assert "?" in alone.out
    assert "is not known" in alone.err

    assert found["name"] in shell.ok("environment", "remove", found["name"]).out
    assert "not found" in shell.fails("environment", "remove", found["name"])
    assert shell.ok("environment", "list", "--json").data == []
