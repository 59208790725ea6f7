"""Open folders below one root, for Targets that are file systems.

Each folder is opened relative to its parent and never by path, so no symlink below the root is followed, not even one that appears meanwhile.
Refuses to know about files, and to translate errors: everything here raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

_OPEN_FOLDERS = 128
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def split(key: str) -> tuple[str, str]:
    """The folder and the name of a key."""
    folder, _, name = key.rpartition("/")
    return folder, name


class Folder:
    """An open folder; closed when its last user lets go of it, so one in use is never closed (its number could then mean another folder).

    Hold it in a variable as long as `fd` is in use: `open(path).fd` alone may be closed before the call that it is an argument of.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Folders:
    """Folders below a root by relative path, "" the root itself. Keeps the last few open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Folder] = OrderedDict()

    def open(self, path: str, *, make: bool = False) -> Folder:
        """Raises OSError, FileNotFoundError when it is missing and not to be made."""
        with self._lock:
            if found := self._open.get(path):
                self._open.move_to_end(path)
                return found
        folder = Folder(self._open_root(make=make) if not path else self._open_child(*split(path), make=make))
        with self._lock:
            self._open[path] = folder
            if len(self._open) > _OPEN_FOLDERS:
                self._open.popitem(last=False)
        return folder

    def forget(self) -> None:
        """Open everything anew from now on: somebody may have moved or replaced a folder."""
        with self._lock:
            self._open.clear()

    def sync(self, path: str) -> None:
        """Make the names in this folder, and its own name and its parents', durable."""
        while True:
            try:
                folder = self.open(path)
                os.fsync(folder.fd)
            except OSError as error:
                if error.errno != errno.EINVAL:  # some network file systems can't fsync a folder: their names are durable at once
                    raise
            if not path:
                return
            path = split(path)[0]

    def entries(self, path: str) -> Iterator[os.DirEntry[str]]:
        """What is in the folder. Through a descriptor of its own: a shared one has one position for all its readers."""
        shared = self.open(path)
        own = Folder(os.open(".", _FLAGS, dir_fd=shared.fd))
        with os.scandir(own.fd) as entries:
            yield from entries

    def _open_root(self, *, make: bool) -> int:
        try:
            return os.open(self._root, _FLAGS)
        except FileNotFoundError:
            if not make:
                raise
        for folder in (*reversed(self._root.parents), self._root):
            if not folder.exists():
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                parent = Folder(os.open(folder.parent, _FLAGS))
                os.fsync(parent.fd)
        return os.open(self._root, _FLAGS)

    def _open_child(self, parent: str, name: str, *, make: bool) -> int:
        folder = self.open(parent, make=make)
        try:
            return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder.fd)
        except FileNotFoundError:
            if not make:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder.fd)
        return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder.fd)
