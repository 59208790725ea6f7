"""The trash: where a deleted task's last TaskFile waits for its retention to end.

Rule: a file leaves the trash when its retention has ended, never before. The Target alone tells what is there: the day a file came is in its key.
What goes out of the trash and of the history goes here, in full Runs and by `syncd prune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from syncd.clock import DAY, SECOND, format_date
from syncd.keys import shown
from syncd.run.history import surplus
from syncd.run.job import Job


@dataclass(frozen=True, slots=True)
class TrashItem:
    """One TaskFile in the trash. Dates are `YYYY-MM-DD`, UTC; the first full Run after `expires` removes it."""

    project: str
    task: str
    key: str
    size: int
    deleted: str
    expires: str


def list_trash(job: Job) -> Iterator[TrashItem]:
    """Everything in this Sync's trash, as the Target lists it; touches nothing."""
    for page in job.target.list(""):
        for stat in page:
            found = job.layout.named(stat.key)
            if found is not None and found.where == "trash":
                days = format_date(found.at), format_date(found.at + _retention(job))
                yield TrashItem(found.project, "_project" if found.task is None else shown(found.task), stat.key, stat.size, *days)


def outlived(job: Job, listed: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Among the listed keys, which `listed` gives in order as often as asked, the files that may go: in the trash for longer than its retention, or
    earlier TaskFiles that no rule of the history keeps.
    """
    retention = _retention(job)
    over = job.clock.now() - (retention + DAY if retention else 0)  # a key tells only the day
    yield from (key for key in listed() if (found := job.layout.named(key)) is not None and found.where == "trash" and found.at <= over)
    yield from surplus(job, listed())


def _retention(job: Job) -> int:
    """Microseconds; begun days count whole: never too early."""
    return -(-int(job.rules.trash_retention * SECOND) // DAY) * DAY
