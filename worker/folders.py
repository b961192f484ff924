"""Where a worker lays out the files of actions: a folder of its own, gone with it."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import psutil

PREFIX = "dpe-actions-"


def make() -> Path:
    """Make this process' folder, and remove those of workers that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-\w+", left.name)
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)  # another user's stays
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
