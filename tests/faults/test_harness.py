"""The harness itself, in short: the product withstands each fault, and broken builds are caught."""

from pathlib import Path

import pytest

from tests.faults.faults import FAULTS
from tests.faults.run import Profile, Report, run


def run_quietly(profile: Profile, folder: Path) -> Report:
    """One run, its progress in the test's own output."""
    return run(profile, print, folder / "run")


def test_the_product_withstands_each_fault_once(tmp_path: Path) -> None:
    profile = Profile(seed=1, jobs=500, faults=len(FAULTS), pause_s=0.2, quiet_s=1)
    report = run_quietly(profile, tmp_path)
    assert report.findings == {}, report.texts
    assert set(report.faults) | set(report.not_here) == set(FAULTS)
    assert report.accepted >= 500


def test_every_step_of_every_run_is_done_once_under_faults(tmp_path: Path) -> None:
    profile = Profile(
        seed=2, jobs=120, faults=len(FAULTS), rate=6, pause_s=0.2, quiet_s=1, kind="workflows"
    )
    report = run_quietly(profile, tmp_path)
    assert report.findings == {}, report.texts
    assert {"SUCCESS", "FAILED"} <= set(report.ends)


# The fault that each safeguard is there for; and what the checker says without it.
@pytest.mark.parametrize(
    ("build", "fault", "jobs", "findings"),
    [
        # Some are stopped right before they end: it takes as many to have a few of those.
        ("no_fence", "child frozen", 1000, {"contradiction"}),
        ("status_apart", "child killed between COPY and commit", 400, {"doubled"}),
        ("no_watch", "worker killed", 400, {"lost", "leftover"}),
    ],
)
def test_a_build_without_a_safeguard_is_caught(
    tmp_path: Path, build: str, fault: str, jobs: int, findings: set[str]
) -> None:
    profile = Profile(
        seed=3, jobs=jobs, faults=4, quiet_s=1, settle_s=15, only=[fault], build=build
    )
    report = run_quietly(profile, tmp_path)
    assert findings <= set(report.findings), report.texts
