"""A few generated requests of each kind to each route; `make fuzz` sends as many as you like."""

from pathlib import Path

from tests.fuzz.requests import fuzz
from tests.up import Up


def test_generated_requests_are_answered_as_described(tmp_path: Path) -> None:
    up = Up(tmp_path / "stack", "--no-flower").wait_until_up()
    try:
        found = fuzz(up, tmp_path, examples=5, seed=1)
    finally:
        up.end()
    assert not found.failed, found.said
    assert found.requests > 300
