"""What each child says of itself to its supervisor, in memory that the fork shares.

A child writes its own slot, the supervisor reads all of them; there is no lock, since the
supervisor believes only what it read twice.
"""

import mmap
import struct
from dataclasses import dataclass
from uuid import UUID

_SLOT = struct.Struct("=16s i Q")  # execution id, attempt (0: idle), jobs taken so far


@dataclass(frozen=True, slots=True)
class Doing:
    """One reading of a slot; `claim` None: idle."""

    claim: tuple[UUID, int] | None
    jobs_taken: int


class Slots:
    """One slot for each of `count` children; made before the fork."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * _SLOT.size)

    def read(self, index: int) -> Doing:
        id, attempt, taken = _SLOT.unpack_from(self._memory, index * _SLOT.size)
        return Doing((UUID(bytes=id), attempt) if attempt else None, taken)

    def take(self, index: int, execution_id: UUID, attempt: int) -> None:
        """Say that this child runs that attempt now."""
        taken = self.read(index).jobs_taken + 1
        _SLOT.pack_into(self._memory, index * _SLOT.size, execution_id.bytes, attempt, taken)

    def release(self, index: int) -> None:
        """Say that this child is idle (or, by the supervisor, that it is gone)."""
        taken = self.read(index).jobs_taken
        _SLOT.pack_into(self._memory, index * _SLOT.size, bytes(16), 0, taken)
