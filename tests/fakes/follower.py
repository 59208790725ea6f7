"""The least that can follow a Source: a real Checkpoint, and a dictionary of bodies in place of a Target.

It keeps what a Source may rely on (commits per Batch, the overlap, failures, `confirm` before forgetting) and asserts what each Batch promises.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncd import encode
from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Checkpoint, Commit
from syncd.model import Collection, CollectionState, Entry, Failure, Gone, Kind
from syncd.sources.base import Source

SYNC = "cats"
OVERLAP = 600_000_000


@dataclass
class Seen:
    """What one reading yielded."""

    tasks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    positions: list[str | None] = field(default_factory=list)
    gone: dict[str, Gone] = field(default_factory=dict)
    cursor: int | None = None
    requests: int = 0


class Follower:
    """Follows one Collection of `source`. `files`: the bodies as they would stand in a Target."""

    def __init__(self, source: Source, folder: Path, collection: Collection) -> None:
        self.source = source
        self.collection = collection
        self.checkpoint: Checkpoint = sqlite.open(folder)
        self.files: dict[str, Any] = {}
        self.cursor: int | None = None
        self.runs = 0

    @property
    def known(self) -> Any:
        return self.checkpoint.known(SYNC, self.collection.id)

    def run(self, *, full: bool = False, drafts: bool = True, overlap: int = OVERLAP, position: str | None = None, stop_after: int = -1) -> Seen:
        """One reading: full when asked for or when there is no Cursor; stop_after: die after so many Batches with a position."""
        self.runs += 1
        kind = Kind.FULL if full or self.cursor is None else Kind.INCREMENTAL
        lease = self.checkpoint.begin(SYNC, f"run-{self.runs}", kind, self.runs)
        since = None if self.cursor is None or full else self.cursor - overlap
        seen, before = Seen(), self.source.requests
        for batch in self.source.changes(self.collection, since, self.known, position=position, drafts=drafts):
            if sum(each is not None for each in seen.positions) == stop_after:
                return seen
            assert len({task.id for task in batch.tasks}) == len(batch.tasks)
            entries = []
            for task in batch.tasks:
                data = encode.task_file("", task.body).data
                self.files[task.id] = encode.parse(data)
                digest = hashlib.sha256(data).digest()
                entries.append(Entry(task.id, task.revision, task.counts, digest, len(data), b"", task.drafts))
            self.checkpoint.commit(lease, self.collection.id, Commit(entries=entries, failed=batch.failed, notes=batch.notes))
            seen.tasks += [task.id for task in batch.tasks]
            seen.missing += batch.missing
            seen.failed += batch.failed
            seen.positions.append(batch.position)
            assert seen.cursor is None or batch.cursor == seen.cursor
            seen.cursor = batch.cursor if seen.cursor is None else seen.cursor
        seen.gone = self.source.confirm(self.collection, seen.missing)
        for name in seen.gone:
            self.files.pop(name, None)
        self.cursor = seen.cursor if not seen.failed and seen.cursor is not None else self.cursor
        state = CollectionState(self.collection, cursor=self.cursor)
        self.checkpoint.commit(lease, self.collection.id, Commit(forgotten=list(seen.gone), state=state))
        seen.requests = self.source.requests - before
        return seen

    def close(self) -> None:
        self.checkpoint.close()
