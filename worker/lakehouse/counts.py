"""What became of the rows of one insert."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Counts:
    """`doubled`: rows whose key a later row of the same data has, so that they were left out."""

    records: int
    inserts: int = 0
    updates: int = 0
    doubled: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.records + other.records,
            self.inserts + other.inserts,
            self.updates + other.updates,
            self.doubled + other.doubled,
        )

    def add_to(self, stats: dict[str, Any]) -> None:
        """Write the counts into the dict that handlers see, with a warning for what was skipped."""
        unchanged = self.records - self.inserts - self.updates - self.doubled
        stats["records"] = self.records
        stats["inserts"] = self.inserts
        stats["updates"] = self.updates
        stats["skipped"] = self.doubled + unchanged
        if self.doubled:
            stats["warnings"].append(
                f"{self.doubled} rows were skipped: a later row of the data has the same key"
            )
        if unchanged:
            stats["warnings"].append(
                f"{unchanged} rows were skipped: their key is there, and they have nothing else"
            )
