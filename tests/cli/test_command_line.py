"""Help, errors, and what `dpe` takes to start."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app.cli import dpe as root
from tests.cli.shell import ROOT, Shell, free_port


def commands(group: click.Group, path: str = "dpe") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


ALL_COMMANDS = dict(commands(root))
LEAVES = {path: c for path, c in ALL_COMMANDS.items() if not isinstance(c, click.Group)}


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_has_help_with_an_example(path: str) -> None:
    text = LEAVES[path].get_help(click.Context(LEAVES[path], info_name=path))
    assert "Example" in text
    assert path in text.partition("Example")[2]


def test_help_is_printed_and_ends_well(tmp_path: Path) -> None:
    assert "dpe up" in Shell(tmp_path).ok("--help").out
    assert "--follow" in Shell(tmp_path).ok("job", "logs", "--help").out


def test_the_reference_has_every_command_and_option() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    for path, command in ALL_COMMANDS.items():
        if path in LEAVES:
            section = text.partition(f"\n### `{path}")[2].partition("\n### ")[0]
            assert section, f"{path} is not in docs/reference/cli.md"
            for option in command.params:
                if isinstance(option, click.Option):
                    assert option.opts[0] in section, f"{path} {option.opts[0]}"


def test_starting_the_command_loads_nothing_heavy() -> None:
    heavy = {"flask", "celery", "pandas", "psycopg", "redis", "rich", "orjson", "http.client"}
    code = "import sys, app.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_without_a_stack_the_error_says_what_to_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    nobody = {"DPE_URL": f"http://127.0.0.1:{free_port()}"}
    assert "run `dpe up`" in shell.fails("job", "list")
    assert "run `dpe up`" in shell.fails("env")
    key = {"DPE_APIKEY": "a" * 48, "DPE_SECRETKEY": "b" * 64}
    told = shell.fails("job", "list", **nobody, **key)
    assert "refused" in told
    assert "run `dpe up`" in told
    assert shell.ok("ps", "--json").data == []


def test_a_wrong_word_is_a_usage_error(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert "see `dpe --help`" in shell.fails("nonsense", code=2)
    assert "see `dpe job list --help`" in shell.fails("job", "list", "--limit", "many", code=2)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    assert "DPE_PORT" in Shell(tmp_path).fails("job", "list", DPE_PORT="http")
    assert "DPE_URL" in Shell(tmp_path).fails(
        "token", DPE_URL="ftp://x", DPE_APIKEY="a", DPE_SECRETKEY="b"
    )


def test_credentials_left_by_the_stack_are_not_sent_to_another_server(shell: Shell) -> None:
    # Nobody listens there: the command must stop before it calls at all.
    told = shell.fails("token", DPE_URL=f"http://127.0.0.1:{free_port()}")
    assert "DPE_APIKEY and DPE_SECRETKEY are not set" in told
