"""A limit on the memory that one job takes: beyond it, allocating raises MemoryError.

Linux counts what a process has mapped to write to (RLIMIT_DATA, see setrlimit(2)), in this process
alone: neither another job nor this worker's other children are touched.  Elsewhere no limit holds.
"""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import DpeError

STATUS = Path("/proc/self/status")


class TooMuchMemory(DpeError):
    """A job took more memory than its action may."""


@contextmanager
def limited(most_bytes: int | None) -> Iterator[None]:
    """Let what happens inside take so many bytes more than there are now; None: any number.

    Raises TooMuchMemory in place of a MemoryError.
    """
    if most_bytes is None or not STATUS.exists():
        yield
        return
    found = re.search(r"^VmData:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None  # noqa: S101 -- Linux always says it, see proc_pid_status(5)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(found[1]) * 1024 + most_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
    try:
        yield
    except MemoryError as error:
        raise TooMuchMemory(
            f"the job needs more memory than its {most_bytes / 1e6:,.0f} MB",
            "let it take its rows in pieces, or raise max_memory (dpe settings show --action …)",
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
