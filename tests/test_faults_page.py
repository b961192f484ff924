"""docs/faults.md: every row has a test that there is, or a reason why not."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| F(\d+) \|.*\| (.*?) \|$", (ROOT / "docs" / "faults.md").read_text(), re.M)
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
}


def test_every_known_failure_has_its_row() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 24))


def test_every_test_of_a_row_is_there() -> None:
    for number, shown in ROWS:
        named = set(re.findall(r"`(test_\w+)`", shown))
        assert named or number == "12", f"F{number} has no test"
        assert named <= TESTS, f"F{number}: {named - TESTS}"


def test_every_numbered_test_stands_in_a_row() -> None:
    shown = " ".join(text for _, text in ROWS)
    assert {name for name in TESTS if re.match(r"test_f\d\d_", name)} <= set(
        re.findall(r"test_\w+", shown)
    )
