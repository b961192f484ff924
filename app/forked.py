"""A process forked off this one: what is loaded here is shared with it, and needs no loading there.

Python's own modules and the libraries of one role take 20 to 40 MB, and half a second to load.
"""

import atexit
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from setproctitle import setproctitle

from app.child import POLL_S
from worker.die_with_parent import die_with_parent
from worker.settings import current_settings

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Forked:
    """A forked process, to be handled like a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or minus its signal's number; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, where it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def fork(
    run: Callable[[], None],
    title: str,
    environ: Mapping[str, str],
    log: int,
    when_orphaned: signal.Signals,
) -> Forked:
    """Run `run` in a process of its own, named `title` in lists of processes.

    It has a group of its own, `environ` for its environment, `log` (a file descriptor) for what it
    prints, and gets `when_orphaned` when we are gone.  To be called from the only thread.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ask_the_kernel = die_with_parent(when_orphaned)
    gc.collect()
    gc.freeze()  # a collection there would write into every page that is shared
    pid = os.fork()
    if not pid:
        _become(run, title, environ, log, ask_the_kernel)
    return Forked(pid)


def _become(
    run: Callable[[], None],
    title: str,
    environ: Mapping[str, str],
    log: int,
    ask_the_kernel: Callable[[], None],
) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        ask_the_kernel()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Our lock on the folder among them, which would outlive us otherwise.
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        setproctitle(title)  # it finds its place beside the variables that we came with
        os.environ.clear()
        os.environ.update(environ)
        current_settings.cache_clear()
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            # As at the end of any program: Flower saves its state then.  But not by leaving, since
            # the way out leads through the code of the process that we were forked off.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
