"""When a trigger ticks: a cron expression read in a time zone.

Summer time is treated as Debian's cron does (and `cronsim`, which reads the expressions).  A fixed
time (`30 2 * * *`) in the hour that is skipped ticks right after it, in the hour that comes twice
it ticks once, at first.  Where minute or hour begin with a star (`*/30 * * * *`) the ticks follow
the real time that passes: none in the skipped hour, all in both of the doubled one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from worker.errors import Invalid

FIELDS = 5
# How far back missed ticks are looked for, step by step, until enough are found: a minute's
# schedule after a year's pause must not be gone through tick by tick.
LOOKS_BACK = tuple(timedelta(days=days) for days in (1, 31, 366))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression of five fields, and the IANA name of a time zone (`Europe/Paris`)."""

    cron: str
    timezone: str = "UTC"

    def check(self) -> None:
        """Raise Invalid where the expression or the time zone is none, or nothing ever matches."""
        if len(self.cron.split()) != FIELDS:
            raise Invalid(
                "cron must have five fields (minute, hour, day, month, day of the week),"
                f" got {self.cron!r}"
            )
        now = datetime.now(UTC)
        try:
            CronSim(self.cron, now)
        except CronSimError as error:
            raise Invalid(f"cron: {str(error).lower()} in {self.cron!r}") from None
        if self.next(now) is None:
            raise Invalid(f"cron: {self.cron!r} will never come")

    def after(self, at: datetime) -> Iterator[datetime]:
        """The ticks later than `at`, in UTC, each later than the one before."""
        last = at
        for local in CronSim(self.cron, self.local(at)):
            tick = local.astimezone(UTC)
            # Two fixed times in a skipped hour are one tick; and seen from the second half of a
            # doubled hour, what is fixed within it lies in the past.
            if tick > last:
                last = tick
                yield tick

    def next(self, at: datetime) -> datetime | None:
        """The first tick later than `at`; None where none comes within 50 years."""
        return next(self.after(at), None)

    def local(self, tick: datetime) -> datetime:
        """The tick as a clock in the time zone shows it; raises Invalid where there is none."""
        try:
            return tick.astimezone(ZoneInfo(self.timezone))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise Invalid(
                f"timezone must be a name like Europe/Paris or UTC, got {self.timezone!r}"
            ) from None

    def upcoming(self, at: datetime, count: int) -> list[datetime]:
        """The first `count` ticks later than `at`."""
        return list(islice(self.after(at), count))

    def due(self, first: datetime, now: datetime, most: int) -> list[datetime]:
        """The ticks from `first` (itself one) to `now`, the newest `most` of them, in order."""
        before = first - timedelta(seconds=1)
        found: list[datetime] = []
        for look_back in (*LOOKS_BACK, now - before):
            since = max(before, now - look_back)
            found.clear()
            for tick in self.after(since):
                if tick > now:
                    break
                found.append(tick)
            if len(found) >= most or since == before:
                break
        return found[-most:]
