"""docs/reference/compatibility.md: every line names tests, and all of them are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "compatibility.md").read_text()
ROWS = re.findall(r"^\| (?!what holds|---)(.*) \| (.*?) \|$", PAGE, re.M)
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
}


def test_every_line_names_tests_that_are_there() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(ROWS) == len(lines) - 1 > 30
    for what, shown in ROWS:
        named = re.findall(r"`(test_\w+)`", shown)
        assert named, f"{what}: no test"
        assert set(named) <= TESTS, f"{what}: {set(named) - TESTS}"
