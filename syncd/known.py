"""What a Source may know of the Checkpoint: the one Protocol that both sides of the edge share.

A Source asks it to read less; a Checkpoint implements it. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from syncd.model import Counts, Entry


class Known(Protocol):
    """What the Checkpoint holds of one Collection, read-only, as of its last commit. May be used from another thread than the one that commits.

    Entries marked `kept` are gone from the Source: `entries` returns them, nothing else counts or lists them.
    """

    def entries(self, tasks: Sequence[str]) -> dict[str, Entry]:
        """The Entries of those tasks that have one."""
        ...

    def counts(self, low: int, high: int) -> Counts:
        """Sums over live Entries whose id is an integer with low <= id <= high."""
        ...

    def ids(self, low: int, high: int) -> list[str]:
        """Integer ids of live Entries with low <= id <= high, ascending. Ask for small ranges: the answer is held in memory."""
        ...

    def all_ids(self) -> Iterator[str]:
        """Ids of every live Entry, integers first and ascending, then texts in code point order; streamed."""
        ...

    def size(self) -> int:
        """How many live tasks there are, side files not counted; cheap, whatever their number."""
        ...

    def last_id(self) -> int:
        """The greatest integer id of a live Entry; 0 when there is none."""
        ...

    def with_drafts(self) -> list[str]:
        """Ids of live Entries whose task held drafts."""
        ...

    def failing(self) -> list[str]:
        """Ids of tasks that failed in an earlier Run and have not succeeded since."""
        ...

    def notes(self, names: Sequence[str]) -> dict[str, bytes]:
        """What the Source asked to remember under those names (see Batch.notes)."""
        ...

    def all_notes(self) -> Iterator[tuple[str, bytes]]:
        """Every note, by name; streamed."""
        ...

    def note_count(self) -> int:
        """How many notes there are."""
        ...
