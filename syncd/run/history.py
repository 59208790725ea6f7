"""Earlier TaskFiles: kept before another one takes their key, removed when no rule keeps them any more.

Refuses to keep what was listed and is not what an Entry vouches for: somebody else wrote it. Rules:
- What stands at a key is in the history, durably, before a put takes its place; if that fails, nothing is put.
- Its name there is the moment it was replaced. So what stood at some time is the version with the least moment after it, else the file itself.
- Where a Run may have ended between the two, what stands is read, and kept once: the newest version that is the same was never replaced, and goes.
- Pruning knows the listing alone. A version goes only when neither rule keeps it; one dated later than now, by a wrong clock, counts for none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from syncd import encode
from syncd.clock import SECOND
from syncd.config.shape import History
from syncd.keys import is_side
from syncd.model import Stat
from syncd.run.job import Job
from syncd.targets.base import Finding, Sign

if TYPE_CHECKING:
    from syncd.run.writer import Step


class Keeper:
    """Keeps what a Run is about to replace. May be used from many threads, of which no two have the same task."""

    def __init__(self, job: Job) -> None:
        self._job, self._layout = job, job.layout
        self._lock, self._last = threading.Lock(), 0
        self._active = job.rules.history is not None and not job.rules.history.bucket

    def keep(self, step: Step) -> bool:
        """Before its file is put. Whether something came into the history: the next `flush` makes it durable. Costs one server-side copy."""
        found, vouching = step.found, None if step.unsure else step.entry
        if not self._active or (found is None if step.looked else step.entry is None and not step.unsure):
            return False
        target, key, kept = self._job.target, step.file.key, self._layout.history(step.project, step.task, self._moment())
        if vouching is not None and (found is None or (found.size, found.etag) == (vouching.size, vouching.etag)):
            return target.copy(key, kept)
        data = target.get(key)
        if data is None or data == step.file.data or (vouching is not None and encode.digest(data) != vouching.digest):
            return False
        before = self._newest(step.project, step.task)
        target.put(kept, data)
        if before is not None and before.key != kept and before.size == len(data) and target.get(before.key) == data:
            target.delete([before.key])
        return True

    def _moment(self) -> int:
        """Now, and later than ever before: a clock that stands still must not make one version take another one's place."""
        with self._lock:
            self._last = max(self._last + 1, self._job.clock.now())
            return self._last

    def _newest(self, project: str, task: str) -> Stat | None:
        folder, layout = self._layout.histories(project, task), self._layout
        stats = [stat for page in self._job.target.list(folder) for stat in page]
        own = {found.at: stat for stat in stats if (found := layout.named(stat.key)) and layout.history(project, task, found.at) == stat.key}
        return own[max(own)] if own else None


def forgotten(job: Job, findings: Iterable[Finding]) -> Finding | None:
    """What is wrong with a bucket that should keep the history, and keeps nothing."""
    if job.rules.history is None or not job.rules.history.bucket or not any(finding.forgets for finding in findings):
        return None
    hint = "switch the bucket's versioning on, or write how many to keep: history: {keep_last: 10, keep_within: 90d}"
    return Finding(Sign.WRONG, "`history: bucket`, but the bucket keeps no versions: what a put replaces is lost", hint)


def surplus(job: Job, listed: Iterable[str]) -> Iterator[str]:
    """Among the listed keys, in order, those of versions that no rule keeps; of one task at a time, so that memory stays flat."""
    rules, layout, now = job.rules.history, job.layout, job.clock.now()
    if rules is None or rules.bucket:
        return
    versions = ((key, found) for key in listed if (found := layout.named(key)) is not None and found.where == "history")
    for _, group in groupby(versions, key=lambda version: version[0].rsplit("/", 2 if is_side(version[1].task or "") else 1)[0]):  # its folder
        of_file: dict[str, list[tuple[str, int]]] = {}
        for key, found in group:
            of_file.setdefault(found.home, []).append((key, found.at))
        for same in of_file.values():
            gone = set(unkept([at for _, at in same], rules, now))
            yield from (key for key, at in same if at in gone)


def unkept(moments: Sequence[int], rules: History, now: int) -> list[int]:
    """The moments of those versions of one file that no rule keeps."""
    past = sorted((at for at in moments if at <= now), reverse=True)
    span = int((rules.keep_within or 0.0) * SECOND)
    return [at for at in past[rules.keep_last or 0 :] if at <= now - span or not span]
