"""An alarm clock for slots: APScheduler's thread waits, and calls when one has come. It decides nothing; the Service sets every alarm.

What APScheduler must be told or spared (each was seen to lose a slot): it drops what is a second late unless it may misfire for ever; a job that is
added again while it is being fired is removed with its old self, or refused as still running, so each alarm is a job of its own, called in another
thread; it computes with the wall clock and sleeps by the monotonic one, so after the clock was set all alarms must be set anew (`Service.tick`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from syncd.clock import SECOND, Clock, to_datetime

_BEAT = ""  # no Sync has this name
_BEAT_EVERY = 5 * SECOND
_DEAD = 30.0  # seconds without a beat


class Alarms(Protocol):
    """What the Service needs; a test has its own."""

    def at(self, name: str, slot: int | None) -> None:
        """Call this Sync at that time (microseconds; a past one: at once) instead of any time set before; None: not at all."""
        ...

    def reset(self) -> None:
        """The wall clock was set; every alarm is set anew after this."""
        ...

    def alive(self) -> bool:
        """Whether it would still call."""
        ...


class Timer:
    """Calls back from its own thread."""

    def __init__(self, clock: Clock) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # it tells of each alarm
        self._clock, self._beaten = clock, clock.monotonic()
        self._lock, self._jobs = threading.Lock(), dict[str, Job]()
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        self._scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)}, job_defaults=defaults)

    def start(self, due: Callable[[str], None]) -> None:
        """From now on call `due(name)`, one after the other; it returns soon."""
        self._due = due
        self._scheduler.start()
        self._beat()

    def at(self, name: str, slot: int | None) -> None:
        """See `Alarms`."""
        with self._lock:
            before = self._jobs.pop(name, None)
            if before is not None:
                with suppress(JobLookupError):  # it has come already
                    before.remove()
            if slot is not None:
                self._jobs[name] = self._scheduler.add_job(self._call, "date", [name], run_date=to_datetime(slot))

    def _call(self, name: str) -> None:
        if name == _BEAT:
            self._beat()
        else:
            self._due(name)

    def _beat(self) -> None:
        """Both threads live, and prove it again soon."""
        self._beaten = self._clock.monotonic()
        self.at(_BEAT, self._clock.now() + _BEAT_EVERY)

    def alive(self) -> bool:
        """See `Alarms`."""
        return self._clock.monotonic() - self._beaten < _DEAD

    def reset(self) -> None:
        """See `Alarms`."""
        self.at(_BEAT, self._clock.now())

    def close(self) -> None:
        """Call nobody any more."""
        if self._scheduler.running:
            self._scheduler.pause()
            self._scheduler.remove_all_jobs()  # waits for alarms that just go off: a shutdown among them would end in a traceback
            self._scheduler.shutdown(wait=False)
