"""`syncd plan`: the same reading and the same decisions as a Run, and nothing touched: no put, no delete, no commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from syncd.clock import SECOND
from syncd.errors import GuardTripped
from syncd.model import CollectionState, Failure, Kind
from syncd.plan import Action, Missing
from syncd.run import due
from syncd.run.deletions import check
from syncd.run.job import Job
from syncd.run.place import Listing
from syncd.run.reading import assess, readings
from syncd.run.writer import Step


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One line of a Plan. sign: `+` new, `~` changed or healed, `-` deleted, `!` error or Guard; task None: a whole Collection or file."""

    sign: str
    project: str
    task: str | None
    why: str


def plan_sync(job: Job, kind: Kind | None = None) -> Iterator[PlanLine]:
    """What a Run would do now, as it is found out. Raises SourceError, TargetError and AccessError like a Run."""
    kind = kind or due(job)
    states = job.checkpoint.states(job.name)
    missing: list[Missing] = []
    for collection in job.source.collections():
        state = states.get(collection.id)
        if state is None or state.collection.created_at != collection.created_at:
            state = CollectionState(collection)
        missing_here: list[str] = []
        for reading in readings(kind, state, int(job.rules.overlap * SECOND)):
            listing = Listing(job, job.layout.folder(collection.id)) if reading.since is None and reading.position is None else None
            known = job.checkpoint.known(job.name, collection.id)
            for batch in job.source.changes(collection, reading.since, known, position=reading.position):
                steps, failed = assess(job.layout, collection.id, batch.tasks, known, listing, looked=listing is not None)
                yield from (line for step in steps if (line := _step(step)) is not None)
                yield from (_failure(failure) for failure in [*batch.failed, *failed])
                missing_here += batch.missing
        gone = job.source.confirm(collection, missing_here)
        yield from (PlanLine("-", collection.id, task, how.value) for task, how in gone.items())
        missing.append(Missing(collection.id, tuple(gone), job.checkpoint.size(job.name, collection.id)))
        present = {collection.id}
        states = {id_: state for id_, state in states.items() if id_ not in present}
    for state in states.values():
        if job.source.confirm_collection(state.collection):
            tasks = tuple(job.checkpoint.known(job.name, state.collection.id).all_ids())
            yield from (PlanLine("-", state.collection.id, task, "deleted") for task in tasks)
            missing.append(Missing(state.collection.id, tasks, len(tasks), whole=True))
    try:
        check(job, missing, "")
    except GuardTripped as error:
        yield PlanLine("!", job.name, None, f"the Guard would stop these deletions: {error} (plan {error.plan_id})")


def _step(step: Step) -> PlanLine | None:
    signs = {Action.PUT: "~", Action.REPLACE: "~", Action.COMPARE: "~"}
    sign = signs.get(step.decision.action)
    if sign is None:
        return None
    return PlanLine("+" if step.entry is None and step.found is None else sign, step.project, step.task, step.decision.why.value)


def _failure(failure: Failure) -> PlanLine:
    return PlanLine("!", failure.project, failure.task, failure.error)
