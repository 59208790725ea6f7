"""A folder of exports: which Collections it has, which files they have, and what tells that a file changed.

For the `files` Source alone. Reads names and attributes, never contents; whatever can't be read is told to the Look, never left out in silence.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from syncd.errors import SourceError
from syncd.model import Collection, Failure

ROOT = "default"  # the Collection of the root's own files
SUFFIXES = (".json", ".ndjson", ".jsonl")


class File(NamedTuple):
    """name: relative to its Collection; stamp: 16 bytes that change with the file; modified: nanoseconds; note: what was remembered of it."""

    name: str
    stamp: bytes
    modified: int
    note: bytes = b""

    def pack(self, note: bytes) -> tuple[str, bytes]:
        """For `unpack`, with what was remembered of it; sorts by time of modification, then name."""
        return f"{self.modified + 2**63:020d}{self.name}", self.stamp + note

    @staticmethod
    def unpack(key: str, value: bytes) -> File:
        """What was packed."""
        return File(key[20:], value[:16], int(key[:20]) - 2**63, value[16:])


@dataclass(slots=True)
class Look:
    """What one reading of a Collection saw so far. top: its folder; doubt: it can't prove that anything is absent; bad: names of what failed;
    newest: microseconds.
    """

    collection: Collection
    top: str
    failed: list[Failure] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)
    doubt: bool = False
    newest: int = 0
    total: int = 0  # of all stamps: order does not matter

    @property
    def proof(self) -> bytes:
        """16 bytes, the same for the same files only."""
        return (self.total % 2**128).to_bytes(16)

    def fail(self, name: str, what: str, about: str | None = None) -> None:
        """A file, a folder or a part of one could not be read; about: the task it is, if known."""
        self.doubt = True
        self.bad.add(name)
        self.failed.append(Failure(self.collection.id, None, f"{shown(f'{self.collection.title}/{name}')}: {what}", about=about))


class Folder:
    """The root. `requests` counts folders listed; whoever opens files counts those there too."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.requests = 0

    def names(self) -> set[str]:
        """The Collections. Raises SourceError."""
        self.requests += 1
        try:
            with os.scandir(self._root) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
                folders = {entry.name for entry in visible if entry.is_dir()}
                loose = any(entry.name.lower().endswith(SUFFIXES) and entry.name not in folders for entry in visible)
        except OSError as error:
            raise SourceError(f"{self._root}: can't be listed: {error.strerror}; check `path` and that this user may read it") from None
        if loose and ROOT in folders:
            raise SourceError(f"{self._root}: the sub-folder `{ROOT}` and the files beside it would be one Collection: rename it or move them in")
        return folders | {ROOT} if loose else folders

    def gone(self, collection: Collection) -> bool:
        """Whether the Collection's folder (of `default`: every file of the root) is proved absent."""
        return collection.id not in self.names() and not os.path.lexists(self._root / collection.id)

    def look(self, collection: Collection) -> Look:
        """The beginning of a reading."""
        below = self._root / collection.id
        return Look(collection, str(below if collection.id != ROOT or below.is_dir() else self._root))

    def walk(self, look: Look) -> Iterator[File]:
        """Every file of the Collection."""
        deep = look.top != str(self._root)
        pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
        while pending:
            below, above = pending.pop()
            self.requests += 1
            try:
                found = os.stat(f"{look.top}/{below}")  # noqa: PTH116 - a Path costs more than the call
                here = (found.st_dev, found.st_ino)
                if here in above:  # a link to a folder around it
                    continue
                with os.scandir(f"{look.top}/{below}") as entries:
                    for entry in entries:
                        name = below + entry.name
                        if entry.name.startswith("."):
                            continue
                        if entry.is_dir():
                            if deep:
                                pending.append((f"{name}/", above | {here}))
                        elif name.lower().endswith(SUFFIXES) and (file := _file(look, name, entry)) is not None:
                            yield file
            except OSError as error:
                look.fail(below, f"this folder can't be listed: {error.strerror}")


def _file(look: Look, name: str, entry: os.DirEntry[str]) -> File | None:
    try:
        found = entry.stat()
    except OSError as error:
        look.fail(name, f"can't be read: {error.strerror}")
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    stamp, modified = stamp_of(name, found), found.st_mtime_ns
    look.newest = max(look.newest, modified // 1000)
    look.total += int.from_bytes(stamp)
    return File(name, stamp, modified)


def stamp_of(name: str, found: os.stat_result) -> bytes:
    """Of name, size, times and inode."""
    facts = f"{name}\0{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
    return blake2b(facts.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8."""
    return name == name.encode("utf-8", "replace").decode()


def shown(name: str) -> str:
    """A name for people, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
