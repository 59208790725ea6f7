"""Putting pages in parallel and recording them in order.

Refuses to decide: each Step says what to do. Rules: a page is recorded only when its files are durable (I1), in one transaction, in the order
the pages were read, so that a recorded position never passes an unwritten task (I2). After the first error that stops the Run nothing new is
begun, what is already durable is still recorded, and no position, note or end of a failure is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from syncd import encode
from syncd.checkpoint.base import Commit, Lease
from syncd.errors import SyncdError, TaskError
from syncd.model import CollectionState, Counts, Entry, Event, Failure, Op, Report, Revision, Stat, TaskFile, Why
from syncd.plan import Action, Decision
from syncd.run.history import Keeper
from syncd.run.job import Job, OnProgress, Progress
from syncd.run.place import Place, rescue, stands
from syncd.sources import rows

T = TypeVar("T")
R = TypeVar("R")
_FASTEST = 5_000  # Steps a second: more than one process can encode and record, so more threads than this needs only fight for the interpreter
_FEWEST = 4  # threads
_GUESS = 0.02  # seconds a put takes, before the first one was seen; more than that needs no more threads than there are
_QUICK = 0.002  # seconds: a Target that answers faster makes nobody wait, and pages are done one after the other
_PAGES = 4  # pages in flight: enough that the pool never waits for a commit, few enough that memory stays flat


class Step(NamedTuple):
    """What to do about one task; its body is gone, its bytes are in `file`. looked: the Target was listed, and `found` is what it listed there;
    unsure: an earlier Run may have put it, and told nobody.
    """

    project: str
    task: str
    revision: Revision
    counts: Counts
    drafts: bool
    file: TaskFile
    entry: Entry | None
    looked: bool
    found: Stat | None
    decision: Decision
    unsure: bool


@dataclass(frozen=True, slots=True)
class Page:
    """What one commit covers. state replaces the Collection's state once all of it is safe; cleared: failures that are over."""

    project: str
    title: str
    total: int | None
    steps: Sequence[Step]
    failed: Sequence[Failure] = ()
    cleared: Sequence[str] = ()
    notes: Mapping[str, bytes | None] = field(default_factory=dict)
    state: CollectionState | None = None


class Outcome(NamedTuple):
    """What became of a Step: an Entry to record, or a Failure, or neither when it was not begun any more.

    put: its file was put, or is to be; trashed: the digest of the file it replaced, if that is in the trash; kept: it came there or into the history
    just now.
    """

    step: Step
    entry: Entry | None = None
    put: bool = False
    trashed: bytes = b""
    kept: bool = False
    error: SyncdError | None = None


