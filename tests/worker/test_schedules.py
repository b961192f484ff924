"""When triggers tick: skipped and doubled hours, and what is looked for after an outage."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import Invalid
from worker.store.schedules import Schedule

PARIS = "Europe/Paris"  # 2026-03-29 02:00 is followed by 03:00; 2026-10-25 03:00 by 02:00
SPRING = datetime(2026, 3, 28, 23, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 24, 23, tzinfo=UTC)


def ticks(cron: str, at: datetime, count: int) -> list[str]:
    return [f"{tick:%d %H:%M}" for tick in Schedule(cron, PARIS).upcoming(at, count)]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["29 01:00", "30 00:30"]),  # there is no 02:30: right after the gap
        ("0,30 2 * * *", ["29 01:00", "30 00:00"]),  # two that fall into the gap are one
        ("*/30 * * * *", ["28 23:30", "29 00:00", "29 00:30", "29 01:00"]),  # as time passes
        ("*/30 2 * * *", ["30 00:00", "30 00:30"]),  # a star: what is skipped is skipped
    ],
)
def test_the_hour_that_is_skipped(cron: str, expected: list[str]) -> None:
    assert ticks(cron, SPRING, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["25 00:30", "26 01:30"]),  # once, the first of the two
        ("*/30 * * * *", ["24 23:30", "25 00:00", "25 00:30", "25 01:00", "25 01:30", "25 02:00"]),
        ("*/30 2 * * *", ["25 00:00", "25 00:30", "25 01:00", "25 01:30", "26 01:00"]),
    ],
)
def test_the_hour_that_comes_twice(cron: str, expected: list[str]) -> None:
    assert ticks(cron, AUTUMN, len(expected)) == expected


def test_a_fixed_time_does_not_come_back_in_the_second_of_the_two_hours() -> None:
    in_the_second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert ticks("30 2 * * *", in_the_second, 1) == ["26 01:30"]


CRONS = ("30 2 * * *", "0,30 2 * * *", "*/20 * * * *", "15 */2 * * *", "5 1-3 * * *")


@given(
    cron=st.sampled_from(CRONS),
    start=st.sampled_from([SPRING, AUTUMN]),
    minutes=st.integers(0, 12 * 60),
)  # fmt: skip
def test_the_ticks_are_the_same_from_wherever_one_looks(
    cron: str, start: datetime, minutes: int
) -> None:
    # So that a restart, a second worker or a clock set back finds no other ticks.
    schedule = Schedule(cron, PARIS)
    at = start + timedelta(minutes=minutes, seconds=7)
    all_of_them = schedule.upcoming(start, 60)
    assert all(before < after for before, after in pairwise(all_of_them))
    assert schedule.next(at) == next(tick for tick in all_of_them if tick > at)


def test_what_is_due_is_the_newest_of_what_was_missed() -> None:
    schedule = Schedule("*/10 * * * *")
    first, now = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
    assert schedule.due(first, now, 2) == [
        datetime(2025, 12, 31, 23, 50, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, tzinfo=UTC),
    ]
    assert schedule.due(first, first, 5) == [first]
    assert len(schedule.due(first, first + timedelta(hours=1), 100)) == 7


def test_a_rare_tick_that_was_missed_long_ago_is_due() -> None:
    leap = datetime(2024, 2, 29, tzinfo=UTC)
    assert Schedule("0 0 29 2 *").due(leap, datetime(2027, 6, 1, tzinfo=UTC), 1) == [leap]


@pytest.mark.parametrize(
    ("cron", "timezone", "words"),
    [
        ("* * * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("0 0 31 2 *", "UTC", "bad day-of-month"),
        ("0 0 29 2 MON#5", "Europe/Nowhere", "timezone must be"),
        ("0 0 1 1 *", "../../etc/passwd", "timezone must be"),
    ],
)
def test_what_is_no_schedule_is_refused(cron: str, timezone: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        Schedule(cron, timezone).check()
