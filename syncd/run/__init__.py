"""One Run of one Sync, straight down: read, decide, put, record, delete, advance, report.

Knows only the Protocols of the edges. It refuses to reason about times and differences itself (see `plan`), and to go on after an error that
makes the Source or the Target untrustworthy. The order below is the safety (I1-I3): a file is durable before it is recorded, everything of a
reading is recorded before its Cursor advances, a file is gone before its Entry is. The Report is true whatever happens (I8).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from syncd import encode
from syncd.checkpoint.base import Commit, Lease
from syncd.clock import SECOND, format_time
from syncd.context import about
from syncd.errors import CheckpointError, GuardTripped, Stopped, SyncdError, TaskError
from syncd.model import Collection, CollectionState, Event, Failure, Kind, Op, Report, Status, Why
from syncd.plan import Missing, next_cursor
from syncd.run.collections import all_of, quiet, start, undated_due, unmatched, vanished
from syncd.run.deletions import Remover, check, with_files, with_sides
from syncd.run.feed import publish
from syncd.run.history import forgotten
from syncd.run.job import Job, OnProgress, Progress
from syncd.run.outlook import Outlook, outlook, place
from syncd.run.place import Listing, Place
from syncd.run.readahead import read_ahead
from syncd.run.reading import Reading, assess, listed, nothing_stands, readings
from syncd.run.trash import outlived
from syncd.run.writer import Page, Writer
from syncd.scratch import chunks
from syncd.targets.base import Inspected

__all__ = ["Job", "Progress", "run_sync"]
Around = Callable[[Lease, Place], AbstractContextManager[None]]
log = logging.getLogger(__name__)
_COMPACT = str.maketrans("T", "-", "-:")
PARTIAL = 3  # exit code: some tasks failed
INTERRUPTED = 130  # exit code: somebody asked it to stop


def run_sync(
    job: Job,
    *,
    kind: Kind | None = None,
    confirm_deletes: str = "",
    take_over: bool = False,
    on_progress: OnProgress | None = None,
    around: Around | None = None,
) -> Report:
    """One Run. Whatever a Source, a Target or a person can cause is in the Report; raises CheckpointError alone: then nothing can be recorded.

    around: what else is done under this Run's Lease, before it reads and after its deletions.
    """
    started = job.clock.now()
    kind = Kind.FULL if take_over else kind  # nobody knows what the other owner put there
    expected = outlook(job, kind)
    report = Report(job.name, new_run_id(started), expected.kind, started_at=started, place=place(job))
    where = Place(job, take_over=take_over, anew=kind is Kind.FULL or around is not None)
    with about(job.name, report.run_id):
        return _reported(job, report, expected, confirm_deletes, where, on_progress, around)


def new_run_id(started: int) -> str:
    """Sorts by time, and is nobody else's: `20261120-120000-`, five hex digits of microseconds, one by chance."""
    return f"{format_time(started)[:19].translate(_COMPACT)}-{started % SECOND:05x}{secrets.randbelow(16):x}"


def _reported(
    job: Job, report: Report, expected: Outlook, confirm_deletes: str, place: Place, on_progress: OnProgress | None, around: Around | None
) -> Report:
    begun = job.clock.monotonic()
    lease = job.checkpoint.begin(job.name, report.run_id, report.kind, report.started_at, report.place)
    asked = job.source.requests, job.target.requests, job.source.failed.tries, job.target.failed.tries
    run = _Run(job, lease, report, place, Writer(job, lease, place, report, on_progress), expected)
    try:
        with around(lease, place) if around is not None else nullcontext():
            _straight_down(run, confirm_deletes)
    except GuardTripped as error:
        report.guard, report.plan_id = str(error), error.plan_id
    except CheckpointError:
        raise
    except SyncdError as error:
        report.error, report.exit_code = str(error), error.exit_code
    except Stopped:
        report.error, report.exit_code = "interrupted", INTERRUPTED
    finally:
        run.close()
    _publish_quietly(job, lease, place, report)
    _settle(report)
    report.source_requests, report.target_requests = job.source.requests - asked[0], job.target.requests - asked[1]
    report.source_requests_failed = job.source.failed.tries - asked[2]
    report.target_requests_failed = min(report.target_requests, job.target.failed.tries - asked[3])
    report.seconds = job.clock.monotonic() - begun
    full_since = expected.resumed
    if run.went_on and full_since is None:  # silent edits in what the earlier Run read wait no longer than ever: a full Run is due as before
        full_since = job.checkpoint.last_full(job.name) or 0
    job.checkpoint.finish(lease, report, job.clock.now(), full_since=full_since)
    return report


