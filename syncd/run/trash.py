"""The trash: where a deleted task's last TaskFile waits for its retention to end.

Rule: a file leaves the trash when its retention has ended, never before. The Target alone tells what is there: the day a file came is in its key.
What goes out of the trash and of the history goes here, in full Runs and by `syncd prune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from syncd.clock import SECOND, format_date
from syncd.keys import Trashed
from syncd.run.history import surplus
from syncd.run.job import Job
from syncd.scratch import chunks


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
            trashed = job.layout.trashed(stat.key)
            if trashed is not None:
                yield TrashItem(trashed.project, trashed.task, stat.key, stat.size, trashed.day, _expires(job, trashed))


def outlived(job: Job, listed: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Among the listed keys, which `listed` gives in order as often as asked, the files that may go: in the trash for longer than its retention, or
    earlier TaskFiles that no rule of the history keeps.
    """
    yield from _expired(job, listed())
    yield from surplus(job, listed())


def remove(job: Job, keys: Iterable[str]) -> None:
    """Delete them, many at a time. The place must be claimed."""
    for chunk in chunks(keys):
        job.target.delete(chunk)


def _expired(job: Job, listed: Iterable[str]) -> Iterator[str]:
    today, layout = format_date(job.clock.now()), job.layout
    at_once = not job.rules.trash_retention  # a key tells only the day, and no retention is over at any hour of it
    return (key for key in listed if (trashed := layout.trashed(key)) is not None and (at_once or _expires(job, trashed) < today))


def _expires(job: Job, trashed: Trashed) -> str:
    days = -(-int(job.rules.trash_retention * SECOND) // (86400 * SECOND))  # begun days count whole: never too early
    return (date.fromisoformat(trashed.day) + timedelta(days=days)).isoformat()
