"""Retrying what is worth retrying, and counting every try.

Retries TransientError alone (a deny-list would retry each new permanent error by default). Refuses to sleep by itself: the Clock waits, so that a
stop request interrupts.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from syncd.clock import Clock
from syncd.errors import SyncdError, TransientError
from syncd.pace import Pace

T = TypeVar("T")


@dataclass(slots=True)
class Failed:
    """How many tries of requests failed; an edge and its Retry share one."""

    tries: int = 0


class Retry:
    """One policy for one edge. `requests` counts every try, `failed` those that raised, from any thread.

    retry_for: seconds from the first try until the last may start; first, longest: bounds of one pause in seconds, doubled each time, with full
    jitter; a `retry_after` from the other side is obeyed as a minimum. pace: gives each try its permit; after an answer that asks to slow down
    the next permit is the pause, since two would multiply; who still waits for one when another call gives up gives up too. `own.began`:
    when this thread's request went out, where a try begins with a wait for others.
    """

    def __init__(
        self, clock: Clock, *, retry_for: float, exhausted: type[SyncdError], first: float = 0.2, longest: float = 15.0, pace: Pace | None = None
    ) -> None:
        self._clock, self._pace = clock, pace
        self._retry_for = retry_for
        self._exhausted = exhausted
        self._first = first
        self._longest = longest
        self._lock = threading.Lock()
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        self.requests, self.failed, self.own = 0, Failed(), threading.local()
        self._gave_up = -math.inf, ""  # when a call did so last, and why

    def call(self, attempt: Callable[[], T], *, tries: int | None = None) -> T:
        """The result of `attempt`. After `tries` or `retry_for` the last TransientError becomes `exhausted`; any other error passes at once."""
        number, end, asked = 0, 0.0, self._clock.monotonic()
        while True:
            begun, slow_down = self._pace.begin(again=number > 0) if self._pace else self._clock.monotonic(), ""
            if self._pace and asked < self._gave_up[0]:  # else the last of many would give up after many times `retry_for`
                self._pace.end(begun)
                raise self._exhausted(self._gave_up[1])
            number += 1
            with self._lock:
                self.requests += 1
            try:
                return attempt()
            except SyncdError as error:
                with self._lock:
                    self.failed.tries += 1
                if not isinstance(error, TransientError):
                    raise
                slow_down = str(error) if error.throttled and self._pace else ""
                pause = self._pause(0 if slow_down else number, error.retry_after)
                now, end = self._clock.monotonic(), end or max(begun, getattr(self.own, "began", begun)) + self._retry_for
                if (tries is not None and number >= tries) or now + pause > end:
                    self._gave_up = now, f"{error} (gave up after {number} {'try' if number == 1 else 'tries'})"
                    raise self._exhausted(self._gave_up[1]) from error
            finally:
                if self._pace:
                    self._pace.end(begun, slow_down)
            self._clock.wait(pause)

    def _pause(self, number: int, retry_after: float | None) -> float:
        ceiling = min(self._longest, self._first * 2 ** min(number - 1, 10)) if number else 0.0  # 0: the pace alone makes it wait
        pause = self._random.uniform(0, ceiling)
        return pause if retry_after is None else max(pause, retry_after)
