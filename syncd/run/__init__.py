"""One Run of one Sync, straight down: read, decide, put, record, delete, advance, report.

Knows only the Protocols of the edges. It refuses to reason about times and differences itself (see `plan`), and to go on after an error that
makes the Source or the Target untrustworthy. The order below is the safety (I1-I3): a file is durable before it is recorded, everything of a
reading is recorded before its Cursor advances, a file is gone before its Entry is. The Report is true whatever happens (I8).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from syncd import encode
from syncd.checkpoint.base import Commit, Lease
from syncd.clock import SECOND, format_time
from syncd.errors import CheckpointError, GuardTripped, Stopped, SyncdError
from syncd.model import Collection, CollectionState, Event, Failure, Kind, Op, Report, Status, Why
from syncd.plan import Missing, next_cursor
from syncd.run.collections import start, unmatched, vanished
from syncd.run.deletions import Remover, check
from syncd.run.feed import publish
from syncd.run.job import Job, OnProgress, Progress
from syncd.run.place import Listing, Place, rescue
from syncd.run.readahead import read_ahead
from syncd.run.reading import Reading, assess, readings
from syncd.run.trash import empty_trash
from syncd.run.writer import Page, Writer

__all__ = ["Job", "Progress", "due", "run_sync"]
_COMPACT = str.maketrans("T", "-", "-:")
_CHUNK = 500
PARTIAL = 3  # exit code: some tasks failed


def due(job: Job) -> Kind:
    """Which kind of Run is due: full when none ended within `full_every`, or when the clock stands before the last one."""
    last, now = job.checkpoint.last_full(job.name), job.clock.now()
    return Kind.INCREMENTAL if last is not None and 0 <= now - last < job.rules.full_every * SECOND else Kind.FULL


def run_sync(
    job: Job, *, kind: Kind | None = None, confirm_deletes: str = "", take_over: bool = False, on_progress: OnProgress | None = None
) -> Report:
    """One Run. Whatever a Source, a Target or a person can cause is in the Report; raises CheckpointError alone: then nothing can be recorded."""
    started, begun = job.clock.now(), job.clock.monotonic()
    run_id = f"{format_time(started)[:19].translate(_COMPACT)}-{secrets.token_hex(3)}"
    report = Report(job.name, run_id, kind or due(job), started_at=started)
    lease = job.checkpoint.begin(job.name, run_id, report.kind, started)
    asked = job.source.requests, job.target.requests
    place = Place(job, take_over=take_over)
    writer = Writer(job, lease, place, report, on_progress)
    try:
        _straight_down(_Run(job, lease, report, place, writer), confirm_deletes)
    except GuardTripped as error:
        report.guard, report.plan_id = str(error), error.plan_id
    except CheckpointError:
        raise
    except SyncdError as error:
        report.error, report.exit_code = str(error), error.exit_code
    except Stopped:
        report.error, report.exit_code = "interrupted", 130
    finally:
        writer.close()
    _publish_quietly(job, lease, place, report)
    _settle(report)
    report.source_requests, report.target_requests = job.source.requests - asked[0], job.target.requests - asked[1]
    report.seconds = job.clock.monotonic() - begun
    job.checkpoint.finish(lease, report, job.clock.now())
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
        report.error, report.exit_code = report.error or "interrupted", 130


@dataclass(slots=True)
class _Run:
    """What the steps below share."""

    job: Job
    lease: Lease
    report: Report
    place: Place
    writer: Writer
    whole_listing: Listing | None = None

    def listing(self, project: str) -> Listing:
        """What stands in the Target: all of it once a full Run, otherwise what could be this Collection's."""
        if self.report.kind is not Kind.FULL:
            return self.place.listing(self.job.layout.folder(project))
        if self.whole_listing is None:
            self.whole_listing = self.place.listing("")
        return self.whole_listing


def _straight_down(run: _Run, confirm_deletes: str) -> None:
    job = run.job
    publish(job, run.lease, run.place)  # what a killed Run left unsaid
    collections = job.source.collections()
    states = job.checkpoint.states(job.name)
    run.report.failed.extend(unmatched(job, collections, states))
    missing: list[Missing] = []
    for collection in collections:
        missing += _back_up(run, collection, states.get(collection.id))
    gone = vanished(job, collections, states)
    missing += (Missing(c.id, tuple(job.checkpoint.known(job.name, c.id).all_ids()), job.checkpoint.size(job.name, c.id), whole=True) for c in gone)
    _follow_deletions(run, {c.id: c for c in [*collections, *gone]}, missing, confirm_deletes)
    for collection in gone:
        if job.checkpoint.size(job.name, collection.id) == 0 and job.checkpoint.kept(job.name, collection.id) == 0:
            Remover(job, run.lease, run.place, run.writer, run.report).drop(collection.id, states[collection.id].settings)
    if run.whole_listing is not None:
        empty_trash(job, run.whole_listing.keys())


