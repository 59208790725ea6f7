"""A cron line as cron itself reads it, computed by APScheduler's trigger.

Rules, where that trigger differs from cron: 0 and 7 are Sunday (there 0 is Monday), a range of weekdays may pass the end of the week, and a day of
the month and a weekday given together mean either (there both). Times are those of the machine's time zone.
"""

from __future__ import annotations

import re

from apscheduler.triggers.cron import CronTrigger

from syncd.clock import SECOND, parse_time, to_datetime

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = ("minute", "hour", "day", "month", "day_of_week")
_ANY_DAY = re.compile(r"(\*|(\w{1,3})(?:-(\w{1,3}))?)(?:/(\d{1,2}))?")
_SATURDAY, _WEEK = 6, 7


class Cron:
    """When something is due. Raises ValueError for a line that cron would not take, or that never comes (30 February)."""

    def __init__(self, line: str, zone: str | None = None) -> None:
        fields = line.split()
        if len(fields) != len(_FIELDS):
            raise ValueError("five fields are needed")
        given = dict(zip(_FIELDS, fields, strict=True))
        weekdays = _weekdays(given["day_of_week"])
        if given["day"][0] == "*" or weekdays == "*":
            ways = [given | {"day_of_week": weekdays}]
        else:
            ways = [given | {"day_of_week": "*"}, given | {"day": "*", "day_of_week": weekdays}]
        self._triggers = [CronTrigger(**way, timezone=zone) for way in ways]
        if not self._after(0):
            raise ValueError("there is no such day")

    def after(self, moment: int) -> int:
        """The first time after `moment`; both in microseconds."""
        return min(self._after(moment))

    def _after(self, moment: int) -> list[int]:
        start = to_datetime(moment - moment % SECOND + SECOND)
        found = [trigger.get_next_fire_time(None, start) for trigger in self._triggers]
        return [parse_time(time.isoformat()) for time in found if time is not None]


def _weekdays(field: str) -> str:
    """The same days by name, for APScheduler."""
    days: set[int] = set()
    for part in field.split(","):
        found = _ANY_DAY.fullmatch(part)
        if not found:
            raise ValueError(f"{part!r} is no weekday")
        every, first, last, step = found.groups()
        begin = 0 if every == "*" else _weekday(first)
        end = _weekday(last) if last else begin if first and not step else _SATURDAY
        days |= {day % _WEEK for day in range(begin, end + (_WEEK if end < begin else 0) + 1, int(step or 1))}
    return "*" if len(days) == _WEEK else ",".join(_DAYS[day] for day in sorted(days))


def _weekday(text: str) -> int:
    if text.lower() in _DAYS:
        return _DAYS.index(text.lower())
    if not text.isdecimal() or int(text) > _WEEK:
        raise ValueError(f"{text!r} is no weekday")
    return int(text)
