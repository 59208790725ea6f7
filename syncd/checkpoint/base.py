"""What a Checkpoint must promise. The contract suite executes these sentences against every Checkpoint.

Knows no concrete Checkpoint. It remembers and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from syncd.known import Known
from syncd.model import CollectionState, Entry, Event, Failure, Kind, Report, RunRecord


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write for one Run of one Sync. `epoch` is bumped by whoever begins a Run; a commit with an older one is refused (fenced)."""

    sync: str
    run_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction records of one Collection, all of it or nothing.

    entries   added or replaced (clears the task's failure).
    forgotten Entries to drop (and their failures), before `entries` are added: a reused id may stand in both.
    failed    remembered until the task succeeds or is forgotten; only those with a task id. Added last.
    cleared   tasks whose failure is over without a new Entry (unchanged after all).
    events    lines for this Run's change feed.
    notes     None forgets.
    state     replaces the Collection's state; None leaves it.
    """

    entries: Sequence[Entry] = ()
    forgotten: Sequence[str] = ()
    failed: Sequence[Failure] = ()
    cleared: Sequence[str] = ()
    events: Sequence[Event] = ()
    notes: Mapping[str, bytes | None] = field(default_factory=dict)
    state: CollectionState | None = None


class Checkpoint(Protocol):
    """The durable memory of every Sync: Entries, Cursors, Run history.

    - A commit that returned survives a power loss; one that did not return happened whole or not at all.
    - Nothing is written but by the methods that say so; reading never writes.
    - Raises CheckpointError for anything wrong with itself (corrupt, foreign, newer, full disk, fenced), OwnedError when another process holds it.
    - Known objects may be used from several threads.
    - An id is an integer when it is written as one: at most 18 digits, no sign, no leading zero. Every other id is a text, lone surrogates included.
    """

    id: str
    """A random name made with the Checkpoint; stands in `owner.json` (I6)."""

    def begin(self, sync: str, run_id: str, kind: Kind, at: int, place: str = "") -> Lease:
        """Start a Run: bumps the epoch and adds the Run to the history as unfinished. A killed Run before it stays without an end.

        place: where it writes; all that the report of an unfinished Run tells.
        """
        ...

    def commit(self, lease: Lease, collection: str, commit: Commit) -> None:
        """Record durably, in one transaction. CheckpointError when fenced."""
        ...

    def drop(self, lease: Lease, collection: str) -> None:
        """Forget a Collection that has no Entries left: its state, notes and failures. CheckpointError while it has any, kept ones too (I3)."""
        ...

    def finish(self, lease: Lease, report: Report, at: int, *, full_since: int | None = None) -> None:
        """End the Run in the history and keep the last 1,000 of this Sync, and older ones whose events wait for their feed.

        The stored report has the Report's fields; `failed` may be shortened, `failed_count` is the true number. full_since: when the Run began that
        this one goes on with, if it does.
        """
        ...

    def states(self, sync: str) -> dict[str, CollectionState]:
        """Every Collection this Sync has a state of, by id."""
        ...

    def known(self, sync: str, collection: str) -> Known:
        """A live view of the Collection's Entries; empty for an unknown one."""
        ...

    def entries(self, sync: str) -> Iterator[tuple[str, Entry]]:
        """Every Entry of a Sync, kept ones too, with its Collection's id: Collection by Collection, in the order of `Known.all_ids`; streamed."""
        ...

    def size(self, sync: str, collection: str) -> int:
        """How many live tasks there are, side files not counted; cheap, whatever their number."""
        ...

    def kept(self, sync: str, collection: str) -> int:
        """How many Entries are marked kept."""
        ...

    def failures(self, sync: str, limit: int = -1, collection: str | None = None) -> list[Failure]:
        """Tasks failing now, of all Collections or one, by Collection and id; the first so many of them, -1: all."""
        ...

    def pending_feeds(self, sync: str) -> list[str]:
        """Ids of Runs whose events wait to be written to a change feed, oldest first."""
        ...

    def events(self, sync: str, run_id: str) -> Iterator[Event]:
        """That Run's events in the order they were committed; streamed, and may be read again."""
        ...

    def clear_events(self, lease: Lease, run_id: str) -> None:
        """Drop a Run's events: their feed is durable in the Target."""
        ...

    def runs(self, sync: str, limit: int) -> list[RunRecord]:
        """The last Runs, newest first."""
        ...

    def last_full(self, sync: str) -> int | None:
        """When the last full Run that ended ok, partial or guarded began, or the one that it went on with."""
        ...

    def examine(self) -> None:
        """Check how all of it hangs together, quickly. Raises CheckpointError; a single value that is wrong is met by whoever reads it."""
        ...

    def close(self) -> None: ...
