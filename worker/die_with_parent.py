"""Processes that have no use without the one that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(
    number: signal.Signals = signal.SIGKILL, parent: int | None = None
) -> Callable[[], None]:
    """What a new process is to call first, so that the kernel signals it when its parent is gone.

    To be made by the parent, before the fork; or with its pid as `parent`.  Only Linux does this;
    elsewhere what is called does nothing.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl, parent = ctypes.CDLL(None).prctl, parent or os.getpid()

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask_the_kernel
