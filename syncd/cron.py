"""When a cron line is due: `cronsim` reads it as Debian's cron does, in the machine's time zone, summer time included."""

from __future__ import annotations

from datetime import tzinfo

from cronsim import CronSim, CronSimError
from tzlocal import get_localzone

from syncd.clock import parse_time, to_datetime

_FIELDS = 5


def next_time(line: str, after: int, zone: tzinfo | None = None) -> int:
    """The first time after `after` (microseconds). Raises ValueError for a line that cron would not take, or that never comes (30 February)."""
    if len(line.split()) != _FIELDS:
        raise ValueError("five fields are needed")
    try:
        times = CronSim(line, to_datetime(after).astimezone(zone or get_localzone()))
        return next(found for time in times if (found := parse_time(time.isoformat())) > after)  # in an hour that comes twice it may begin too early
    except (CronSimError, StopIteration) as error:
        raise ValueError("there is no such time") from error