def _settle(report: Report) -> None:
    if report.error:
        report.status = Status.FAILED
    elif report.guard:
        report.status, report.exit_code = Status.GUARDED, GuardTripped.exit_code
    elif report.failed:
        report.status, report.exit_code = Status.PARTIAL, PARTIAL


def _publish_quietly(job: Job, lease: Lease, place: Place, report: Report) -> None:
    try:
        publish(job, lease, place)
    except CheckpointError:
        raise
    except SyncdError as error:
        # the lines stay in the Checkpoint and the next Run writes them; the Run did not end well all the same
        report.error, report.exit_code = report.error or f"the change feed could not be written: {error}", report.exit_code or error.exit_code
    except Stopped:
        report.error, report.exit_code = report.error or "interrupted", INTERRUPTED


@dataclass(slots=True)
class _Run:
    """What the steps below share. went_on: part of a Collection was read by an earlier Run, whose first pass this one goes on with."""

    job: Job
    lease: Lease
    report: Report
    place: Place
    writer: Writer
    expected: Outlook
    listed: Listing | None = None
    went_on: bool = False

    def listing(self, project: str) -> Listing:
        """What stands in the Target: all of it once a full Run, otherwise what could be this Collection's."""
        prefix = "" if self.report.kind is Kind.FULL and self.expected.resumed is None else self.job.layout.folder(project)
        if self.listed is None or self.listed.prefix != prefix:
            if self.listed is not None:
                self.listed.close()
            self.listed = self.place.listing(prefix)
        return self.listed

    def close(self) -> None:
        self.writer.close()
        if self.listed is not None:
            self.listed.close()


def _straight_down(run: _Run, confirm_deletes: str) -> None:
    job = run.job
    if run.report.kind is Kind.FULL:
        job.checkpoint.examine()
        if isinstance(job.target, Inspected) and (wrong := forgotten(job, job.target.inspect())):
            log.warning("%s: %s; %s", job.target.place, wrong.message, wrong.hint)
    collections = job.source.collections()
    states = job.checkpoint.states(job.name)
    if run.expected.moved:  # also one that is hidden, or not named for now: it is read anew when it is shown again
        run.place.claim()  # refused: nothing was begun
        for id_, state in states.items():
            job.checkpoint.commit(run.lease, id_, Commit(state=CollectionState(state.collection)))
    missing: list[Missing] = []
    skipped = quiet(job, run.expected, collections, states)
    for collection in run.expected.order([c for c in collections if c.id not in skipped], states):
        missing += _back_up(run, collection, states.get(collection.id))
    gone = vanished(job, collections, states)
    run.report.failed.extend(unmatched(job, collections, gone, states))
    missing += (all_of(job, c) for c in gone)
    _follow_deletions(run, {c.id: c for c in [*collections, *gone]}, missing, confirm_deletes)
    for collection in gone:
        left = next(job.checkpoint.known(job.name, collection.id).all_ids(), None)
        if left is None and job.checkpoint.kept(job.name, collection.id) == 0:
            Remover(job, run.lease, run.place, run.writer, run.report).drop(collection.id, states[collection.id].settings)
    if run.report.kind is Kind.FULL and run.expected.resumed is None:  # that one does without a listing of everything
        for some in chunks(outlived(job, run.listing("").keys)):
            job.target.delete(some)


def _follow_deletions(run: _Run, collections: dict[str, Collection], missing: Sequence[Missing], confirm_deletes: str) -> None:
    check(run.job, missing, confirm_deletes)
    remover = Remover(run.job, run.lease, run.place, run.writer, run.report)
    for part in missing:
        remover.remove(collections[part.project], part)


def _back_up(run: _Run, collection: Collection, state: CollectionState | None) -> list[Missing]:
    """Everything of one Collection but its deletions; those are returned."""
    job = run.job
    state = start(collection, state, moved=run.expected.moved)
    before = job.checkpoint.size(job.name, collection.id)
    cursor = state.cursor
    state = _keep_settings(run, state)
    missing: dict[str, None] = {}
    for reading in readings(run.expected.kind_of(state), state, int(job.rules.overlap * SECOND)):
        state, found = _read(run, state, reading)
        missing.update(dict.fromkeys(found))
    if state.cursor != cursor:
        run.report.cursors[collection.id] = (cursor, state.cursor)
    live, over = with_files(job.checkpoint.known(job.name, collection.id), list(missing))
    if over:
        job.checkpoint.commit(run.lease, collection.id, Commit(cleared=over))
    return [Missing(collection.id, tuple(live), before)] if live else []


