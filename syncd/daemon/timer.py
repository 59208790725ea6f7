"""An alarm clock for slots: APScheduler's thread waits, and another one calls when a slot has come. It decides nothing; the Service sets every alarm.

What APScheduler must be told (each was seen to lose a slot): it drops what is a second late unless it may misfire for ever, and what is set again
while it is still being called unless that may happen often; it computes with the wall clock and sleeps by the monotonic one, so after the
clock was set all alarms must be set anew (`Service.tick`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from syncd.clock import to_datetime

_RULES = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1_000_000}


class Timer:
    """Calls back from its own thread."""

    def __init__(self) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # it tells of each alarm
        self._scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)}, job_defaults=_RULES)

    def start(self, due: Callable[[str], None]) -> None:
        """From now on call `due(name)`, one after the other; it returns soon."""
        self._due = due
        self._scheduler.start()

    def at(self, name: str, slot: int | None) -> None:
        """Call this name at that time (microseconds; a past one: at once) instead of any time set before; None: not at all."""
        if slot is not None:
            self._scheduler.add_job(self._due, "date", [name], id=name, replace_existing=True, run_date=to_datetime(slot))
            return
        with suppress(JobLookupError):  # it has come already
            self._scheduler.remove_job(name)

    def close(self) -> None:
        """Call nobody any more."""
        if self._scheduler.running:
            self._scheduler.pause()
            self._scheduler.remove_all_jobs()  # waits for alarms that just go off: a shutdown among them would end in a traceback
            self._scheduler.shutdown(wait=False)
