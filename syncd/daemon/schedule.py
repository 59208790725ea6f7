"""When the next Run of a Sync is due, and times in words. Pure: rules, what happened and the time in, a time out; in microseconds, pauses in seconds.

Slots lie on a grid of the wall clock, `every` apart, shifted by a hash of the Sync's name: Syncs are spread, a restart moves nothing, and neither
does a late or a long Run. What was missed (the daemon was down, or busy, or the clock was set forward) is made up for by one Run, at once.
"""

from __future__ import annotations

from hashlib import blake2b

from syncd.clock import SECOND
from syncd.config import SyncConfig
from syncd.cron import next_time
from syncd.fields import format_duration

JUMP = 2 * SECOND  # a clock that moved by more was set, not corrected
_LONGEST = 3600.0  # seconds: the pause after failures grows up to this
_FIRST = 60.0  # seconds: the pause after failures of a Sync with `cron` grows from this
_DOUBLINGS = 40
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def next_slot(name: str, rules: SyncConfig, last: int | None, failed: int, now: int) -> int | None:
    """The time of the next Run; a past one means at once; None: the Sync has no schedule.

    last: start of the last Run, or the slot it began for, None when there was none; failed: how many Runs in a row failed.
    """
    if rules.every is None and rules.cron is None:
        return None
    if last is not None and last > now + JUMP:  # the clock was set back: waiting until it is there again could take hours
        last = now
    after = (now if last is None else last) + _extra(rules, failed)
    if rules.cron is not None:
        return next_time(rules.cron, after)
    assert rules.every is not None
    return now if last is None else _grid(name, max(1, round(rules.every * SECOND)), after)


def describe(rules: SyncConfig) -> str:
    """The schedule in words."""
    if rules.cron is not None:
        return f"cron {rules.cron}"
    return "no schedule" if rules.every is None else f"every {format_duration(rules.every)}"


def span(seconds: float) -> str:
    """`3 h 20 min`: the largest unit and the next."""
    left = max(0, round(seconds))
    at = next((at for at, (_, length) in enumerate(_UNITS) if left >= length), len(_UNITS) - 1)
    (unit, length), (smaller, part) = _UNITS[at], (*_UNITS, ("", 1))[at + 1]
    rest = left % length // part if smaller else 0
    return f"{left // length} {unit}" + (f" {rest} {smaller}" if rest else "")


def ago(at: int, now: int) -> str:
    """`12 s ago`, `in 12 s`."""
    seconds = (now - at) / SECOND
    words = span(abs(seconds) if abs(seconds) < 60 else abs(seconds) // 60 * 60)  # noqa: PLR2004 - from a minute on nobody counts seconds
    return "now" if abs(seconds) < 1 else f"{words} ago" if seconds > 0 else f"in {words}"


def _extra(rules: SyncConfig, failed: int) -> int:
    """How much longer than usual to wait: the pause doubles with each failure after the first, up to an hour, or to `every` if that is longer."""
    if failed < 2:  # noqa: PLR2004 - the first retry comes after the usual pause
        return 0
    usual = rules.every or _FIRST
    return round(max(0.0, min(usual * 2.0 ** min(failed - 1, _DOUBLINGS), _LONGEST) - usual) * SECOND)


def _grid(name: str, every: int, after: int) -> int:
    offset = int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) % every
    return after - (after - offset) % every + every
