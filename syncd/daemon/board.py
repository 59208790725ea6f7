"""What the daemon tells about itself: plain facts for the page, the metrics and the health answers.

Data and one Protocol: who shows must not know who runs. Nothing here holds a secret, or anything of a task but its id and its failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from syncd.model import Failure, RunRecord
from syncd.run.job import Progress


class State(StrEnum):
    """What a Sync is doing, or how its last Run left it."""

    NEVER = "never"  # no Run has ended yet
    RUNNING = "running"
    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    GUARDED = "guarded"


@dataclass(frozen=True, slots=True)
class SyncView:
    """One Sync now. Times are microseconds since 1970 UTC.

    state: RUNNING while a Run goes on, else how the last one ended; last: the newest Run that has ended; next_at: None while it runs, or when it has
    no schedule; since: everything the Source had changed by then is in the Target (start of the last Run that ended ok), None before the first;
    lag: seconds that the oldest change not yet safe waits already, at most (0 when the last Run ended ok and none is overdue); failing: tasks that
    are not in the Target as they are in the Source; unlike `since`, `lag` is for people and alarms.
    """

    name: str
    source: str
    target: str
    schedule: str
    state: State
    last: RunRecord | None = None
    next_at: int | None = None
    running_since: int | None = None
    progress: Progress | None = None
    since: int | None = None
    lag: float | None = None
    collections: int = 0
    tasks: int = 0
    failing: int = 0
    failed_in_a_row: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the process started, of one Sync. runs: by status."""

    runs: dict[str, int]
    written: int = 0
    bytes_written: int = 0
    deletions: int = 0
    failures: int = 0
    source_requests: int = 0
    target_requests: int = 0
    source_requests_failed: int = 0
    target_requests_failed: int = 0
    hooks: int = 0
    hooks_refused: int = 0


@dataclass(frozen=True, slots=True)
class ConfigState:
    """The config file: when it was last read well, and why the newest edit was not taken (empty: it was)."""

    path: str
    loaded_at: int
    problems: Sequence[str] = ()


class Woken(StrEnum):
    """What a wake-up call led to."""

    STARTED = "started"  # a Run is due now
    COALESCED = "coalesced"  # one is due or goes on already; another follows it
    UNKNOWN = "unknown"  # no such Sync


class Board(Protocol):
    """What the page, the metrics and the hooks may ask of the daemon. Any thread; each answer takes milliseconds."""

    def now(self) -> int:
        """The daemon's clock, microseconds."""
        ...

    def syncs(self) -> Sequence[SyncView]:
        """Every Sync of the config, in its order."""
        ...

    def sync(self, name: str) -> SyncView | None:
        """One of them."""
        ...

    def runs(self, name: str, limit: int) -> Sequence[RunRecord]:
        """Its last Runs, newest first."""
        ...

    def failures(self, name: str, limit: int) -> Sequence[Failure]:
        """Tasks failing now."""
        ...

    def totals(self, name: str) -> Totals:
        """Counts since the start."""
        ...

    def config(self) -> ConfigState:
        """Of the config file."""
        ...

    def queue(self) -> tuple[int, int]:
        """Runs that wait for a worker; Runs that go on."""
        ...

    def alive(self) -> bool:
        """Whether Runs would begin when they are due; False: only a new process helps."""
        ...

    def unready(self) -> Sequence[str]:
        """Reasons why the daemon can't be relied on right now (Checkpoint, a Source or Target that did not answer lately); empty: ready."""
        ...

    def hook_secret(self, name: str) -> str | None:
        """The secret its hook calls must prove; None: this Sync takes none, or there is no such Sync."""
        ...

    def wake(self, name: str) -> Woken:
        """Start an incremental Run of this Sync as soon as a worker is free. Returns at once."""
        ...

    def count_hook(self, name: str, *, refused: bool) -> None:
        """Remember a hook call, for the metrics; of a Sync that there is not, nothing."""
        ...

    def confirm_command(self, name: str) -> str:
        """The command that confirms what the Guard of this Sync holds back; empty when it holds nothing."""
        ...
