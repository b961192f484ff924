"""A dataset's dialect, set on the command line, is what its handlers' SQL is read as."""

import json
from pathlib import Path

from tests.cli.shell import Shell

MAIN = """
from forepaas.dwh import connect
def customfunc(event):
    data = connect("dwh/data_trino/")
    data.query("INSERT INTO t VALUES DATE '2024-03-01'")
    return int(data.query("SELECT date_diff('day', DATE '2024-01-01', Day) FROM t").iloc[0, 0])
"""


def test_a_handler_speaks_trino(shell: Shell, tmp_path: Path) -> None:
    table = {"dataset": "data_trino", "name": "t", "attributes": [{"name": "day", "type": "Date"}]}
    (tmp_path / "t.json").write_text(json.dumps(table))
    shell.ok("table", "build", tmp_path / "t.json")
    assert shell.ok("dataset", "set", "data_trino", "--dialect", "trino").out == (
        "data_trino takes trino\n"
    )
    assert "data_trino" in shell.ok("dataset", "list").out
    listed = {d["name"]: d for d in shell.ok("dataset", "list", "--json").data}
    assert listed["data_trino"] == {"name": "data_trino", "dialect": "trino", "tables": 1}
    assert "mysql" in shell.fails("dataset", "set", "x", "--dialect", "mysql", code=2)

    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    (folder / "forepaas.json").write_text("{}")
    action = shell.ok("action", "push", folder, "--json").data["id"]
    job = shell.ok("start", "action", action, "--wait", "--json").data
    assert (job["status"], job["result"]) == ("SUCCESS", 60)
    shell.ok("table", "drop", "data_trino.t", "--allow-data-loss")
