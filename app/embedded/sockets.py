"""Where the folder of a server's Unix socket may be."""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from app.embedded.server import write_private
from app.embedded.unprivileged import Account

NAME = ".s.PGSQL.5432"
# A Unix socket's path: 107 bytes on Linux (unix(7)), 103 on macOS.
MAX_PATH_BYTES = 103
# In a list of socket folders and in a connection's address a comma parts, a quote quotes.
PLAIN_PATH = re.compile(r"[\w/.+-]+", re.ASCII)


class SocketFolder:
    """`run` below `home` where a socket's address can say so, else a private one elsewhere.

    Its path is kept in `home`, so that the address stays the same from start to start.
    """

    def __init__(self, home: Path) -> None:
        self._inside = home / "run"
        self._remembered = home / "postgres.sockets"

    @property
    def path(self) -> Path:
        """The folder; FileNotFoundError where it is elsewhere and was never made."""
        fits = len(bytes(self._inside / NAME)) <= MAX_PATH_BYTES
        if fits and PLAIN_PATH.fullmatch(str(self._inside)):
            return self._inside
        return Path(self._remembered.read_text())

    def make(self, account: Account | None) -> None:
        """Make it where it is missing, private to the user that the server runs as."""
        try:
            folder = self.path
        except FileNotFoundError:
            folder = self._make_elsewhere()
        if folder != self._inside and not _is_ours(folder, account):
            folder = self._make_elsewhere()
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        if account:
            account.own(folder)

    def remove(self) -> None:
        """Delete it where it is not below `home`."""
        with contextlib.suppress(FileNotFoundError):
            if self.path != self._inside:
                shutil.rmtree(self.path, ignore_errors=True)

    def _make_elsewhere(self) -> Path:
        made = Path(tempfile.mkdtemp(prefix="dpe-"))
        if len(bytes(made / NAME)) > MAX_PATH_BYTES or not PLAIN_PATH.fullmatch(str(made)):
            made.rmdir()
            made = Path(tempfile.mkdtemp(prefix="dpe-", dir="/tmp"))
        write_private(self._remembered, str(made))
        return made


def _is_ours(folder: Path, account: Account | None) -> bool:
    """Whether nobody else made it: everybody may write to the folder that it is in."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return True
    owners = {os.geteuid()} | ({account.uid} if account else set())
    return stat.S_ISDIR(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o077