def _follow_deletions(run: _Run, collections: dict[str, Collection], missing: Sequence[Missing], confirm_deletes: str) -> None:
    check(run.job, missing, confirm_deletes)
    remover = Remover(run.job, run.lease, run.place, run.writer, run.report)
    for part in missing:
        remover.remove(collections[part.project], part)


def _back_up(run: _Run, collection: Collection, state: CollectionState | None) -> list[Missing]:
    """Everything of one Collection but its deletions; those are returned."""
    job = run.job
    if state is not None and state.collection.created_at != collection.created_at and state.settings:
        rescue(job, job.layout.settings(collection.id), state.settings, job.layout.trash_settings(collection.id, state.settings, job.clock.now()))
    state = start(collection, state)
    before = job.checkpoint.size(job.name, collection.id)
    cursor = state.cursor
    state = _keep_settings(run, state)
    missing: dict[str, None] = {}
    for reading in readings(run.report.kind, state, int(job.rules.overlap * SECOND)):
        state, found = _read(run, state, reading)
        missing.update(dict.fromkeys(found))
    if state.cursor != cursor:
        run.report.cursors[collection.id] = (cursor, state.cursor)
    tasks = _with_files(run, collection.id, list(missing))
    return [Missing(collection.id, tasks, before)] if tasks else []


def _with_files(run: _Run, project: str, missing: list[str]) -> tuple[str, ...]:
    """The missing ids that have a file to lose. The others failed before they ever had one: their failure is over."""
    known, live, over = run.job.checkpoint.known(run.job.name, project), list[str](), list[str]()
    for start_at in range(0, len(missing), _CHUNK):
        chunk = missing[start_at : start_at + _CHUNK]
        entries = known.entries(chunk)
        live += [task for task in chunk if task in entries and not entries[task].kept]
        over += [task for task in chunk if task not in entries]
    if over:
        run.job.checkpoint.commit(run.lease, project, Commit(forgotten=over))
    return tuple(live)


def _keep_settings(run: _Run, state: CollectionState) -> CollectionState:
    """`_project.json`, put when it differs from what was put last, and recorded after it (I1)."""
    job, project = run.job, state.collection.id
    file = encode.task_file(job.layout.settings(project), job.source.settings(state.collection))
    healthy = run.report.kind is not Kind.FULL or file.key in run.listing(project).find([file.key])
    if file.digest == state.settings and healthy:
        return state
    run.place.claim()
    job.target.put(file.key, file.data)
    job.target.flush()
    state = replace(state, settings=file.digest)
    event = Event(Op.PUT, Why.SETTINGS, project, None, file.digest, 0, job.clock.now())
    job.checkpoint.commit(run.lease, project, Commit(events=[event], state=state))
    run.report.bytes_written += len(file.data)
    return state


def _read(run: _Run, state: CollectionState, reading: Reading) -> tuple[CollectionState, list[str]]:
    """One reading, put and recorded, its Cursor advanced; the state after it and the ids it found missing."""
    job, project, first = run.job, state.collection.id, state.cursor is None
    known = job.checkpoint.known(job.name, project)
    now = job.clock.now()
    drafts = reading.since is None or now - state.drafts_at >= job.rules.drafts_every * SECOND
    looked = reading == Reading(None)
    listing = run.listing(project) if looked else None
    failing, missing, unread = set(known.failing()), list[str](), list[Failure]()
    earned = state.pass_cursor if reading.position is not None else None
    recorded = bool(failing)
    stream = job.source.changes(state.collection, reading.since, known, position=reading.position, drafts=drafts)
    for batch in read_ahead(stream, job.clock):
        earned = batch.cursor if earned is None or reading.position is None else earned
        if first and batch.position is not None:
            state = replace(state, position=batch.position, pass_cursor=earned)
        steps, failed = assess(job.layout, project, batch.tasks, known, listing, looked=looked)
        failed = [*batch.failed, *failed]
        unread += (f for f in failed if f.task is None)
        missing += batch.missing
        cleared = [step.task for step in steps if step.task in failing]
        page = Page(project, state.collection.title, state.collection.tasks, steps, failed, cleared, batch.notes, state if first else None)
        recorded = recorded or bool(steps or failed)
        run.writer.submit(page)
    run.writer.drain()
    held = [f.last_activity for f in [*unread, *(f for f in job.checkpoint.failures(job.name) if f.project == project)]]
    after = replace(
        state, cursor=next_cursor(state.cursor, earned, held), position=None, pass_cursor=None, drafts_at=now if drafts else state.drafts_at
    )
    return _advance(run, state, after, recorded=recorded), missing


def _advance(run: _Run, before: CollectionState, after: CollectionState, *, recorded: bool) -> CollectionState:
    """Record the new state, unless nothing happened and the old Cursor is still young: an idle Run writes nothing but its own row."""
    overlap = int(run.job.rules.overlap * SECOND)
    moved = (after.cursor or 0) - (before.cursor or 0)
    if before.cursor is None or recorded or moved > overlap or after.drafts_at != before.drafts_at:
        run.job.checkpoint.commit(run.lease, after.collection.id, Commit(state=after))
        return after
    return before
