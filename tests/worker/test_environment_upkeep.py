"""Environments that nobody uses make room; those that are used, or being made, stay."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages import slow_package
from tests.stack import Engine, until
from worker import environment_upkeep, environments
from worker.errors import Conflict, NotFound
from worker.settings import current_settings

NAP = """
import pathlib, time
def handle(event):
    print("asleep")
    while not pathlib.Path(event.content).exists():
        time.sleep(0.05)
    import slow
    return slow.READY
"""
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A home without environments; its workers are given it as well."""
    monkeypatch.setenv("DPE_HOME", str(tmp_path_factory.mktemp("home")))
    current_settings.cache_clear()
    yield
    monkeypatch.undo()
    current_settings.cache_clear()


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A package that is built when `go` is beside it."""
    return slow_package(tmp_path)


def age(requirements: tuple[str, ...]) -> None:
    """Let nobody have used an environment for two months."""
    ago = time.time() - 60 * 86400
    os.utime(environments.lock_of(environments.place(requirements)), (ago, ago))


def test_what_runs_stays_and_what_nobody_uses_goes(
    engine: Engine, package: str, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    asked = (package,)
    action = engine.push(NAP, config={"dependencies": {"python": {package: None}}})
    engine.worker(1)
    wake = tmp_path / "wake"
    job = engine.start(action, str(wake))
    until(lambda: "asleep" in str(engine.log(job)), 60)
    (there,) = environment_upkeep.environments_here()
    assert there.in_use
    assert there.requirements == list(asked)
    age(asked)
    environment_upkeep.sweep()
    with pytest.raises(Conflict, match="in use"):
        environment_upkeep.remove(there.name)
    wake.touch()
    assert engine.ended(job).result is True

    until(lambda: not environment_upkeep.environments_here()[0].in_use)
    age(asked)
    assert there.bytes > 1000
    environment_upkeep.sweep()
    assert environment_upkeep.environments_here() == []
    left = [path for path in environments.folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) == 0  # no downloads either
    # The process that ran the first job is still there, its files are not: it is made anew.
    assert engine.ended(engine.start(action, str(wake)), 60).result is True
    environment_upkeep.remove(environment_upkeep.environments_here()[0].name)
    with pytest.raises(NotFound):
        environment_upkeep.remove(there.name)


def test_what_was_used_lately_stays(package: str, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with environments.used((package,)):
        pass
    environment_upkeep.sweep()
    (there,) = environment_upkeep.environments_here()
    assert there.requirements == [package]


def test_what_a_killed_build_left_goes_and_what_is_being_made_stays(
    engine: Engine, package: str, tmp_path: Path
) -> None:
    action = engine.push(NAP, config={"dependencies": {"python": {package: None}}})
    worker = engine.worker(1)
    job = engine.start(action, str(tmp_path))
    until(drafts, 60)
    environment_upkeep.sweep()
    (left,) = drafts()  # it is being made
    os.kill(worker.children()[0].pid, signal.SIGKILL)
    until(lambda: engine.job(job).attempt == 2 and [one for one in drafts() if one != left], 60)
    assert left not in drafts()
    (tmp_path / "go").touch()
    assert engine.ended(job, 60).result is True
    assert drafts() == []


def test_who_waits_for_an_environment_that_is_removed_makes_it_anew(
    package: str, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    place = environments.place((package,))
    place.parent.mkdir(parents=True)
    with environments.lock_of(place).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    with environments.used((package,)):
        assert place.exists()
    assert environment_upkeep.remove(place.name) > 1000
    with environments.used((package,)):
        assert place.exists()


def drafts() -> list[Path]:
    return list(environments.folder().glob("draft-*"))
