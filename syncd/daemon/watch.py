"""Files that others change: the config, the secrets it names, the folders of files Sources. Tells once it is quiet again.

Refuses to read anything. Folders are watched, not files: editors replace a file, Kubernetes swaps a link beside it. A folder that is not there yet,
or was removed and made again, is watched as soon as it is there, and counts as changed then: nobody knows what came meanwhile. Where nothing can
be watched (too many watches, a network disk) only the schedule, SIGHUP and hooks are left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

from syncd.clock import Clock

log = logging.getLogger("syncd.daemon")
_LOOK_EVERY = 2.0  # seconds between looks for folders that were replaced
_LONGEST = 30.0  # seconds: a folder that is never quiet is told of so often
_CHANGES: list[type[events.FileSystemEvent]] = [  # and not that somebody read a file: Runs do
    events.FileCreatedEvent, events.FileModifiedEvent, events.FileMovedEvent, events.FileDeletedEvent, events.FileClosedEvent,
    events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Folder:
    """What to watch. quiet: seconds without a change until it is told; deep: what is below too; syncs: those that read it, none for the config."""

    path: Path
    quiet: float
    deep: bool
    syncs: tuple[str, ...] = ()


class _Followed(events.FileSystemEventHandler):
    """One folder, the watch on it, and the times (monotonic seconds) of the first and the last change not told yet."""

    def __init__(self, folder: Folder, clock: Clock) -> None:
        self.folder, self._clock = folder, clock
        self.watch: ObservedWatch | None = None
        self.identity: tuple[int, int] | None = None
        self._changes: tuple[float, float] | None = None

    def on_any_event(self, event: events.FileSystemEvent | None = None) -> None:
        del event
        now, before = self._clock.monotonic(), self._changes
        self._changes = (before[0] if before else now, now)

    def settled(self) -> bool:
        """Whether there is a change to tell of now; says so once."""
        now, changes = self._clock.monotonic(), self._changes
        if changes is None or (now - changes[1] < self.folder.quiet and now - changes[0] < _LONGEST):
            return False
        self._changes = None
        return True


class Watch:
    """Watches until it is closed. Used by one thread, which calls `tick` twice a second or so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._observer = Observer()
        self._observer.start()
        self._followed: dict[tuple[Path, bool], _Followed] = {}
        self._looked = clock.monotonic()

    def follow(self, folders: Iterable[Folder]) -> None:
        """Watch these and no others; one that is new, or read by another Sync now, counts as changed."""
        wanted = {(folder.path, folder.deep): folder for folder in folders}
        for key in self._followed.keys() - wanted.keys():
            self._leave(self._followed.pop(key))
        for key, folder in wanted.items():
            one = self._followed.setdefault(key, _Followed(folder, self._clock))
            if one.folder != folder:
                one.folder = folder
                one.on_any_event()
        self._look()

    def tick(self) -> list[Folder]:
        """Those that changed and are quiet again."""
        if self._clock.monotonic() - self._looked >= _LOOK_EVERY:
            self._look()
        return [one.folder for one in self._followed.values() if one.settled()]

    def close(self) -> None:
        """Let go of everything; its threads notice within a second."""
        self._observer.stop()

    def _look(self) -> None:
        self._looked = self._clock.monotonic()
        for one in self._followed.values():
            identity = _identity(one.folder.path)
            if identity != one.identity:
                self._leave(one)
                one.identity = identity
                if identity:
                    self._enter(one)
                    one.on_any_event()

    def _enter(self, one: _Followed) -> None:
        try:
            # its true path: a watch on a link would see the link alone
            path = os.path.realpath(one.folder.path)
            one.watch = self._observer.schedule(one, path, recursive=one.folder.deep, event_filter=_CHANGES)
        except (OSError, RuntimeError) as error:  # no more watches, or no more threads
            log.warning("%s can't be watched for changes: %s", one.folder.path, error)

    def _leave(self, one: _Followed) -> None:
        if one.watch is not None:
            with suppress(KeyError):
                self._observer.unschedule(one.watch)
            one.watch = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
