"""Following deletions safely: guard, confirm by id, trash or delete, and only then forget (I3, I4).

Refuses to delete for a Collection or a task that was not asked for by id, and anything at all once the Guard tripped. A crash at any point leaves
either the file and its Entry, or a trash copy beside them, or the Entry alone: the next Run finds the same ids missing and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from syncd import encode
from syncd.checkpoint.base import Commit, Lease
from syncd.clock import DAY
from syncd.errors import GuardTripped
from syncd.keys import SIDE
from syncd.known import Known
from syncd.model import Collection, Entry, Event, Failure, Gone, Op, Report, Why
from syncd.plan import Missing, plan_id, tripped
from syncd.run.job import Job
from syncd.run.place import Place
from syncd.run.writer import Writer
from syncd.scratch import chunks

_READ = 1 << 18  # bytes: many files are read at a time


def with_files(known: Known, missing: Sequence[str]) -> tuple[list[str], list[str]]:
    """The missing ids that have a file to lose; and the others: they failed before they had one, or it is kept, and their failure is over."""
    live: list[str] = []
    over: list[str] = []
    for chunk in chunks(missing):
        entries = known.entries(chunk)
        for task in chunk:
            (live if task in entries and not entries[task].kept else over).append(task)
    return live, over


def with_sides(known: Known, failures: Sequence[Failure]) -> list[str]:
    """The ids of those tasks that have Entries, and of their side files."""
    tasks = {failure.task for failure in failures}
    return [id_ for id_ in known.all_ids() if not tasks.isdisjoint((id_, id_.partition(SIDE)[0]))]


def check(job: Job, missing: Sequence[Missing], confirmed: str) -> None:
    """Raise GuardTripped unless every Collection's deletions are within `max_delete`, or a person confirmed exactly this Plan."""
    limits = job.rules.max_delete
    reasons = [reason for part in missing if (reason := tripped(part, limits.fraction, limits.at_least))]
    if job.rules.on_delete == "keep" or not reasons:
        return
    this = plan_id(job.name, missing)
    if confirmed == this:
        return
    changed = f" (Plan {confirmed} was confirmed, but the deletions are others by now)" if confirmed else ""
    raise GuardTripped("; ".join(reasons) + changed, this)


class Remover:
    """Carries out the deletions of one Run, after the Guard let them pass."""

    def __init__(self, job: Job, lease: Lease, place: Place, writer: Writer, report: Report) -> None:
        self._job, self._lease, self._place, self._writer, self._report = job, lease, place, writer, report
        self._layout = job.layout

    def remove(self, collection: Collection, missing: Missing) -> None:
        """Delete what is proved to be gone."""
        tasks = self._job.checkpoint.known(self._job.name, collection.id).all_ids() if missing.whole else missing.tasks
        for chunk in chunks(tasks):
            gone = dict.fromkeys(chunk, Gone.DELETED) if missing.whole else self._job.source.confirm(collection, chunk)
            if gone:
                self._remove(collection.id, gone)

    def _remove(self, project: str, gone: dict[str, Gone]) -> None:
        held = self._job.checkpoint.known(self._job.name, project).entries(list(gone))
        entries = [entry for entry in held.values() if not entry.kept]
        if self._job.rules.on_delete == "keep":
            done = [(entry, Op.KEEP) for entry in entries]
            commit = Commit(entries=[entry._replace(kept=True) for entry in entries], cleared=[task for task in gone if task not in held])
        else:
            done = self._take_away(project, entries) if entries else []
            commit = Commit(forgotten=list(gone))
        now = self._job.clock.now()
        events = [Event(op, Why(gone[e.task].value), project, e.task, e.digest, e.revision.last_activity, now) for e, op in done]
        self._job.checkpoint.commit(self._lease, project, replace(commit, events=events))
        self._report.kept += sum(e.counts.tasks for e, op in done if op is Op.KEEP)
        self._report.trashed += sum(e.counts.tasks for e, op in done if op is Op.TRASH)
        self._report.deleted += sum(e.counts.tasks for e, op in done if op is Op.DELETE)

    def _take_away(self, project: str, entries: Sequence[Entry]) -> list[tuple[Entry, Op]]:
        self._place.claim()
        keys = [self._layout.task(project, entry.task) for entry in entries]
        kept: list[bytes | None] = [None] * len(entries)
        if self._job.rules.on_delete == "trash":
            files = [(entry.task, entry.digest, entry.size, key) for entry, key in zip(entries, keys, strict=True)]
            kept = self._writer.map(partial(self._keep, project), files)
        self._job.target.delete(keys)
        self._job.target.flush()
        return [(e._replace(digest=found or e.digest), Op.TRASH if found else Op.DELETE) for e, found in zip(entries, kept, strict=True)]

    def _keep(self, project: str, what: tuple[str | None, bytes, int, str]) -> bytes | None:
        """Bring the file of a task (None: the settings) into the trash, and tell its digest. A small one is read for that: file or Entry may be
        spoilt, and what is told by another digest than its own looks damaged. None: the file is not there any more, and no killed Run brought it
        into the trash.
        """
        (task, digest, size, key), target, now = what, self._job.target, self._job.clock.now()
        if size <= _READ and (data := target.get(key)) is not None:
            digest = encode.digest(data)
        today, before = (self._layout.trash(project, task, digest, at) for at in (now, now - DAY))  # it may have been killed before midnight
        return digest if target.copy(key, today) or any(target.get(trash) is not None for trash in (today, before)) else None

    def drop(self, project: str, settings: bytes) -> None:
        """Forget a Collection that is gone and has no task left; its settings go the way of its tasks."""
        key, now = self._layout.settings(project), self._job.clock.now()
        if settings and self._job.rules.on_delete != "keep":
            self._place.claim()
            found = self._keep(project, (None, settings, 0, key)) if self._job.rules.on_delete == "trash" else None
            self._job.target.delete([key])
            self._job.target.flush()
            event = Event(Op.TRASH if found else Op.DELETE, Why.DELETED, project, None, found or settings, 0, now)
            self._job.checkpoint.commit(self._lease, project, Commit(events=[event]))
        self._job.checkpoint.drop(self._lease, project)
