"""A handler's log records, prints and warnings become its job's log, live.

Lines gather in memory; what a job wrote by its end is stored together with its status, and what
a longer job has written is stored twice a second meanwhile.
"""

import io
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from worker.masking import masked

NOTICE = 25
FLUSH_INTERVAL_S = 0.4
MAX_LINES = 20_000  # of one attempt: a handler that logs in an endless loop must not fill the disk
MAX_MESSAGE = 32_768  # characters

Line = dict[str, str]


def install() -> None:
    """Make the level NOTICE known and send Celery's own words to the process's stderr.

    Called once per process, before any handler is imported.
    """
    logging.addLevelName(NOTICE, "NOTICE")
    if not hasattr(logging.Logger, "notice"):

        def notice(self: logging.Logger, message: object, *args: Any, **kwargs: Any) -> None:
            if self.isEnabledFor(NOTICE):
                self._log(NOTICE, message, args, **kwargs)

        setattr(logging.Logger, "notice", notice)  # noqa: B010
        setattr(logging, "NOTICE", NOTICE)  # noqa: B010
    logging.captureWarnings(capture=True)
    own = logging.StreamHandler(sys.stderr)
    own.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name in ("celery", "kombu", "amqp", "worker", "redis"):
        logger = logging.getLogger(name)
        logger.handlers = [own]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


class JobLog(AbstractContextManager["JobLog"], logging.Handler):
    """Catches what one attempt says, from all its threads, between enter and exit.

    `store(part, lines)` keeps a part of the log while the job runs; it may raise, then the lines
    stay and are tried again.
    """

    def __init__(
        self, level: int, store: Callable[[int, bytes], None], first_part: int = 1
    ) -> None:
        logging.Handler.__init__(self, level)
        self._store = store
        self._lines: list[Line] = []
        self._count = 0
        self._part = first_part
        self._guard = threading.Lock()

    def __enter__(self) -> "JobLog":
        root = logging.getLogger()
        root.addHandler(self)
        _set_level(root, self.level)
        self._streams = sys.stdout, sys.stderr
        sys.stdout = _Lines(self, logging.INFO, "stdout")
        sys.stderr = _Lines(self, logging.WARNING, "stderr")
        flusher.watch(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        flusher.watch(None)
        sys.stdout, sys.stderr = self._streams
        logging.getLogger().removeHandler(self)

    def begin(self, level: int, message: str) -> None:
        """Set the level that the action asks for, and write the first line."""
        self.setLevel(level)
        _set_level(logging.getLogger(), level)
        self.add(NOTICE, "dpe", message)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + logging.Formatter().formatException(record.exc_info)
        except Exception:  # a wrong format string must not fail the job, nor hide what it said
            message = f"{record.msg!r} {record.args!r} (could not be formatted)"
        self.add(record.levelno, record.name, message, record.created)

    def add(self, level: int, logger: str, message: str, created: float | None = None) -> None:
        """Add one line; `created` is a Unix time, None for now."""
        at = datetime.fromtimestamp(time.time() if created is None else created, UTC)
        line = {
            "at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            # Celery, too, has a name for level 25: ours is the one that counts here.
            "level": "notice" if level == NOTICE else logging.getLevelName(level).lower(),
            "logger": logger,
            # Lone surrogates and NUL have no place in UTF-8 JSON and in Postgres' text.
            "message": masked(message)[:MAX_MESSAGE]
            .encode("utf-8", "replace")
            .decode()
            .replace("\0", "�"),
        }
        with self._guard:
            self._count += 1
            if self._count < MAX_LINES or logger == "dpe":
                self._lines.append(line)
            elif self._count == MAX_LINES:
                line["message"] = f"the log is cut here: {MAX_LINES} lines are kept of an attempt"
                self._lines.append(line)

    def flush_live(self) -> None:
        """Store what has gathered while the job runs."""
        with self._guard:
            lines, part = self._lines, self._part
            if not lines:
                return
            self._lines, self._part = [], part + 1
        try:
            self._store(part, orjson.dumps(lines))
        except Exception:
            with self._guard:
                self._lines = lines + self._lines
            raise

    def last_part(self) -> tuple[int, bytes]:
        """What is not stored yet, as (part, JSON), to be stored together with the status."""
        flusher.watch(None)
        with self._guard:
            return self._part, orjson.dumps(self._lines)


def _set_level(logger: logging.Logger, level: int) -> None:
    if logger.level != level:  # to set it empties the caches of all loggers
        logger.setLevel(level)


class _Lines(io.TextIOBase):
    """A stream that turns what is printed into log lines."""

    def __init__(self, log: JobLog, level: int, logger: str) -> None:
        self._log, self._level, self._logger = log, level, logger
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.add(self._level, self._logger, line)
        return len(text)

    def flush(self) -> None:
        if self._rest:
            line, self._rest = self._rest, ""
            self._log.add(self._level, self._logger, line)


class _Flusher:
    """One thread per process that stores the running job's lines twice a second."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._log: JobLog | None = None
        self._turn = threading.Lock()

    def watch(self, log: JobLog | None) -> None:
        """Care for this log from now on; None: for none, and a flush under way has ended."""
        with self._turn:
            self._log = log
        if log is not None and self._thread is None:
            self._thread = threading.Thread(target=self._flush_for_ever, name="logs", daemon=True)
            self._thread.start()

    def _flush_for_ever(self) -> None:
        seen: JobLog | None = None
        while True:
            time.sleep(FLUSH_INTERVAL_S)
            with self._turn:
                # A job younger than one interval stores its lines with its status.
                if self._log is not None and self._log is seen:
                    try:
                        self._log.flush_live()
                    except Exception:
                        logging.getLogger("worker").warning(
                            "log lines not stored yet", exc_info=True
                        )
                seen = self._log


flusher = _Flusher()
