"""What the history says about the Run to come: its kind, and what earlier ones may have left behind. Asks the Checkpoint alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncd.clock import SECOND
from syncd.model import Collection, CollectionState, Kind, RunRecord, Status
from syncd.run.job import Job

_RECENT, _HISTORY = 100, 1_000  # Runs looked back; further only where none of the recent ones ended well
_BAD = {None, Status.FAILED}


@dataclass(frozen=True, slots=True)
class Outlook:
    """kind: full when asked for, when none ended within `full_every`, when the clock stands before the last one, or when files belong elsewhere.

    unsure: an earlier Run may have put files that neither an Entry nor a feed tells of: the last one was killed or failed, or the Checkpoint that
    knew of it was lost. moved: the config names another place, or another key, than some Run since the last that ended well: what the Entries tell
    of is not there. resumed: when the very first Run began, if it was cut short and this one goes on with it.
    """

    kind: Kind
    unsure: bool
    moved: bool
    resumed: int | None

    def kind_of(self, state: CollectionState) -> Kind:
        """How to read this Collection. One that a first Run had finished when it was killed was read as a whole, within `full_every`."""
        return Kind.INCREMENTAL if self.resumed is not None and state.cursor is not None else self.kind

    def order(self, collections: Sequence[Collection], states: Mapping[str, CollectionState]) -> list[Collection]:
        """A resumed Run begins with what was not finished: new files first."""
        finished = {id_ for id_, state in states.items() if self.resumed is not None and state.cursor is not None}
        return sorted(collections, key=lambda collection: collection.id in finished)


def outlook(job: Job, kind: Kind | None = None) -> Outlook:
    """kind: the one a person asks for."""
    runs, last, now = job.checkpoint.runs(job.name, _RECENT), job.checkpoint.last_full(job.name), job.clock.now()
    if all(run.status in _BAD for run in runs):
        runs = job.checkpoint.runs(job.name, _HISTORY)
    moved, span = _moved(runs, place(job)), job.rules.full_every * SECOND
    due = Kind.INCREMENTAL if last is not None and 0 <= now - last < span and not moved else Kind.FULL
    first = kind is None and last is None and not moved and 0 < len(runs) < _HISTORY and 0 <= now - runs[-1].started_at < span
    begun = first and any(state.cursor is not None or state.position is not None for state in job.checkpoint.states(job.name).values())
    return Outlook(kind or due, not runs or runs[0].status in _BAD, moved, runs[-1].started_at if begun else None)


def place(job: Job) -> str:
    """Where a Run of this Sync writes: Target and key template."""
    return f"{job.target.place} {job.rules.key}"


def _moved(runs: Sequence[RunRecord], here: str) -> bool:
    """Up to the last Run that ended well, newest first; also when that one is too long ago to be seen. One that failed before it put anything left
    nothing anywhere.
    """
    for run in runs:
        if (run.report.get("place") or here) != here and (run.status is not Status.FAILED or run.report.get("bytes_written")):
            return True
        if run.status not in _BAD:
            return False
    return len(runs) == _HISTORY
