"""Tables are built and actions pushed from the files that describe them."""

from pathlib import Path

from tests.cli.conftest import ACTION, MAIN
from tests.cli.shell import ROOT, Shell


def test_a_described_table_is_built(shell: Shell, tmp_path: Path) -> None:
    file = ROOT / "examples" / "tables" / "event_archive.json"
    assert "built data_prim.event_archive: created" in shell.ok("table", "build", file).out
    assert "nothing had to change" in shell.ok("table", "build", file).out
    built = shell.ok("table", "build", file, "--json").data
    assert (built["dataset"], built["name"]) == ("data_prim", "event_archive")
    assert "event_archive" in [t["name"] for t in shell.ok("table", "list", "--json").data]
    assert shell.ok("table", "list", "--dataset", "elsewhere", "--json").data == []
    assert "order_id Number" in shell.ok("table", "list").out

    broken = tmp_path / "broken.json"
    broken.write_text('{"dataset": ')
    assert "broken.json is not JSON" in shell.fails("table", "build", broken)
    assert "No such file" in shell.fails("table", "build", tmp_path / "missing.json")
    broken.write_text(
        '{"dataset": "data_prim", "name": "x", "attributes": [{"name": "a", "type": "Nr"}]}'
    )
    assert "Nr" in shell.fails("table", "build", broken)


def test_push_and_pull_carry_a_folder_both_ways(shell: Shell, folder: Path, tmp_path: Path) -> None:
    pushed = shell.ok("action", "push", folder, "--id", ACTION, "--json").data
    assert (pushed["id"], pushed["name"]) == (ACTION, "Greeter")
    again = shell.ok("action", "push", folder, "--id", ACTION, "--json").data
    assert again["version"] == pushed["version"]

    shell.ok("action", "pull", ACTION, tmp_path / "copy")
    copied = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*.*")}
    assert copied == {"main.py", "forepaas.json", "lib/words.py"}
    assert (tmp_path / "copy" / "main.py").read_text() == MAIN
    assert "--force" in shell.fails("action", "pull", ACTION, tmp_path / "copy")
    shell.ok("action", "pull", ACTION, tmp_path / "copy", "--force")

    shown = shell.ok("action", "show", ACTION, "--json").data
    assert (shown["_id"], shown["name"]) == (ACTION, "Greeter")
    assert ACTION in shell.ok("action", "list").out
    assert ACTION in [a["id"] for a in shell.ok("action", "list", "--json").data]


def test_push_without_an_id_takes_the_action_of_that_name(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def customfunc(event): ...\n")
    (tmp_path / "forepaas.json").write_text('{"display_name": "By its name"}')
    first = shell.ok("action", "push", tmp_path, "--json").data
    (tmp_path / "main.py").write_text("def customfunc(event): return 1\n")
    second = shell.ok("action", "push", tmp_path, "--json")
    assert second.data["id"] == first["id"]
    assert second.data["version"] == first["version"] + 1
    assert first["id"] in second.err

    shell.ok("action", "delete", first["id"])
    assert first["id"] in shell.fails("action", "show", first["id"])


def test_a_folder_that_is_no_action_is_refused_by_name(shell: Shell, tmp_path: Path) -> None:
    assert "is not a folder" in shell.fails("action", "push", tmp_path / "nothing")
    assert "has no main.py" in shell.fails("action", "push", tmp_path)
    (tmp_path / "main.py").write_text("")
    assert "has no forepaas.json" in shell.fails("action", "push", tmp_path)
    (tmp_path / "forepaas.json").write_text("{")
    assert "forepaas.json" in shell.fails("action", "push", tmp_path)
    (tmp_path / "forepaas.json").write_text("{}")
    assert "24 hex" in shell.fails("action", "push", tmp_path, "--id", "short")
