"""What a Source must promise. The contract suite executes these sentences against every Source.

Knows no concrete Source. A Source reads and never writes; it decides nothing about files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol, runtime_checkable

from syncd.known import Known
from syncd.model import Collection, Failure, Gone, Task
from syncd.retry import Failed


@dataclass(frozen=True, slots=True)
class Batch:
    """One step of a reading: what a single commit will cover, a few megabytes at most unless one task is larger.

    tasks     whole bodies; no id twice in one Batch.
    failed    tasks (or parts of the Collection) that could not be read.
    missing   ids the Checkpoint holds and a complete listing lacks: candidates for deletion, not yet confirmed.
    position  full readings of Sources that can resume: everything up to here is in this Batch or an earlier one; passed back as `position`
              after a crash. None: cannot resume here.
    cursor    the Cursor this reading earns once everything it yielded is safe: the Source's own time, taken before its first listing began.
              Every Batch may carry it (the same value each time); None: the Cursor stays.
    notes     facts to remember with this commit, by name; None forgets one. Recorded only if none of the Batch's tasks failed to be put.
    """

    tasks: Sequence[Task] = ()
    failed: Sequence[Failure] = ()
    missing: Sequence[str] = ()
    position: str | None = None
    cursor: int | None = None
    notes: Mapping[str, bytes | None] = field(default_factory=dict)


class Source(Protocol):
    """Where tasks are read.

    - A listing is complete or it raises: a short, empty, truncated, refused or foreign answer is an error, never an absence (I4).
    - Raises SourceError or AccessError for the whole, yields a Failure for one task; transient faults are retried inside (`retry_for`).
      Errors raised while iterating are translated like those raised by calls.
    - Values are what the Source sent (I7).
    - Not used by two Runs at a time; `changes` runs in a thread of its own while `confirm` and `settings` are not being called.
    """

    failed: Failed
    """Grows with each request that fails."""

    @property
    def waits(self) -> bool:
        """Whether reading mostly waits for somebody else (a server), so that reading ahead pays."""
        ...

    @property
    def requests(self) -> int:
        """Every try of a request to the Source since it was opened."""
        ...

    def collections(self) -> list[Collection]:
        """All Collections the config selects, complete or raises. Ids are unique."""
        ...

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True, plan: bool = False
    ) -> Iterator[Batch]:
        """Stream the tasks whose Revision the Checkpoint does not hold and that changed at or after `since` (microseconds, Source's time), and
        what else is found to be missed (section 4 of the design); None reads every body from `position` on.

        A task may come although nothing changed; it is skipped by its digest. A full reading from the beginning, and each incremental one,
        yields in `missing` every id the Checkpoint holds and the Source no longer has, as far as it can know; one resumed at a position yields none.
        The order of tasks is the Source's. `drafts`: also look at what can only be listed, not dated. `plan`: nobody will record it, and not even for
        a moment may anything be written to the Source.
        """
        ...

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        """Ask for exactly these ids; those proved absent and how. Ids still there, or not proved, are left out."""
        ...

    def confirm_collection(self, collection: Collection) -> bool:
        """True only when the whole Collection is proved to be gone from the Source; False when it is still there (excluded by the config, say)."""
        ...

    def settings(self, collection: Collection) -> Mapping[str, object]:
        """The Collection's settings as the Source gives them, less what changes by itself; becomes `_project.json`."""
        ...

    def close(self) -> None:
        """Release connections. Polite only: not closing loses nothing."""
        ...


class Who(NamedTuple):
    """Whom the credentials stand for, as the server says, and its clock (microseconds; None: it doesn't say)."""

    name: str
    time: int | None


@runtime_checkable
class Introduced(Protocol):
    """A Source that is a server and can say who is asking; for `syncd doctor`."""

    def whoami(self) -> Who:
        """One small request. Raises SourceError or AccessError."""
        ...


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook as a server has it. headers may hold secrets; wakes: it is called for all that a Run finds by its date."""

    id: str
    project: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    wakes: bool


class Hooks(Protocol):
    """The webhooks of a server: written there only when a person says so. Raises SourceError or AccessError."""

    def all(self) -> list[Hook]:
        """Every one of any project, whoever made it."""
        ...

    def put(self, project: str, url: str, headers: Mapping[str, str]) -> None:
        """Make one. Tried once: whether a failed try was obeyed is seen in `all`."""
        ...

    def remove(self, hook: Hook) -> None:
        """Remove one."""
        ...


@runtime_checkable
class Hooked(Protocol):
    """A Source whose server can be told to call syncd."""

    def hooks(self) -> Hooks:
        """Asks nobody yet."""
        ...


Selection = Mapping[str, Sequence[str]]
"""What a Sync selects, by kind (`projects`, `datasets`, ...): ids or title patterns with `*`, `?` and `[...]`; an absent kind is not restricted."""


def selected(patterns: Sequence[str] | None, collection_id: str, title: str) -> bool:
    """Whether a Collection is among `patterns`: its exact id, or a title pattern, case-sensitive; None selects everything."""
    return patterns is None or any(pattern == collection_id or fnmatchcase(title, pattern) for pattern in patterns)
