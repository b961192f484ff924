#!/usr/bin/env python3
"""Look up known weaknesses of the pinned packages.

Ends with 1 where there are some.  Where nobody can be asked, as without a network, it says that it
was skipped, and ends with 0: pip-audit alone would say that it found none.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parents[1] / "constraints.txt"
OPTIONS = ("--no-deps", "--disable-pip", "--timeout=10", "--progress-spinner=off", "--format=json")


def ask(pins: Path) -> list[dict[str, Any]]:
    """What is told of each package; nothing where nobody answers."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        command = [sys.executable, "-m", "pip_audit", f"--requirement={pins}", f"--output={told}"]
        subprocess.run([*command, *OPTIONS], check=False, capture_output=True)  # noqa: S603
        return json.loads(told.read_text())["dependencies"] if told.exists() else []


def main(pins: Path) -> int:
    """Print what is known; 1 where a package is weak."""
    answered = [package for package in ask(pins) if "vulns" in package]
    weak = [package for package in answered if package["vulns"]]
    for package in weak:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
    count = sum("==" in line for line in pins.read_text().splitlines())
    if not answered:
        print("audit: skipped, nobody answers what is known of the packages (no network?)")
    else:
        print(f"audit: {len(answered)} of {count} packages looked up, {len(weak)} of them weak")
    return 1 if weak else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else PINS))
