"""Whom PostgreSQL runs as when root starts it, since it refuses to run as root.

That is the user `postgres` where there is one, else `nobody`.  Where that user can't reach the
data or the program (below /root, in a folder of mkdtemp), the process gets root's right to pass
folders, as an ambient capability (capabilities(7)), and none of root's others.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import DpeError

CAP_DAC_READ_SEARCH = 2  # its bit; see linux/capability.h


class NobodyToRunAs(DpeError):
    """Root can't become anybody who may run PostgreSQL."""

    title = "PostgreSQL does not run as root"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            "start `dpe up` as an ordinary user, or name a server with DPE_DATABASE_URL",
        )


@dataclass(frozen=True, slots=True)
class Account:
    """A user without rights of its own."""

    name: str
    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give it a file or folder; raises NobodyToRunAs where root may not (user namespaces)."""
        try:
            os.chown(path, self.uid, self.gid)
        except OSError as error:
            raise NobodyToRunAs(f"root may not give {path} to {self.name}: {error}") from error

    @property
    def popen(self) -> dict[str, Any]:
        """What makes Popen change to this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def with_rights(self, command: Sequence[str]) -> list[str]:
        """The command as root runs it: as this user, but able to pass every folder."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise NobodyToRunAs(f"{self.name} can't reach the data or the program, and the command"
                                " setpriv (package util-linux) is not here to help")  # fmt: skip
        right = _right_to_pass_folders()
        return [
            setpriv,
            *(f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"),
            *(f"--inh-caps=+{right}", f"--ambient-caps=+{right}"),
            # access(2), by which initdb looks for postgres, leaves rights aside without this.
            "--securebits=+no_setuid_fixup",
            "--pdeathsig=INT",  # again, since the change of user has cleared it
            "--",
            *command,
        ]

    def reaches(self, folders: Sequence[Path], program: Path) -> bool:
        """Whether it may pass these folders and run the program: tried, since access lists and
        mounts have their say besides the mode bits.
        """
        script = 'program=$1; shift; for folder do cd "$folder" || exit; done; "$program" --version'
        command = ["/bin/sh", "-c", script, "sh", str(program), *map(str, folders)]
        try:
            tried = subprocess.run(  # noqa: S603
                command, cwd="/", capture_output=True, check=False, **self.popen
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NobodyToRunAs(f"root may not become {self.name}: {error}") from error
        return tried.returncode == 0


def account() -> Account | None:
    """The user to become; None where we are an ordinary one ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, found.pw_uid, found.pw_gid)
    raise NobodyToRunAs("there is neither a user `postgres` nor `nobody` here")


def _right_to_pass_folders() -> str:
    """The smallest that we have ourselves: root in a container often lacks the first."""
    status = Path("/proc/self/status").read_text()
    permitted = next(line for line in status.splitlines() if line.startswith("CapPrm:"))
    has_it = int(permitted.split()[1], 16) >> CAP_DAC_READ_SEARCH & 1
    return "dac_read_search" if has_it else "dac_override"
