"""`dpe action test` as it is typed."""

import json
from pathlib import Path

import pytest

from tests.cli.shell import Shell

MAIN = """
from forepaas.dwh import bulk_insert, connect

print("module level")

def handle(event):
    bulk_insert(connect("dwh/data_prim/"), "tested", event.content)
    if any(row["n"] < 0 for row in event.content):
        raise ValueError("below zero")
"""


@pytest.fixture
def tested(shell: Shell, tmp_path: Path) -> Path:
    attributes = [{"name": "id", "type": "Number"}, {"name": "n", "type": "Number"}]
    table = {"dataset": "data_prim", "name": "tested", "primary_key": ["id"]}
    table["attributes"] = attributes
    (tmp_path / "tested.json").write_text(json.dumps(table))
    shell.ok("table", "build", tmp_path / "tested.json")
    folder = tmp_path / "action"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    config = {"function_name": "handle", "display_name": "Tested"}
    (folder / "forepaas.json").write_text(json.dumps(config))
    return folder


def test_rows_are_shown_and_not_written(shell: Shell, tested: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text('[{"id": 1, "n": 0.10}, {"id": 2, "n": 12345678901234567890}]')
    shown = shell.ok("action", "test", tested, "--event", rows)
    assert "data_prim.tested: 2 inserted, 0 updated, 0 deleted" in shown.out
    assert "12345678901234567890" in shown.out
    assert "module level" in shown.out
    assert '"Tested" END (custom) action.' in shown.out
    outcome = shell.ok("action", "test", tested, "--event", "-", "--json", stdin="[]").data
    assert (outcome["status"], outcome["tables"]) == ("SUCCESS", [])
    assert shell.ok("table", "head", "data_prim.tested", "--json").data == []
    assert "Tested" not in shell.ok("action", "list").out


def test_a_failure_ends_with_1_and_says_why(shell: Shell, tested: Path) -> None:
    ended = shell.run("action", "test", tested, "--event", "-", stdin='[{"id": 1, "n": -1}]')
    assert ended.code == 1
    assert "ValueError: below zero" in ended.out
    assert 'raise ValueError("below zero")' in ended.out


def test_what_can_t_be_tested_is_refused(shell: Shell, tested: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[1,")
    assert "not JSON" in shell.fails("action", "test", tested, "--event", tmp_path / "rows.json")
    assert "has no main.py" in shell.fails("action", "test", tmp_path)
    assert "dpe up" in Shell(tmp_path / "nowhere").fails("action", "test", tested)
    gone = {"DPE_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    assert "does not answer" in shell.fails("action", "test", tested, **gone)


@pytest.mark.slow
@pytest.mark.usefixtures("package_index")
def test_packages_that_it_asks_for_are_there(shell: Shell, tested: Path) -> None:
    main = "import pandas\ndef handle(event):\n    return pandas.__version__\n"
    (tested / "main.py").write_text(main)
    config = {"function_name": "handle", "dependencies": {"python": {"pandas<3": None}}}
    (tested / "forepaas.json").write_text(json.dumps(config))
    outcome = shell.ok("action", "test", tested, "--json").data
    assert outcome["result"].startswith("2.")
    config["dependencies"]["python"] = {"psycopg==3.1": None}
    (tested / "forepaas.json").write_text(json.dumps(config))
    assert "psycopg" in shell.fails("action", "test", tested)
