"""How fast a store is asked: as many requests at a time as help, fewer when it says so, and no more writes a second than a new bucket is made for.

Pure but for waiting: all time is the Clock's. Refuses to try anything again and to judge errors: Retry does the one and tells the other.
"""

from __future__ import annotations

import logging
import math
import threading
from contextlib import nullcontext

from syncd.clock import Clock

log = logging.getLogger(__name__)

_START = 32  # at a time; with 30 ms each that is 1,000 a second, which every store is made for
_SAMPLE = 4  # answers; fewer tell nothing about throughput
_GENTLY = 1.25  # the next larger limit, once doubling went too far
_REST = 8  # measurements from a larger limit that brought nothing to the next one that is tried
_WARY = 2.0  # seconds without doubling, once it went too far
_CHANCE = 8  # answers for each refusal: fewer refusals than that are no sign of a rate that is too high
_SHORTEST = 0.001  # seconds of a request: pauses, which are multiples of it, are never nothing
_LONGEST = 0.25  # seconds between two requests, however often the store said to slow down
_BURST = 0.1  # seconds' worth of writes that may be made up for


class Limit:
    """How many requests at a time, as arithmetic: each moment, in seconds, is passed in.

    Doubles as long as that brings more answers a second, then tries a quarter more now and then. Halved when the store says to slow down, at most
    once a round trip: what was begun before the last halving brings no news. Below 1 it means one at a time, with pauses in between.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self.value = self._proved = float(min(_START, most))  # `value` is on trial while it is more than what was proved
        self.crowded = False  # whether somebody had to wait since the last measurement: else the limit is not what holds back
        self._wary = -math.inf  # until then it does not double
        self._flow = 0.0  # answers a second under the proved limit
        self._trip = 0.05  # seconds of a request, smoothed
        self._rest = self._good = self._bad = 0
        self._halved = -math.inf
        self._measure(0.0)

    @property
    def gap(self) -> float:
        """Seconds from the beginning of one request to the next one's."""
        return 0.0 if self.value >= 1 else min(_LONGEST, self._trip / self.value)

    def answered(self, begun: float, now: float) -> None:
        self._timed(now - begun)
        self._good += 1
        self._done += 1
        if self._done == 0:
            self._since = now
        elif self._done >= max(_SAMPLE, 2 * self.value):
            if self.crowded:
                self._learn(now)
            self._measure(now)

    def throttled(self, begun: float, now: float) -> bool:
        """Whether it was halved for it."""
        self._timed(now - begun)
        self._bad += 1
        if begun < self._halved:
            return False
        if 0 < self._good < _CHANCE * self._bad:
            self._wary = now + _WARY
        self.value = self._proved = max(self.value / 2, min(1.0, self._trip / _LONGEST))
        self._halved, self._rest, self._good, self._bad = now, 0, 0, 0
        self._measure(now)
        return True

    def _timed(self, trip: float) -> None:
        self._trip += (max(trip, _SHORTEST) - self._trip) / 8

    def _measure(self, now: float) -> None:
        """Begin anew, behind the answers to what was begun under another limit."""
        self._done, self._since, self.crowded = -int(self.value), now, False

    def _learn(self, now: float) -> None:
        flow = self._done / max(now - self._since, 1e-6)
        if self.value > self._proved:
            if flow < self._flow * (1 + (self.value / self._proved - 1) / 4):
                self.value, self._rest, self._wary = self._proved, _REST, now + _WARY
                return
            self._proved = self.value
        elif self._rest:
            self._rest -= 1
            return
        self._flow = flow
        self.value = min(self._most, self.value * (2 if now > self._wary else _GENTLY))


class Pace:
    """Permits for the requests of one Target, from any thread: each begins with `begin` and ends with `end`."""

    def __init__(self, clock: Clock, most: int) -> None:
        self.limit = Limit(most)
        self._clock = clock
        self._door = threading.Lock()  # who tries again need not pass it: of all others one at a time stands beside them
        self._turn = threading.Lock()  # of who begins next: all others wait behind it, so that one alone looks at the time
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._busy, self._last = 0, -math.inf

    def begin(self, *, again: bool = False) -> float:
        """The moment, once a request may begin; sooner when it is tried again. Raises Stopped."""
        with nullcontext() if again else self._door, self._turn:
            while (pause := self._last + self.limit.gap - (now := self._clock.monotonic())) > 0:
                self.limit.crowded = True
                self._clock.wait(pause)
            with self._lock:
                while self._busy >= max(1.0, self.limit.value):
                    self.limit.crowded = True
                    self._free.wait()
                    now = self._clock.monotonic()
                self._busy, self._last = self._busy + 1, now
            return now

    def end(self, begun: float, slow_down: str = "") -> None:
        """It was answered, or with `slow_down` the store's words for asking less."""
        now = self._clock.monotonic()
        with self._lock:
            self._busy -= 1
            halved = slow_down and self.limit.throttled(begun, now)
            if not slow_down:
                self.limit.answered(begun, now)
            self._free.notify()
        if halved:
            log.debug("%s; from now on %.3g requests at a time", slow_down, self.limit.value)


class Ramp:
    """A rate of writes that grows with use: `first` a second, doubled no faster than in `doubling` seconds."""

    def __init__(self, clock: Clock, first: float, doubling: float) -> None:
        self._clock, self._first, self._growth = clock, first, math.log(2) / doubling
        self._lock = threading.Lock()
        self._count, self._next = 0, -math.inf

    def wait(self) -> None:
        """Return when one more write may begin. Raises Stopped."""
        with self._lock:
            now = self._clock.monotonic()
            self._count += 1
            # who writes at r(n) = first + n * growth a second all the time doubles r in just that time
            mine = self._next = max(self._next, now - _BURST) + 1 / (self._first + self._count * self._growth)
        if mine > now:
            self._clock.wait(mine - now)
