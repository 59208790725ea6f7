"""Bodies of the stand-in's virtual tasks at 3 microseconds each: a rendered example, cut where its id shows, filled in for the others.

A unit test compares each view with the plain way. Only `created_ago` differs: it stays the example's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.fakes.label_studio_rows import VIRTUAL_EPOCH, VIRTUAL_STEP, Row, Virtual, show_time

_EXAMPLE = 987_654_320  # no other number of a task looks like it, nor like its double


class Template:
    """All virtual tasks of one parity, in one view of one project."""

    def __init__(self, virtual: Virtual, odd: int, render: Callable[[Row], bytes]) -> None:
        number = _EXAMPLE + odd
        self._first = virtual.first
        places = {
            str(2 * number): "%(twice)d",
            str(2 * number + 1): "%(next)d",
            str(number): "%(id)d",
            str(number - virtual.first + 1): "%(inner)d",
            _time(number).decode(): "%(at)b",
        }
        text = render(virtual.make(number)).decode().replace("%", "%%")
        self._text = re.sub("|".join(places), lambda found: places[found[0]], text).encode()

    def fill(self, row: Row) -> bytes:
        number = row.id
        values = {b"id": number, b"inner": row.inner_id, b"twice": 2 * number, b"next": 2 * number + 1, b"at": _time(number)}
        return self._text % values


def _time(number: int) -> bytes:
    return str(show_time(VIRTUAL_EPOCH + number * VIRTUAL_STEP)).encode()
