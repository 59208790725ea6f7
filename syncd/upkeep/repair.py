"""`syncd verify --repair`: what is missing or differs is put again by an ordinary incremental Run; orphans go to the trash.

Refuses to lose the only copy of anything, to touch a file that syncd never writes (I6), and to move more orphans than `max_delete` unasked. How:
- Before the Run each such task is noted as failing, and its Entry's Revision is made one that no Source has. Every Source reads failing tasks again,
  and a doubtful Entry is put again whatever its digest. Nothing is forgotten: a crash leaves tasks that the next Run of any kind mends (I1-I3).
- Bytes of somebody else in a task's place are in the trash before that note, and away after it: no put can lose them, nor take them for an earlier
  version, and no task is without its file unnoted.
- Orphans go after the Run: what a killed Run put and this one recorded is none any more, and where the Source has a new task its file stands then, as
  after any Run. Each is gone from the Source, which is asked for exactly that id, and in the trash before it is deleted (I4).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from syncd import encode
from syncd.checkpoint.base import Commit, Lease
from syncd.errors import GuardTripped
from syncd.model import Collection, Entry, Event, Failure, Kind, Op, Report, Why
from syncd.plan import Missing, plan_id, tripped
from syncd.run import run_sync
from syncd.run.job import Job, OnProgress
from syncd.run.place import Place
from syncd.scratch import chunks
from syncd.upkeep.verify import DIFFERS, EXTRA, MISSING, VerifyLine

_NEVER = -1  # a counter that no Source shows


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of the differences. report: of the Run that put files again; again: how many; recorded: files that were right, only their Entry was
    not; trashed: orphans; left: what can't be mended, and why; guard: too many orphans.
    """

    report: Report
    again: int
    recorded: int
    trashed: int
    left: Sequence[VerifyLine]
    guard: GuardTripped | None


def repair(job: Job, lines: Iterable[VerifyLine], *, confirm_deletes: str = "", on_progress: OnProgress | None = None) -> Repair:
    """Mend what `verify` found. The job's Checkpoint must be open for writing. Raises what `run_sync` raises, and SourceError."""
    mending = _Mending(job, confirm_deletes, {collection.id: collection for collection in job.source.collections()})
    for line in lines:
        mending.add(line)
    report = run_sync(job, kind=Kind.INCREMENTAL, confirm_deletes=confirm_deletes, on_progress=on_progress, around=mending.around)
    failing = {(failure.project, failure.task) for failure in job.checkpoint.failures(job.name)}
    again = 0 if report.error else len(mending.noted - failing)
    return Repair(report, again, mending.recorded, mending.trashed, mending.left, mending.guard)


