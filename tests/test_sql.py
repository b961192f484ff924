"""No value of a caller gets into a statement's text: ruff looks (S608), and exceptions say why."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_ruff_looks_for_values_in_sql() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not [rule for rule in lint["ignore"] if rule.startswith("S6")]
    ignored = {
        path for path, rules in lint["per-file-ignores"].items() if {"S", "S608"} & set(rules)
    }
    assert not [path for path in ignored if path.startswith(("app", "worker"))]


def test_every_exception_says_why() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("app", "worker")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"noqa: .*S608", line) and " -- " not in line.partition("noqa:")[2]
    ]
    assert bare == []
