"""Files in a tgz and out of it, in memory: nothing of a foreign archive ever touches the disk."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from worker.errors import Invalid, TooLarge

MOST_BYTES = 200_000_000  # unpacked
MOST_FILES = 20_000


def pack(files: Mapping[str, bytes]) -> bytes:
    """A tgz; the same files give the same bytes."""
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(files):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(files[path]), 0o644
            tar.addfile(member, io.BytesIO(files[path]))
    return gzip.compress(unpacked.getvalue(), mtime=0)


def unpack(archive: bytes) -> dict[str, bytes]:
    """The files of a tgz by their paths; raises Invalid or TooLarge naming what is wrong.

    A path that leads out, a link, a device, a second file of one name are refused.
    """
    files: dict[str, bytes] = {}
    try:
        # Unpacked with a bound before anything reads it: a few kilobytes may stand for gigabytes.
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as packed:
            tarred = packed.read(MOST_BYTES + 1)
        if len(tarred) > MOST_BYTES:
            raise TooLarge(f"the archive holds more than {MOST_BYTES:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(tarred), mode="r:") as tar:
            for member in tar:
                if not member.isdir():
                    path = _path(member, files)
                    content = tar.extractfile(member)
                    files[path] = content.read() if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise Invalid(f"the archive is no tgz that can be read: {error}") from None
    return files


def _path(member: tarfile.TarInfo, files: Mapping[str, bytes]) -> str:
    if not member.isfile():
        raise Invalid(f"the archive holds {member.name!r}, which is no plain file")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or set(member.name) & {"\\", "\0"}:
        raise Invalid(f"the archive holds {member.name!r}, which leads out of it")
    if str(path) in files:
        raise Invalid(f"the archive holds {member.name!r} twice")
    if len(files) >= MOST_FILES:
        raise TooLarge(f"the archive holds more than {MOST_FILES:,} files")
    return str(path)