class _Mending:
    """shown: the Collections that the Source has."""

    def __init__(self, job: Job, confirmed: str, shown: Mapping[str, Collection]) -> None:
        self._job, self._layout, self._confirmed, self._shown = job, job.layout, confirmed, shown
        self._again: defaultdict[str, list[VerifyLine]] = defaultdict(list)
        self._orphans: defaultdict[str, list[VerifyLine]] = defaultdict(list)
        self.recorded = self.trashed = 0
        self.noted: set[tuple[str, str | None]] = set()
        self.left: list[VerifyLine] = []
        self.guard: GuardTripped | None = None

    def add(self, line: VerifyLine) -> None:
        """Sort a difference: put again, an orphan, or nothing that can be done here."""
        if line.sign in {MISSING, DIFFERS}:
            self._again[line.project].append(line)
        elif line.sign == EXTRA and line.project and not line.source and self._job.rules.on_delete != "keep":
            self._orphans[line.project].append(line)
        elif not line.source:  # else it is left to the Run, which reads what failed and follows what is gone
            kept = " (on_delete: keep, so it may be all that is left of a task)" if line.sign == EXTRA and line.project else ""
            self.left.append(line._replace(why=line.why + kept))

    @contextmanager
    def around(self, lease: Lease, place: Place) -> Iterator[None]:
        """The steps before and after the Run."""
        place.claim()
        with ThreadPoolExecutor(self._job.target.concurrency, thread_name_prefix="syncd-repair") as pool:
            for project, lines in self._again.items():
                for chunk in chunks(lines):
                    self._note(lease, project, chunk, pool)
            yield
            orphans = {project: left for project, lines in self._orphans.items() if (left := self._still_orphans(project, lines))}
            if self._may_go(orphans):
                for project, lines in orphans.items():
                    for chunk in chunks(lines):
                        moved, now = self._copy(chunk, pool), self._job.clock.now()
                        self._take_away(moved)
                        events = [Event(Op.TRASH, Why.HEALED, project, line.task, digest, 0, now) for line, digest in moved]
                        self._job.checkpoint.commit(lease, project, Commit(events=events))
                        self.trashed += len(moved)

    def _note(self, lease: Lease, project: str, lines: Sequence[VerifyLine], pool: ThreadPoolExecutor) -> None:
        """Make the next reading put these again; those whose bytes are right are only recorded anew."""
        checkpoint, name = self._job.checkpoint, self._job.name
        held = checkpoint.known(name, project).entries([line.task for line in lines if line.task is not None])
        state = checkpoint.states(name).get(project)
        entries, failed, settings, wrong = list[Entry](), list[Failure](), None, list[VerifyLine]()
        stands = list(zip(lines, pool.map(self._digest, lines), strict=True))
        spoilt = [line.task for line, found in stands if line.task is not None and found and (e := held.get(line.task)) and e.digest != found]
        gone = self._gone(project, spoilt)
        for line, found in stands:
            entry = held.get(line.task) if line.task is not None else None
            right = entry.digest if entry is not None else state.settings if state is not None and line.task is None else b""
            if entry is not None and found == right and line.found is not None:
                entries.append(entry._replace(etag=line.found.etag, size=line.found.size))
                self.recorded += 1
                continue
            if project not in self._shown or (entry is not None and entry.kept) or line.task in gone:
                self.left.append(line._replace(why=f"{line.why}; can't be mended: it is gone from the Source, or the config leaves it out"))
                continue
            self.noted.add((project, line.task))
            wrong += [line] if found not in {b"", right} else []
            if line.task is None:
                settings = state and replace(state, settings=b"")
                continue
            entries += [_doubtful(entry)] if entry is not None else []
            failed.append(Failure(project, line.task, f"its file: {line.why}", entry.revision.last_activity if entry is not None else None))
        kept = self._copy(wrong, pool)
        checkpoint.commit(lease, project, Commit(entries=entries, failed=failed, state=settings))
        self._take_away(kept)  # after the note: whoever dies in between leaves no task without a file that the next Run doesn't know of

    def _gone(self, project: str, tasks: Sequence[str | None]) -> Container[str | None]:
        """Those that the Source proves to be gone; None stands for the settings, which go with their Collection."""
        if project in self._shown:
            return self._job.source.confirm(self._shown[project], some) if (some := [task for task in tasks if task is not None]) else ()
        state = self._job.checkpoint.states(self._job.name).get(project)
        return tasks if tasks and self._job.source.confirm_collection(state.collection if state else Collection(project, project)) else ()

    def _digest(self, line: VerifyLine) -> bytes:
        """Of what stands there; empty: nothing does."""
        data = self._job.target.get(line.key)
        return b"" if data is None else encode.digest(data)

    def _copy(self, lines: Sequence[VerifyLine], pool: ThreadPoolExecutor) -> list[tuple[VerifyLine, bytes]]:
        """Into the trash, durably. Those that were there, each with its digest."""
        copied = [(line, digest) for line, digest in zip(lines, pool.map(self._keep, lines), strict=True) if digest]
        self._job.target.flush()
        return copied

    def _take_away(self, copied: Sequence[tuple[VerifyLine, bytes]]) -> None:
        if copied:
            self._job.target.delete([line.key for line, _ in copied])
            self._job.target.flush()

    def _keep(self, line: VerifyLine) -> bytes:
        data = self._job.target.get(line.key)
        if data is None:
            return b""
        digest = encode.digest(data)
        self._job.target.put(self._layout.trash(line.project, line.task, digest, self._job.clock.now()), data)
        return digest

    def _still_orphans(self, project: str, lines: Sequence[VerifyLine]) -> list[VerifyLine]:
        """Those that the Run left without an Entry, and that the Source says are gone: a task that can't be read has no Entry either (I4)."""
        known, state = self._job.checkpoint.known(self._job.name, project), self._job.checkpoint.states(self._job.name).get(project)
        orphans: list[VerifyLine] = []
        for chunk in chunks(lines):
            held: set[str | None] = {*known.entries([line.task for line in chunk if line.task is not None])}
            rest = [line for line in chunk if line.task not in held | ({None} if state and state.settings else set())]
            gone = self._gone(project, [line.task for line in rest])
            orphans += [line for line in rest if line.task in gone]
            self.left += [line._replace(why=f"{line.why}, and the Source doesn't say that it is gone") for line in rest if line.task not in gone]
        return orphans

    def _may_go(self, orphans: Mapping[str, Sequence[VerifyLine]]) -> bool:
        """The Guard, for orphans: a Checkpoint that lost its Entries must not empty a place."""
        rules, name = self._job.rules.max_delete, self._job.name
        missing = [Missing(p, tuple(line.key for line in some), self._job.checkpoint.size(name, p) + len(some)) for p, some in orphans.items()]
        over = [reason for part in missing if (reason := tripped(part, rules.fraction, rules.at_least))]
        this = plan_id(f"{name} orphans", missing)
        if over and self._confirmed != this:
            self.guard = GuardTripped(f"orphaned files: {'; '.join(over)}", this)
        return self.guard is None


def _doubtful(entry: Entry) -> Entry:
    """An Entry that is put again when its task is read: see `plan.decide`."""
    return entry._replace(revision=entry.revision._replace(counters=(*entry.revision.counters, _NEVER)))