def _keep_settings(run: _Run, state: CollectionState) -> CollectionState:
    """`_project.json`, put when it differs from what was put last, and recorded after it (I1). A full Run looks at the file itself."""
    job, project = run.job, state.collection.id
    try:
        file = encode.task_file(job.layout.settings(project), job.source.settings(state.collection))
        if file.digest == state.settings and run.report.kind is not Kind.FULL:
            return state
        run.place.claim()
        found = job.target.get(file.key)
        right = found == file.data  # the Checkpoint may not know: it may be new, or wrong
        if right and file.digest == state.settings:
            return state
        if found is not None and not right and not state.settings:  # those of a Collection that had this id before, for all we know
            job.target.put(job.layout.trash(project, None, encode.digest(found), job.clock.now()), found)
            job.target.flush()
        if not right:
            job.target.put(file.key, file.data)
    except TaskError as error:
        run.report.failed.append(Failure(project, None, f"its settings: {error}"))
        return replace(state, collection=replace(state.collection, counters=()))  # so that the next Run says so, too
    job.target.flush()
    state = replace(state, settings=file.digest)
    told = [Event(Op.PUT, Why.SETTINGS, project, None, file.digest, 0, job.clock.now())] if run.expected.unsure or not right else []
    job.checkpoint.commit(run.lease, project, Commit(events=told, state=state))
    run.report.bytes_written += 0 if right else len(file.data)
    return state


def _read(run: _Run, state: CollectionState, reading: Reading) -> tuple[CollectionState, list[str]]:
    """One reading, put and recorded, its Cursor advanced; the state after it and the ids it found missing."""
    job, project, first = run.job, state.collection.id, state.cursor is None
    known = job.checkpoint.known(job.name, project)
    now = job.clock.now()
    drafts = reading.since is None or undated_due(job, state)
    run.went_on |= reading.position is not None
    listing = run.listing(project) if listed(job, state, reading) else None
    if first and listing is not None and reading.position is None:
        state = replace(state, fresh=nothing_stands(job, project, listing))
    anew = first and reading.position is None and known.size() > 0  # its Entries may tell of another place
    failing, missing, unread = set(known.failing()), list[str](), list[Failure]()
    earned = state.pass_cursor  # a resumed pass earns what it began with, or what changed behind its position would be missed
    recorded = bool(failing)
    stream = job.source.changes(state.collection, reading.since, known, position=reading.position, drafts=drafts)
    for batch in read_ahead(stream, job.clock) if job.source.waits else stream:
        job.clock.wait(0)  # a request to stop is heard here
        earned = batch.cursor if reading.position is None else earned
        if first and batch.position is not None:
            state = replace(state, position=batch.position, pass_cursor=earned)
        run.writer.settle({task.id for task in batch.tasks})
        steps, failed = assess(job.layout, project, batch.tasks, known, listing, unsure=run.expected.unsure, failing=failing)
        failed = [*batch.failed, *failed]
        unread += (f for f in failed if f.task is None)
        missing += batch.missing
        cleared = [step.task for step in steps if step.task in failing]
        total = state.collection.tasks if reading.since is None else None  # else only what changed is read
        page = Page(project, state.collection.title, total, steps, failed, cleared, batch.notes, state if first else None)
        recorded = recorded or bool(steps or failed)
        run.writer.submit(page)
    run.writer.drain()
    left = job.checkpoint.failures(job.name, collection=project)
    if run.expected.moved and left:
        job.checkpoint.commit(run.lease, project, Commit(forgotten=with_sides(known, left), failed=left))  # none of their files came here (I1)
    held = [f.last_activity for f in [*unread, *left]]
    floor = state.cursor
    if reading.since is None and floor is not None and earned is not None:
        floor = min(floor, earned)  # everything was read: a Cursor ahead of the Source (its clock was wrong, a bit flipped) comes back
    whole = reading.position is None and not held and not missing  # what this look leaves over, the next Run looks at again
    after = replace(
        state,
        cursor=None if anew and unread else next_cursor(floor, earned, held),  # what could not be read stands here only once it was
        position=None,
        pass_cursor=None,
        fresh=False,
        drafts_at=now if drafts else state.drafts_at,
        counters=state.collection.counters if whole else (),
    )
    return _advance(run, state, after, recorded=recorded), [] if unread else missing  # what could not be read may hold them (I4)


def _advance(run: _Run, before: CollectionState, after: CollectionState, *, recorded: bool) -> CollectionState:
    """Record the new state, unless nothing happened and the old Cursor is still young: an idle Run writes nothing but its own row."""
    overlap = int(run.job.rules.overlap * SECOND)
    moved = (after.cursor or 0) - (before.cursor or 0)
    seen = (after.drafts_at, after.counters) != (before.drafts_at, before.counters)
    if before.cursor is None or recorded or moved > overlap or seen:
        run.job.checkpoint.commit(run.lease, after.collection.id, Commit(state=after))
        return after
    return before
