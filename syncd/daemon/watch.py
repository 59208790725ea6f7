"""Files that others change: the config, the secrets it names, the folders of files Sources. Tells once it is quiet again.

Refuses to read a file. Folders are watched, not files: editors replace a file, Kubernetes swaps a link beside it. A folder that is not there yet,
or was removed and made again, is watched as soon as it is there, and counts as changed then: nobody knows what came meanwhile. Each watch costs
a thread, so only the first MOST folders are watched; of the others, and where nothing can be watched, the times of the folder and of those in it
are looked at, which shows what is added there; for the rest (a file written in place, a network disk) there are the schedule and hooks.
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
MOST = 64  # folders
_LOOK_EVERY = 2.0  # seconds
_LONGEST = 12  # times as long as it should be quiet; a folder that never is, is told of so often
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
    """One folder, the watch on it, what it was at the last look, and when (monotonic seconds) the first and the last change came not told yet."""

    def __init__(self, folder: Folder, clock: Clock) -> None:
        self.folder, self._clock = folder, clock
        self.watch: ObservedWatch | None = None
        self.seen: tuple[int, ...] = ()
        self._inside: tuple[int, list[Path]] = (0, [])
        self._changes: tuple[float, float] | None = None

    def on_any_event(self, event: events.FileSystemEvent | None = None) -> None:
        if event and self.watch and event.src_path == self.watch.path and event.event_type == events.EVENT_TYPE_DELETED:
            self.seen = ()  # its watch has ended, though one with the same inode may be there at the next look
        now, before = self._clock.monotonic(), self._changes
        self._changes = (before[0] if before else now, now)

    def settled(self) -> bool:
        """Whether there is a change to tell of now; says so once."""
        now, changes, quiet = self._clock.monotonic(), self._changes, self.folder.quiet
        if changes is None or (now - changes[1] < quiet and now - changes[0] < quiet * _LONGEST):
            return False
        self._changes = None
        return True

    def look(self) -> tuple[int, ...]:
        """Which folder it is, and if it is not watched, when what is in it came or went; nothing if it is not there."""
        with suppress(OSError):
            found = self.folder.path.stat()
            which = found.st_dev, found.st_ino
            if self.watch:
                return which
            if self._inside[0] != found.st_mtime_ns:
                with os.scandir(self.folder.path) as entries:
                    self._inside = found.st_mtime_ns, [Path(entry) for entry in entries if self.folder.deep and entry.is_dir()]
            return *which, found.st_mtime_ns, *(path.stat().st_mtime_ns for path in self._inside[1])
        return ()


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
            if (now := one.look()) != one.seen:
                if now[:2] != one.seen[:2]:
                    self._leave(one)
                    if now and len(self._observer.emitters) < MOST:
                        self._enter(one)
                one.seen = one.look()
                one.on_any_event()

    def _enter(self, one: _Followed) -> None:
        path = os.path.realpath(one.folder.path)  # a watch on a link would see the link alone
        try:
            one.watch = self._observer.schedule(one, path, recursive=one.folder.deep, event_filter=_CHANGES)
        except (OSError, RuntimeError) as error:  # no more watches, or no more threads
            log.warning("%s can't be watched, so it is looked at now and then: %s", one.folder.path, error)

    def _leave(self, one: _Followed) -> None:
        if one.watch is not None:
            with suppress(KeyError):
                self._observer.unschedule(one.watch)
            one.watch = None
