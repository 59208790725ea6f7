"""Which Collections a Run deals with, and how each of them starts. Asks the Source only about those it no longer shows; touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from syncd import keys
from syncd.clock import SECOND
from syncd.errors import SourceError
from syncd.model import Collection, CollectionState, Failure, Kind
from syncd.plan import Missing, digest_of
from syncd.run.job import Job
from syncd.run.outlook import Outlook

States = Mapping[str, CollectionState]
FEW = 100  # Collections: asking so many each Run costs no more than seconds, and what no counter shows is seen at once


def start(collection: Collection, state: CollectionState | None, *, moved: bool) -> CollectionState:
    """The state a Run starts from. Another created_at under the same id is another Collection: it is read from the beginning, and what the old one
    had and this one lacks is missing. moved: see `Outlook`; what was read before stands elsewhere.
    """
    if state is None or state.collection.created_at != collection.created_at or moved:
        return CollectionState(collection)
    return replace(state, collection=collection)


def undated_due(job: Job, state: CollectionState) -> bool:
    """Whether it is time to look for what the Source neither dates nor counts; also when the clock was set back."""
    return not 0 <= job.clock.now() - state.drafts_at < job.rules.drafts_every * SECOND


def quiet(job: Job, expected: Outlook, collections: Sequence[Collection], states: States) -> set[str]:
    """Ids of those that an incremental Run over many Collections need not look at: the list itself shows the numbers of their last look.

    Not one with a failure, an unfinished pass or settings to put (again: see `repair`); and none for longer than `drafts_every`, since what moves no
    number (see the Source) is missed here. All are looked at after a Run that was cut short: what it put may be gone from the Source again, and the
    numbers what they were.
    """
    if expected.kind is Kind.FULL or expected.unsure or len(collections) <= FEW:
        return set()
    failing = {failure.project for failure in job.checkpoint.failures(job.name)}

    def same(collection: Collection, state: CollectionState | None) -> bool:
        if state is None or state.cursor is None or not state.counters or not state.settings or collection.id in failing:
            return False
        before = replace(state.collection, tasks=collection.tasks, counters=state.counters)
        return collection == before and not undated_due(job, state)

    return {collection.id for collection in collections if same(collection, states.get(collection.id))}


def unmatched(job: Job, collections: Sequence[Collection], gone: Sequence[Collection], states: States) -> list[Failure]:
    """Collections that the config means and the Source neither shows nor has lost: silence would look like a backup (I8).

    Raises SourceError when nothing is shown at all.
    """
    selection = job.rules.selection()
    known = {name for c in [*collections, *gone] for name in (c.id, c.id.rpartition("/")[2], c.title)}
    known |= {id_ for id_ in states.keys() - known if job.checkpoint.kept(job.name, id_)}
    if not selection:  # every project is meant, and nothing of another kind
        hidden = "was backed up before and is not gone, but the Source does not list it any more: check what the token may see"
        meant = [state.collection for id_, state in states.items() if id_ not in known and not keys.kind_of(id_)]
        failed = [Failure(collection.id, None, f"{collection.title!r} {hidden}") for collection in meant]
        if failed and not collections:
            raise SourceError(f"the Source lists nothing at all, yet {len(failed)} Collections are not gone: check what the token may see")
        return failed
    named = [name for names in selection.values() for name in names if not any(mark in name for mark in "*?[")]
    advice = "check the id or title, and what the token may see"
    return [
        Failure(name, None, f"the config names {name!r}, but the Source shows no such Collection: {advice}") for name in named if name not in known
    ]


def vanished(job: Job, collections: Sequence[Collection], states: States) -> list[Collection]:
    """Collections that are proved gone from the Source. One that the config merely stopped naming is left as it is."""
    shown = {c.id for c in collections}
    checkpoint, name = job.checkpoint, job.name
    candidates = [state.collection for id_, state in states.items() if id_ not in shown]
    # one whose tasks were all kept (`on_delete: keep`) has nothing left to follow
    followed = [c for c in candidates if checkpoint.size(name, c.id) or not checkpoint.kept(name, c.id)]
    return [c for c in followed if job.source.confirm_collection(c)]


def all_of(job: Job, collection: Collection) -> Missing:
    """Every task of a Collection that vanished."""
    known = job.checkpoint.known(job.name, collection.id)
    return Missing(collection.id, (), known.size(), whole=digest_of(known.all_ids()))
