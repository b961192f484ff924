"""`dpe workflow …`, and a run of one under `dpe job …`."""

import json
from pathlib import Path

import pytest

from tests.cli.shell import Shell


@pytest.fixture
def file(tmp_path: Path, greeter: str) -> Path:
    """One step for each person of the event, then one; all of them greet the whole event."""
    stages = [
        {"stageName": "Each", "actions": [{"action_conf": greeter, "name": "each",
                                           "for_each": "event.content"}]},
        {"stageName": "Then", "actions": [{"action_conf": "Greeter", "name": "then"}]},
    ]  # fmt: skip
    path = tmp_path / "flow.json"
    path.write_text(json.dumps({"display_name": "Greetings", "stages": stages}))
    return path


def test_push_list_show_delete(shell: Shell, file: Path) -> None:
    first = shell.ok("workflow", "push", file, "--json").data
    assert shell.ok("workflow", "push", file).err.startswith('workflow "Greetings" is known')
    listed = shell.ok("workflow", "list").out.splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["ID", "NAME", "VERSION", "STAGES"],
        [first["id"], "Greetings", "1", "2"],
    ]
    definition = shell.ok("workflow", "show", "Greetings", "--json").data
    assert definition == json.loads(file.read_text())
    other = shell.ok("workflow", "push", file, "--id", "a" * 24, "--json").data
    assert (other["id"], other["version"]) == ("a" * 24, 1)
    assert "2 workflows are called 'Greetings'" in shell.fails("workflow", "push", file)
    for id in (first["id"], "a" * 24):
        assert shell.ok("workflow", "delete", id).out == f"deleted {id} (Greetings)\n"
    assert "no workflows yet" in shell.ok("workflow", "list").err


def test_what_is_wrong_in_a_file_is_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text("{")
    assert f"{path} is not JSON: " in shell.fails("workflow", "push", path)
    path.write_text('{"stages": [{"actions": [{"action_conf": "nothing"}]}]}')
    assert "dpe: /stages/0/actions/0/action_conf: there is no action 'nothing'" in shell.fails(
        "workflow", "push", path
    )


def test_a_run_is_started_followed_and_tried_again(shell: Shell, file: Path) -> None:
    id = shell.ok("workflow", "push", file, "--json").data["id"]
    words = ("workflow", "start", "Greetings", "--wait", "--data")
    ended = shell.ok(*words, '[{"who": "Ada"}, {"who": "Bo"}]')
    assert [line.split()[-1] for line in ended.err.splitlines()][-1] == "SUCCESS"
    assert [line.split()[:3] for line in ended.out.splitlines()[-4:]] == [
        ["STAGE", "STEP", "STATUS"],
        ["Each", "each", "SUCCESS"],
        ["Each", "each", "SUCCESS"],
        ["Then", "then", "SUCCESS"],
    ]
    failed = shell.run(*words, '[{"who": "nobody"}]')
    assert failed.code == 1
    assert "2 of 2 steps failed: each FAILED: nobody is there" in failed.err
    run = failed.out.split()[1]
    log = shell.ok("job", "logs", run).out
    assert '"Greetings" BEGIN workflow' in log
    assert '"Each" BEGIN stage 1/2 with 1 task(s)' in log
    assert '"Then" END stage 2/2' in log
    again = shell.run("job", "retry", run, "--wait", "--json")
    assert (again.code, again.data["retry_of"]) == (1, run)
    shell.ok("workflow", "delete", id)
