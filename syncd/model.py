"""The words of syncd as data: frozen, without behaviour beyond their own shape.

Imports nothing of syncd. Times are microseconds since 1970 UTC, 0 when the Source does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Collection:
    """What a Source lists, counts and may lose as a whole. `tasks` is the Source's own count, a hint for progress only.

    counters: numbers that move with what is in it, as the list of Collections shows them; never taken for its content. Empty: the Source shows none.
    """

    id: str
    title: str
    created_at: int = 0
    tasks: int | None = None
    counters: tuple[int, ...] = ()


class Revision(NamedTuple):
    """What the Source says about a task's version without its body. Compared for equality, never for order.

    created_at belongs to the identity: servers reuse ids. counters are whatever numbers the Source shows in a flat listing.
    """

    created_at: int
    last_activity: int
    counters: tuple[int, ...] = ()


class Counts(NamedTuple):
    """What a Source's totals count over an id range: (tasks, annotations, predictions)."""

    tasks: int = 0
    annotations: int = 0
    predictions: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(self.tasks + other.tasks, self.annotations + other.annotations, self.predictions + other.predictions)

    def minus(self, other: Counts) -> Counts:
        return Counts(self.tasks - other.tasks, self.annotations - other.annotations, self.predictions - other.predictions)


ONE_TASK = Counts(1, 0, 0)


class Task(NamedTuple):
    """One task with its annotations, as the Source gave it. (A tuple, since one is made of each row of a Source: a third of the cost.)

    body: the parsed JSON object (see `encode.parse`: every value exact), or the very bytes of the file: JSON in one line, or a side file's (see
    `keys.SIDE`); counts: what this body adds to the Source's totals (counted in the body, since a server's counter fields can lie; a side file is no
    task and adds nothing); drafts: it holds parts that change without moving last_activity; volatile: it holds parts that change by themselves, so
    that an equal Revision, which the Source made of the others, means the same task whatever the bytes.
    """

    id: str
    revision: Revision
    body: Mapping[str, object] | bytes
    counts: Counts = ONE_TASK
    drafts: bool = False
    volatile: bool = False


class TaskFile(NamedTuple):
    """The bytes of one `task_id.json` and their sha256 (32 bytes)."""

    key: str
    data: bytes
    digest: bytes


class Entry(NamedTuple):
    """What the Checkpoint holds of one task: bytes that are durable in the Target (I1).

    etag: opaque, what the Target said of the file at the put; kept: gone from the Source, its file stays (`on_delete: keep`) and it no longer counts.
    """

    task: str
    revision: Revision
    counts: Counts
    digest: bytes
    size: int
    etag: bytes
    drafts: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """One task that could not be read or written. task is None when a whole part of the Collection (a file, say) could not be read:
    then nothing can be proved absent from this reading. last_activity: None when unknown; the Cursor never passes it (I2).
    about: the task that such a part is, when its id can be told all the same; for people, nothing is decided by it.
    """

    project: str
    task: str | None
    error: str
    last_activity: int | None = None
    about: str | None = None

    @property
    def name(self) -> str | None:
        """The task it is about, as far as known."""
        return self.about if self.task is None else self.task


class Gone(StrEnum):
    """How a task is absent, proved by asking for exactly that id (I4)."""

    DELETED = "deleted"  # gone from the Source
    REMOVED = "removed"  # only from this Collection


class Op(StrEnum):
    """What happened to a file (change feed)."""

    PUT = "put"
    TRASH = "trash"
    DELETE = "delete"
    KEEP = "keep"


class Why(StrEnum):
    """Why it happened (change feed)."""

    NEW = "new"
    CHANGED = "changed"
    HEALED = "healed"
    DELETED = "deleted"
    REMOVED = "removed"
    SETTINGS = "settings"


class Event(NamedTuple):
    """One line of the change feed. task None: the Collection's settings."""

    op: Op
    why: Why
    project: str
    task: str | None
    digest: bytes
    last_activity: int
    at: int


@dataclass(frozen=True, slots=True)
class CollectionState:
    """What the Checkpoint remembers of a Collection beside its Entries.

    cursor: None until the first pass is finished; position, pass_cursor: where an unfinished first pass resumes and the cursor it earns
    when it ends; settings: digest of `_project.json`, empty when never written; drafts_at: local time drafts were last read.
    counters: those of `collection` in a list that was asked for before the last whole look at it began; empty when that look left something over.
    fresh: nothing of the Collection stood in the Target when its first pass, still unfinished, began.
    The Checkpoint keeps `collection` without its counters.
    """

    collection: Collection
    cursor: int | None = None
    position: str | None = None
    pass_cursor: int | None = None
    settings: bytes = b""
    drafts_at: int = 0
    counters: tuple[int, ...] = ()
    fresh: bool = False


class Status(StrEnum):
    """How a Run ended."""

    OK = "ok"
    PARTIAL = "partial"  # some tasks failed
    FAILED = "failed"
    GUARDED = "guarded"


class Kind(StrEnum):
    """incremental: changed since the Cursor; full: everything, every digest."""

    INCREMENTAL = "incremental"
    FULL = "full"


@dataclass(slots=True)
class Report:
    """What a Run did. The one mutable record: it grows while the Run goes on. Its field names are the contract of `sync --json`."""

    sync: str
    run_id: str
    kind: Kind
    status: Status = Status.OK
    written: int = 0
    unchanged: int = 0
    healed: int = 0
    adopted: int = 0
    trashed: int = 0
    deleted: int = 0
    kept: int = 0
    failed: list[Failure] = field(default_factory=list)
    source_requests: int = 0
    target_requests: int = 0
    source_requests_failed: int = 0
    target_requests_failed: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    started_at: int = 0
    place: str = ""  # where this Run wrote: Target and key template
    exit_code: int = 0
    error: str = ""  # why the whole Run failed
    plan_id: str = ""  # when guarded
    guard: str = ""  # when guarded: what the Guard stopped, in words
    cursors: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)  # collection id: before, after


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One Run in the history. status None: it has not ended (or was killed)."""

    sync: str
    run_id: str
    kind: Kind
    started_at: int
    finished_at: int | None
    status: Status | None
    report: Mapping[str, object]


class Stat(NamedTuple):
    """One object as a Target lists it."""

    key: str
    size: int
    etag: bytes
