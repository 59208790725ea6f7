"""Folders below one root, for Targets that are file systems: open them, make them, make them durable.

Each folder is opened relative to its parent and never by path, so no symlink below the root is followed, not even one that appears meanwhile.
Refuses to know about files, and to translate errors: everything here raises OSError.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath

_FLAGS = os.O_RDONLY | os.O_DIRECTORY
# ext2-4, XFS, btrfs, F2FS, ZFS, tmpfs: here syncfs writes everything, waits for the disk and tells of a failed write (numbers: statfs(2)).
_SYNCFS_TYPES = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0x01021994}
_SYNCFS_KERNEL = (5, 8)  # the first Linux whose syncfs does
_Statfs = ctypes.c_long * 64  # struct statfs: f_type comes first; more room than any layout needs


class Folder:
    """An open folder, closed when its last user lets go of it.

    Hold it in a variable as long as `fd` is in use: `open_folder(...).fd` alone may be closed before the call that it is an argument of.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def open_folder(root: Path, path: str, *, make: bool = False) -> Folder:
    """The folder at `path` below the root ("" or ".": the root itself). Raises FileNotFoundError when it is missing and not to be made."""
    if make:
        _make_root(root)
    folder = Folder(os.open(root, _FLAGS))
    for name in PurePosixPath(path).parts:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder.fd)
        folder = Folder(os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder.fd))
    return folder


def sync_folders(root: Path, paths: Iterable[str]) -> None:
    """Make the names in these folders durable, and their own names up to the root. One that is not there any more holds nothing of ours."""
    pure = [PurePosixPath(path) for path in paths]
    for each in sorted({*pure, *(parent for path in pure for parent in path.parents)}, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            folder = open_folder(root, str(each))
            try:
                os.fsync(folder.fd)
            except OSError as error:
                if error.errno != errno.EINVAL:  # some network file systems can't fsync a folder: their names are durable at once
                    raise


def trusts_syncfs(folder: Folder) -> bool:
    """Whether one syncfs may stand for the fsync of every file in this file system."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if os.uname().sysname != "Linux" or not release or (int(release[1]), int(release[2])) < _SYNCFS_KERNEL:
        return False
    found = _Statfs()
    return _libc().fstatfs(folder.fd, found) == 0 and found[0] & 0xFFFFFFFF in _SYNCFS_TYPES


def syncfs(folder: Folder) -> None:
    """Make the whole file system durable. Tells of every write that failed since the folder was opened."""
    if _libc().syncfs(folder.fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _make_root(root: Path) -> None:
    for folder in () if root.is_dir() else (*reversed(root.parents), root):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            parent = Folder(os.open(folder.parent, _FLAGS))
            os.fsync(parent.fd)


@cache  # each one is types that hold each other: 4 KB that wait for the collector, which in a daemon seldom comes
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
