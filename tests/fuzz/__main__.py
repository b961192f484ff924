"""`make fuzz`: generated requests until there were enough of them, each round with its own seed."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.requests import fuzz
from tests.up import Up

EXAMPLES = 100  # a round, of each kind and route


def main() -> int:
    """1 where an answer was not as described."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="stop after so many")
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    began, sent, seed = time.monotonic(), 0, words.seed
    with tempfile.TemporaryDirectory(prefix="dpe-fuzz-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        up = Up(home / "stack", "--no-flower", DPE_WORKERS="2").wait_until_up()
        try:
            while sent < words.requests:
                found = fuzz(up, home, EXAMPLES, seed)
                sent += found.requests
                print(f"seed {seed}: {found.requests} requests, {sent} in all,"
                      f" {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
                if found.failed or not found.requests:
                    print(found.said)
                    return 1
                seed += 2
        finally:
            up.end()
    print(f"{sent} requests, each answered as described; none by a 5xx")
    return 0


if __name__ == "__main__":
    sys.exit(main())
