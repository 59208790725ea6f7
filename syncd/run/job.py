"""What a Run works with. Data only: whoever starts Runs (the command line, later the daemon) fills it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from syncd.checkpoint.base import Checkpoint
from syncd.clock import Clock
from syncd.config import SyncConfig
from syncd.keys import Layout
from syncd.sources.base import Source
from syncd.targets.base import Target


@dataclass(frozen=True, slots=True)
class Job:
    """One Sync, wired."""

    name: str
    rules: SyncConfig
    source: Source
    target: Target
    checkpoint: Checkpoint
    clock: Clock

    @property
    def layout(self) -> Layout:
        return Layout(self.rules.key)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a Run is. total: the Source's own count of tasks to read, None when it does not say."""

    project: str
    title: str
    total: int | None
    read: int
    written: int
    failed: int
    bytes_written: int


OnProgress = Callable[[Progress], None]
