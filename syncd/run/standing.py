"""How a Sync stands, as its Checkpoint tells it: the same for `syncd status` and for the daemon's page."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.checkpoint.base import Checkpoint
from syncd.model import RunRecord, Status
from syncd.run import INTERRUPTED

_BACK = 100  # Runs looked through for one that went well


@dataclass(frozen=True, slots=True)
class Standing:
    """newest: the last Run, though it may go on or have been killed; ended: the last that ended; tried: start of the last Run that nobody cut short;
    since: start of the last that ended ok; unsafe: what changed after it may not be safe: `since`, or before there is one the start of the first Run
    (of the oldest known); failing: tasks and files; failed_in_a_row: Runs that failed since one did not.
    """

    newest: RunRecord | None = None
    ended: RunRecord | None = None
    tried: int | None = None
    since: int | None = None
    unsafe: int | None = None
    collections: int = 0
    tasks: int = 0
    failing: int = 0
    failed_in_a_row: int = 0

    def said(self, field: str) -> str:
        """A text of the Report of the last Run that ended; empty: it has none."""
        return str(self.ended.report.get(field) or "") if self.ended else ""


def standing(checkpoint: Checkpoint, name: str, before: Standing | None = None) -> Standing:
    """From a few quick questions. before: how it stood, since trouble may last longer than the history that is looked through."""
    before, runs = before or Standing(), checkpoint.runs(name, 1)
    if runs and runs[0].status is not Status.OK:
        runs = checkpoint.runs(name, _BACK)
    ended = [run for run in runs if run.status is not None]
    tried = [run for run in ended if run.report.get("exit_code") != INTERRUPTED]
    failed = next((number for number, run in enumerate(tried) if run.status is not Status.FAILED), len(tried))
    since = next((run.started_at for run in ended if run.status is Status.OK), before.since)
    oldest = before.unsafe or (runs[-1].started_at if runs else None)
    listed = ended[0].report.get("failed_count", 0) if ended else 0
    collections = checkpoint.states(name)
    return Standing(
        newest=runs[0] if runs else None,
        ended=ended[0] if ended else None,
        tried=tried[0].started_at if tried else None,
        since=since,
        unsafe=oldest if since is None else since,
        collections=len(collections),
        tasks=sum(checkpoint.size(name, collection) for collection in collections),
        failing=max(len(checkpoint.failures(name)), listed if isinstance(listed, int) else 0),  # a whole file may fail as well
        failed_in_a_row=failed,
    )
