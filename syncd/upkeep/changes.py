"""The change feed as others read it: what every Run put or deleted, in order, from the Target alone.

Refuses to need a Source or a Checkpoint, and to tell a Run twice. A Run's feed appears whole, after the Run has ended; a killed Run's with the next
one. One line is one file:

    op             put | trash | delete | keep
    why            new | changed (or found by a new Checkpoint) | healed | settings | deleted (from the Source) | removed (from this Collection)
    project, task  ids; task null: the Collection's settings
    key            the file, below the Target's prefix; a side file's line names its task and its own key
    digest         sha256 of the file, hex
    last_activity  the Source's time of the version, or null
    run_id, at     the Run, and when it was recorded; times are ISO 8601, UTC

New fields may be added; none is renamed. To go on where one stopped, remember the last `run_id` and ask for what came since.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date, timedelta
from io import BytesIO

import orjson

from syncd import keys
from syncd.clock import Clock, format_date, format_time
from syncd.errors import TargetError
from syncd.scratch import Scratch
from syncd.targets.base import Target

Line = dict[str, object]
_POLL = 2.0  # seconds
_BACK = 30  # days that a Run may last, or a killed one's feed come late; more would make each look at a silent Sync dear
_FAR = 366  # days that are listed one by one; of more everything is


def changes(target: Target, clock: Clock, *, after: str = "", since: int | None = None, follow: bool = False) -> Iterator[Line]:
    """The lines after Run `after`, recorded at `since` (microseconds) or later. follow: and those to come, until stopped. A Run that began more than
    30 days before `since` is not looked for. Raises TargetError.
    """
    run, at = keys.feed(after) if after else "", "" if since is None else format_time(since)
    first = _day(run) if run else at and _earlier(at[:10], _BACK)
    begun, told = format_date(clock.now()), set[str]()
    while True:
        for key in _feeds(target, clock, first):
            if key > run and key not in told:
                told.add(key)
                yield from (line for line in _lines(target, key) if str(line.get("at")) >= at)
        if not follow:
            return
        first = max(_day(max(told, default=run)) or begun, _earlier(format_date(clock.now()), _BACK))
        told = {key for key in told if _day(key) >= first}
        clock.wait(_POLL)


def _day(key: str) -> str:
    return key.removeprefix(keys.CHANGES)[:10]


def _earlier(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _feeds(target: Target, clock: Clock, first: str) -> Iterator[str]:
    """Keys of the feeds in the order of their Runs, from that day on; of all when there is none."""
    today = format_date(clock.now())
    near = [f"{day}/" for back in range(_FAR, -1, -1) if (day := _earlier(today, back)) >= first]
    for day in near if first > _earlier(today, _FAR) else [""]:
        with closing(Scratch()) as found:
            for page in target.list(f"{keys.CHANGES}{day}"):
                found.put((stat.key, b"") for stat in page if stat.key.endswith(".ndjson") and _day(stat.key) >= first)
            yield from (key for key, _ in found.items())


def _lines(target: Target, key: str) -> Iterator[Line]:
    for number, line in enumerate(BytesIO(target.get(key) or b""), 1):
        fields: object = None
        with suppress(orjson.JSONDecodeError):
            fields = orjson.loads(line)
        if not isinstance(fields, dict):
            raise TargetError(f"{target.place}/{key}: line {number} is no JSON object: somebody else wrote there")
        yield fields
