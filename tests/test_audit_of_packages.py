"""`make audit` says what it knows: that it asked nobody is no good news."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_without_a_network_it_says_that_it_was_skipped(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("jinja2==2.4.1\n")
    nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy"), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "audit.py"), str(pins)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | nowhere | {"NO_PROXY": "", "no_proxy": "", "HOME": str(tmp_path)},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("audit: skipped")


def test_ci_runs_it() -> None:
    assert "make audit" in (ROOT / ".ci" / "run").read_text().splitlines()
    assert ".ci/audit.py" in (ROOT / "Makefile").read_text()
