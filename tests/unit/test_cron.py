"""A cron line means what cron means by it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.clock import SECOND, format_time, parse_time, to_datetime
from syncd.cron import next_time

MONDAY = parse_time("2026-11-16T00:00:00Z")


def first(line: str, after: str = "2026-11-20T15:00:00Z", zone: str = "UTC") -> str:
    return format_time(next_time(line, parse_time(after), ZoneInfo(zone)))[:16]


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("*/5 * * * *", "2026-11-20T15:05"),
        ("0 3 * * *", "2026-11-21T03:00"),
        ("0 3 * * 0", "2026-11-22T03:00"),
        ("0 3 * * 7", "2026-11-22T03:00"),
        ("0 3 * * sun", "2026-11-22T03:00"),
        ("0 3 * * 1-5", "2026-11-23T03:00"),
        ("0 3 1 * 1", "2026-11-23T03:00"),  # the first of a month or a Monday
        ("0 3 1 * *", "2026-12-01T03:00"),
        ("0 3 29 2 *", "2028-02-29T03:00"),
        ("0,30 15 * nov *", "2026-11-20T15:30"),
    ],
)
def test_lines(line: str, time: str) -> None:
    assert first(line) == time


@pytest.mark.parametrize(
    "line",
    ["", "* * * *", "* * * * * *", "61 * * * *", "* 24 * * *", "* * 0 * *", "* * * * 8", "* * * * x!", "*/0 * * * *", "0 0 30 2 *", "* * * * */0"],
)
def test_lines_that_cron_would_not_take(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the config says the rest
        next_time(line, MONDAY)


def test_summer_time_loses_no_day() -> None:
    """Berlin goes from 2:00 to 3:00 on 29 March 2026; on 25 October from 3:00 to 2:00, and 2:30 comes twice."""
    assert first("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin") == "2026-03-29T01:00"
    times = [parse_time("2026-10-23T12:00:00Z")]
    for _ in range(5):
        times.append(next_time("30 2 * * *", times[-1], ZoneInfo("Europe/Berlin")))
    hours = [(later - sooner) // (3600 * SECOND) for sooner, later in itertools.pairwise(times[1:])]
    assert hours == [24, 25, 24, 24]


@pytest.mark.parametrize("line", ["30 2 * * *", "*/20 2 * * *", "15 * * * *", "*/7 * * * *", "0 3 1 * 1"])
@given(seconds=st.integers(-7200, 7200), day=st.sampled_from(["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z"]))
def test_the_next_time_always_lies_ahead(line: str, seconds: int, day: str) -> None:
    """In the hour that comes twice too, or a Run would follow a Run."""
    after = parse_time(day) + seconds * SECOND
    assert after < next_time(line, after, ZoneInfo("Europe/Berlin")) <= after + 8 * 86400 * SECOND


@given(st.integers(0, 7), st.integers(0, 7), st.integers(1, 7), st.integers(0, 400 * 86400))
def test_weekdays_are_those_of_cron(one: int, other: int, step: int, seconds: int) -> None:
    begin, end = min(one, other, 6), max(one, other, min(one, other, 6) + 1)
    days = {day % 7 for day in range(begin, end + 1, step)}
    after = MONDAY + seconds * SECOND
    found = to_datetime(next_time(f"0 0 * * {begin}-{end}/{step}", after, UTC))
    expected = datetime(*to_datetime(after).timetuple()[:3], tzinfo=UTC)
    while expected <= to_datetime(after) or expected.isoweekday() % 7 not in days:
        expected += timedelta(days=1)
    assert found == expected
