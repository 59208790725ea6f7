"""Time, in one place, so that tests can own it.

Rules: times are integers, microseconds since 1970-01-01 UTC; the local clock dates Runs, trash and logs and never becomes a Cursor (I2).
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from syncd.errors import Stopped

SECOND = 1_000_000  # microseconds
DAY = 86_400 * SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_PLAIN = _EPOCH.replace(tzinfo=None)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What the rest of syncd may know about time."""

    def now(self) -> int:
        """Wall clock, microseconds since 1970 UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; for durations only."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait; raises Stopped at once when the process is asked to stop."""
        ...


class SystemClock:
    """The machine's clock; `stop` interrupts every wait."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        if self.stop.wait(max(0.0, seconds)):
            raise Stopped


def parse_time(text: str) -> int:
    """Microseconds of an ISO 8601 text; a text without offset is UTC; digits beyond microseconds are cut. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(micros: int) -> datetime:
    """The same moment for a library that wants one."""
    return _EPOCH + timedelta(microseconds=micros)


def format_time(micros: int) -> str:
    """`2026-11-20T12:00:00.000000Z`, always six digits (Label Studio answers 500 to any other form, 1.23)."""
    return (_EPOCH_PLAIN + timedelta(microseconds=micros)).isoformat(timespec="microseconds") + "Z"  # four times as fast as strftime


def format_date(micros: int) -> str:
    """`2026-11-20`, UTC."""
    return format_time(micros)[:10]