class Writer:
    """The upload pool and the committing thread of one Run."""

    def __init__(self, job: Job, lease: Lease, place: Place, report: Report, on_progress: OnProgress | None) -> None:
        self._job, self._lease, self._place, self._report, self._on_progress = job, lease, place, report, on_progress
        self._layout, self._history = job.layout, Keeper(job)
        self._failed: dict[tuple[str, str | None, str], Failure] = {}  # a task may be read twice in one Run: its last try counts
        self._read: dict[str, int] = {}
        self._latency, self._flushing = _GUESS, 0.0  # seconds of one put, of one flush
        self._broken = threading.Event()
        self._pool = ThreadPoolExecutor(job.target.concurrency, thread_name_prefix="syncd-put")
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="syncd-commit")
        self._commits: deque[tuple[Future[None], frozenset[str]]] = deque()  # with the tasks that each is about

    def submit(self, page: Page) -> None:
        """Begin a page; waits while too many are in flight; raises what stopped an earlier one."""
        steps = [step for step in page.steps if step.decision.action is not Action.NOTHING]
        # one slice for each thread that is worth waking: as wide as one future for each Step, and a tenth of its cost
        slices = min(len(steps), self._job.target.concurrency, max(_FEWEST, round(self._latency * _FASTEST)))
        if steps:
            self._place.claim()
        work = [self._pool.submit(self._carry_out, steps[number::slices]) for number in range(slices)]
        self._commits.append((self._committer.submit(self._commit, page, work), frozenset(step.task for step in steps)))
        # threads that never wait only take the interpreter from one another: measured, a third of a Run's CPU for the same wall
        while len(self._commits) >= (1 if max(self._latency, self._flushing) < _QUICK else _PAGES):
            self._commits.popleft()[0].result()

    def settle(self, tasks: Iterable[str]) -> None:
        """Return when none of these is in flight: a Source may give a task twice in one reading, and its two versions must not race."""
        if not all(ids.isdisjoint(tasks) for _, ids in self._commits):
            self.drain()

    def drain(self) -> None:
        """Return when everything submitted is recorded; raises the first error that stopped something."""
        while self._commits:
            self._commits.popleft()[0].result()

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results in order, many at a time."""
        return list(self._pool.map(work, items))

    def close(self) -> None:
        """End the threads and tell what failed. What was submitted is finished and recorded, unless something broke."""
        self._committer.shutdown(wait=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._report.failed.extend(self._failed.values())

    def _carry_out(self, steps: Sequence[Step]) -> list[Outcome]:
        """First what must be safe before a put takes its place, durably; then the puts."""
        outcomes, spent, clock = [], [], self._job.clock
        for step in steps:
            begun = clock.monotonic()
            outcomes.append(self._attempt(self._prepare, Outcome(step)))
            spent.append(clock.monotonic() - begun)
        if any(outcome.kept for outcome in outcomes):
            self._job.target.flush()
        for number, outcome in enumerate(outcomes):
            if outcome.put:
                begun = clock.monotonic()
                outcomes[number] = self._attempt(self._put, outcome)
                spent[number] += clock.monotonic() - begun
        # of each slice the fastest, since the others waited for one another; unlocked, since every value was true a moment ago
        self._latency += (min(_GUESS, *spent) - self._latency) / 8
        return outcomes

    def _attempt(self, act: Callable[[Outcome], Outcome], so_far: Outcome) -> Outcome:
        if self._broken.is_set():
            return Outcome(so_far.step)
        try:
            return act(so_far)
        except TaskError as error:
            return Outcome(so_far.step, error=error)
        except SyncdError as error:
            self._broken.set()
            return Outcome(so_far.step, error=error)
        except BaseException:
            self._broken.set()
            raise

    def _prepare(self, begun: Outcome) -> Outcome:
        """All but the put, if one is needed."""
        step = begun.step
        file, found, action = step.file, step.found, step.decision.action
        if action is Action.RECORD and step.entry is not None:
            # the Entry's own digest: of a volatile task other bytes were read than those that stand in the Target (I1)
            return Outcome(step, _entry(step, step.entry.etag)._replace(digest=step.entry.digest, size=step.entry.size))
        if action is Action.COMPARE and found is not None and stands(self._job, file, found):
            return Outcome(step, _entry(step, found.etag))
        trashed = b""
        if action is Action.REPLACE and step.entry is not None:
            # whatever on_delete says, since no Guard watches a put
            trash = self._layout.trash(step.project, step.task, step.entry.digest, self._job.clock.now())
            trashed = step.entry.digest if rescue(self._job, file.key, step.entry.digest, trash) else b""
        kept = self._history.keep(step)
        aside = b"" if kept else self._set_aside(step)
        return Outcome(step, put=True, trashed=trashed or aside, kept=kept or bool(aside))

    def _set_aside(self, step: Step) -> bytes:
        """Where the Checkpoint was lost, the file that stands there may be the last one of another task, which had this id before: its digest."""
        if step.entry is not None or (step.found is None if step.looked else not self._place.inherited):
            return b""
        data = self._job.target.get(step.file.key)
        if data is None or not _of_another(data, step.revision):
            return b""
        digest = encode.digest(data)
        self._job.target.put(self._layout.trash(step.project, step.task, digest, self._job.clock.now()), data)
        return digest

    def _put(self, ready: Outcome) -> Outcome:
        step = ready.step
        return Outcome(step, _entry(step, self._job.target.put(step.file.key, step.file.data)), put=True, trashed=ready.trashed)

    def _commit(self, page: Page, work: Sequence[Future[list[Outcome]]]) -> None:
        try:
            outcomes = [outcome for future in work for outcome in future.result()]
            if any(outcome.put for outcome in outcomes):
                begun = self._job.clock.monotonic()
                self._job.target.flush()
                self._flushing = self._job.clock.monotonic() - begun
            self._record(page, outcomes)
        except BaseException:
            self._broken.set()
            raise
        fatal = next((o.error for o in outcomes if o.error is not None and not isinstance(o.error, TaskError)), None)
        if fatal is not None:
            raise fatal

    def _record(self, page: Page, outcomes: Sequence[Outcome]) -> None:
        failed = [*page.failed, *(_failure(page.project, o) for o in outcomes if o.error is not None)]
        whole = not self._broken.is_set()
        now = self._job.clock.now()
        commit = Commit(
            entries=[o.entry for o in outcomes if o.entry is not None],
            failed=failed,
            cleared=page.cleared if whole else (),
            events=[event for o in outcomes if o.entry is not None for event in self._events(page.project, o, now)],
            notes=page.notes if whole and not failed else {},
            state=page.state if whole else None,
        )
        if any((commit.entries, commit.failed, commit.cleared, commit.events, commit.notes, commit.state)):
            self._job.checkpoint.commit(self._lease, page.project, commit)
        self._count(page, outcomes, failed)

    def _events(self, project: str, outcome: Outcome, now: int) -> list[Event]:
        step, old = outcome.step, outcome.step.entry
        action, why = step.decision
        adopted = action is Action.COMPARE and not outcome.put
        if not outcome.put and not (adopted and step.unsure):
            return []
        put = Event(Op.PUT, why, project, step.task, step.file.digest, step.revision.last_activity, now)
        if not outcome.trashed:
            return [put]
        return [Event(Op.TRASH, Why.DELETED, project, step.task, outcome.trashed, old.revision.last_activity if old else 0, now), put]

    def _count(self, page: Page, outcomes: Sequence[Outcome], failed: Sequence[Failure]) -> None:
        report, tasks = self._report, sum(step.counts.tasks for step in page.steps)  # side files are none
        for step in page.steps:
            self._failed.pop((page.project, step.task, ""), None)
        self._failed.update(((f.project, f.task, f.error if f.task is None else ""), f) for f in failed)
        report.unchanged += tasks - sum(outcome.step.counts.tasks for outcome in outcomes)
        for outcome in outcomes:
            if outcome.entry is None:
                continue
            (action, why), one = outcome.step.decision, outcome.step.counts.tasks
            if outcome.put:
                report.bytes_written += len(outcome.step.file.data)
                report.healed += one * (why is Why.HEALED)
                report.written += one * (why is not Why.HEALED)
                report.trashed += one * bool(outcome.trashed)
            elif action is Action.COMPARE:
                report.adopted += one
            else:
                report.unchanged += one
        if self._on_progress is not None:
            read = self._read[page.project] = self._read.get(page.project, 0) + tasks + len(page.failed)
            self._on_progress(Progress(page.project, page.title, page.total, read, report.written, len(self._failed), report.bytes_written))


def _of_another(data: bytes, revision: Revision) -> bool:
    """Whether this file says that it is of a task made at another time."""
    try:
        body = encode.parse(data)
    except TaskError:
        return False
    made = rows.created_at(body) if isinstance(body, dict) else 0
    return made not in {0, revision.created_at}


def _entry(step: Step, etag: bytes) -> Entry:
    return Entry(step.task, step.revision, step.counts, step.file.digest, len(step.file.data), etag, step.drafts)


def _failure(project: str, outcome: Outcome) -> Failure:
    return Failure(project, outcome.step.task, str(outcome.error), outcome.step.revision.last_activity)
