"""`dpe export` and `dpe import`, as they are typed."""

from pathlib import Path

from tests.cli.shell import Shell


def test_a_configuration_is_taken_along_and_brought_back(
    shell: Shell, greeter: str, tmp_path: Path
) -> None:
    shell.ok("trigger", "add", "moved", "--cron", "0 0 1 1 *", "--action", greeter)
    file = tmp_path / "configuration.tgz"
    shell.ok("export", file)
    assert "--force" in shell.fails("export", file)
    assert shell.ok("import", file, "--json").data == {"dry_run": False, "changes": []}
    assert "0 changes made" in shell.ok("import", file).err

    shell.ok("trigger", "rm", "moved")
    dry = shell.ok("import", file, "--dry-run")
    assert dry.out == "new      trigger   moved\n"
    assert "1 change would be made" in dry.err
    assert "not found" in shell.fails("trigger", "show", "moved")
    shell.ok("import", file)
    assert shell.ok("trigger", "show", "moved", "--json").data["action"] == greeter
    shell.ok("trigger", "rm", "moved")

    file.write_bytes(b"no archive")
    assert "no tgz" in shell.fails("import", file)
    assert "No such file" in shell.fails("import", tmp_path / "nothing.tgz")
