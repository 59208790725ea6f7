"""`syncd plan`: the same reading and the same decisions as a Run, and nothing touched: no put, no delete, no commit."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from syncd.clock import SECOND
from syncd.errors import GuardTripped
from syncd.model import Collection, CollectionState, Failure, Kind
from syncd.plan import Action, Missing
from syncd.run import PARTIAL
from syncd.run.collections import all_of, quiet, start, unmatched, vanished
from syncd.run.deletions import check, with_files
from syncd.run.job import Job
from syncd.run.outlook import Outlook, outlook
from syncd.run.place import Listing, Place, stands
from syncd.run.reading import assess, listed, readings
from syncd.run.writer import Step


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One line of a Plan. sign: `+` new, `~` changed or healed, `-` deleted, `!` error or Guard; task None: a whole Collection or file.

    exit_code: what this line alone makes of the command: 0, 1 for an emptied place, 3 for a failure, 11 for another owner's, 20 for the Guard.
    """

    sign: str
    project: str
    task: str | None
    why: str
    exit_code: int = 0


def plan_sync(job: Job, kind: Kind | None = None) -> Iterator[PlanLine]:
    """What a Run would do now, line by line as it is found out. Raises SourceError, TargetError and AccessError where a Run would fail."""
    expected, writes = outlook(job, kind), False
    for line in _lines(job, expected):
        writes |= line.sign != "!"
        yield line
    # a Run that writes nothing does not ask whose place it is; a full one always does
    if (writes or expected.kind is Kind.FULL) and (refusal := Place(job, take_over=False, anew=kind is Kind.FULL).refusal()):
        yield PlanLine("!", job.name, None, f"a Run would be refused: {refusal}", refusal.exit_code)


def _lines(job: Job, expected: Outlook) -> Iterator[PlanLine]:
    collections, states = job.source.collections(), job.checkpoint.states(job.name)
    missing: list[Missing] = []
    skipped = quiet(job, expected, collections, states)
    for collection in expected.order([c for c in collections if c.id not in skipped], states):
        candidates = yield from _collection(job, expected, start(collection, states.get(collection.id), moved=expected.moved))
        gone = job.source.confirm(collection, candidates) if candidates else {}
        yield from (PlanLine("-", collection.id, task, how) for task, how in gone.items())
        missing.append(Missing(collection.id, tuple(candidates), job.checkpoint.size(job.name, collection.id)))
    vanished_ = vanished(job, collections, states)
    yield from map(_failure, unmatched(job, collections, vanished_, states))
    for collection in vanished_:
        tasks = job.checkpoint.known(job.name, collection.id).all_ids()
        yield from (PlanLine("-", collection.id, task, "deleted") for task in tasks)
        missing.append(all_of(job, collection))
    try:
        check(job, missing, "")
    except GuardTripped as error:
        yield PlanLine("!", job.name, None, f"the Guard would stop the deletions: {error} (Plan {error.plan_id})", error.exit_code)


def _collection(job: Job, expected: Outlook, state: CollectionState) -> Generator[PlanLine, None, list[str]]:
    collection: Collection = state.collection
    known = job.checkpoint.known(job.name, collection.id)
    missing: dict[str, None] = {}
    failing = known.failing()
    for reading in readings(expected.kind_of(state), state, int(job.rules.overlap * SECOND)):
        listing = Listing(job, job.layout.folder(collection.id)) if listed(job, state, reading) else None
        for batch in job.source.changes(collection, reading.since, known, position=reading.position, plan=True):
            steps, failed = assess(job.layout, collection.id, batch.tasks, known, listing, unsure=expected.unsure, failing=failing)
            with ThreadPoolExecutor(job.target.concurrency) as pool:
                yield from filter(None, pool.map(partial(_step, job), steps))
            yield from map(_failure, [*batch.failed, *failed])
            missing.update(dict.fromkeys(batch.missing))
    return with_files(known, list(missing))[0]


def _step(job: Job, step: Step) -> PlanLine | None:
    if step.decision.action in {Action.NOTHING, Action.RECORD}:
        return None
    if step.decision.action is Action.COMPARE and stands(job, step.file, step.found):
        return None  # a Run would adopt it
    sign = "+" if step.decision.action is Action.PUT and step.entry is None else "~"
    return PlanLine(sign, step.project, step.task, step.decision.why)


def _failure(failure: Failure) -> PlanLine:
    return PlanLine("!", failure.project, failure.name, failure.error, PARTIAL)
