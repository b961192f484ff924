"""`dpe action versions`, `diff`, `rollback`: what changed, and the way back."""

from pathlib import Path

from tests.cli.shell import Shell

ID = "d1ffd1ffd1ffd1ffd1ffd1ff"


def push(shell: Shell, folder: Path, main: str, **files: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "forepaas.json").write_text('{"display_name": "Versions"}')
    (folder / "main.py").write_text(main)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    shell.ok("action", "push", folder, "--id", ID)


def test_versions_are_compared_and_gone_back_to(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "versions"
    push(shell, folder, "def customfunc(event):\n    return 1\n")
    assert "nothing before it" in shell.fails("action", "diff", ID)
    push(shell, folder, "def customfunc(event):\n    return 2\n", data=b"\xff\x00")

    changes = shell.ok("action", "diff", ID).out
    assert "--- a/main.py" in changes
    assert "-    return 1\n+    return 2\n" in changes
    assert "binary files /dev/null and b/data differ" in changes
    assert shell.ok("action", "diff", ID, "2", "2").out == ""
    assert list(shell.ok("action", "diff", ID, "2", "1", "--json").data) == ["data", "main.py"]
    (folder / "main.py").write_text("def customfunc(event):\n    return 3\n")
    assert "+    return 3" in shell.ok("action", "diff", ID, folder).out

    assert "runs version 1" in shell.ok("action", "rollback", ID).out
    assert shell.ok("start", "action", ID, "--wait", "--json").data["result"] == 1
    stars = [v["current"] for v in shell.ok("action", "versions", ID, "--json").data]
    assert stars == [False, True]
    assert "*" in shell.ok("action", "versions", ID).out
    shell.ok("action", "rollback", ID, "--to", "2")
    assert shell.ok("start", "action", ID, "--wait", "--json").data["result"] == 2
    shell.ok("action", "pull", ID, tmp_path / "old", "--version", "1")
    assert "return 1" in (tmp_path / "old" / "main.py").read_text()
    assert not (tmp_path / "old" / "data").exists()
    assert "not found" in shell.fails("action", "rollback", ID, "--to", "7")
