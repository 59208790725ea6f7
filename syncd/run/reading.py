"""From what a Source yields to Pages of Steps: encode, look up, decide. Touches nothing; `plan` and `sync` read alike.

Rules: a task that can't be represented is one Failure; the others go on (I7).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import islice
from typing import NamedTuple

from syncd import encode
from syncd.errors import TaskError
from syncd.keys import Layout
from syncd.known import Known
from syncd.model import CollectionState, Failure, Kind, Task, TaskFile
from syncd.plan import decide
from syncd.run.job import Job
from syncd.run.place import Listing
from syncd.run.writer import Step


class Reading(NamedTuple):
    """One pass over a Collection. since None: everything, from `position` on (None: from the beginning)."""

    since: int | None
    position: str | None = None


def readings(kind: Kind, state: CollectionState, overlap: int) -> list[Reading]:
    """What must be read of a Collection in this state, in order; overlap in microseconds (I2).

    A first pass that was killed goes on where it stopped; what changed or vanished behind it meanwhile is found by the incremental reading after it.
    """
    if state.cursor is None and state.position is not None:
        rest = Reading(None, state.position)
        return [rest] if state.pass_cursor is None else [rest, Reading(max(0, state.pass_cursor - overlap))]
    if state.cursor is None or kind is Kind.FULL:
        return [Reading(None)]
    return [Reading(max(0, state.cursor - overlap))]


def listed(job: Job, state: CollectionState, reading: Reading) -> bool:
    """Whether this reading must know what stands in the Target, to put nothing again that is right.

    A pass that began where nothing stood finds there only what the killed Run had no time to record: a few pages, put again sooner than a million
    files are listed (I5). Not where what a put replaces is kept.
    """
    return reading.since is None and not (reading.position is not None and state.fresh and job.rules.history is None)


def nothing_stands(job: Job, project: str, listing: Listing) -> bool:
    """Whether a Collection has no file yet but its settings."""
    return all(key == job.layout.settings(project) for key in islice(listing.keys(job.layout.folder(project)), 2))


def assess(
    layout: Layout, project: str, tasks: Sequence[Task], known: Known, listing: Listing | None, *, unsure: bool = False, failing: Container[str] = ()
) -> tuple[list[Step], list[Failure]]:
    """The Steps of one page, and the tasks that have no TaskFile. listing None: the Target was not listed; unsure: see `decide`."""
    files: list[tuple[Task, TaskFile]] = []
    failed: list[Failure] = []
    for task in tasks:
        try:
            files.append((task, encode.task_file(layout.task(project, task.id), task.body)))
        except TaskError as error:
            failed.append(Failure(project, task.id, str(error), task.revision.last_activity))
    entries = known.entries([task.id for task, _ in files])
    found = listing.find([file.key for _, file in files]) if listing is not None else {}
    steps = []
    for task, file in files:
        entry, stat, doubt = entries.get(task.id), found.get(file.key), unsure or task.id in failing
        decision = decide(task, file, entry, looked=listing is not None, found=stat, unsure=doubt)
        steps.append(Step(project, task.id, task.revision, task.counts, task.drafts, file, entry, listing is not None, stat, decision, doubt))
    return steps, failed
