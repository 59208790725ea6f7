"""A dictionary of bytes on disk that vanishes with its owner: for sets as large as a Collection, at flat memory.

Not durable, not shared between threads, never a record of anything: a Run that dies simply loses it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

_CHUNK = 500  # bound parameters per statement


class Scratch:
    """Text keys to bytes values, in a private temporary SQLite file that the system removes."""

    def __init__(self) -> None:
        # "" is SQLite's temporary on-disk database: it stays in the page cache while small and spills to an unlinked file.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-1024")
        self._db.execute("CREATE TABLE item (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def put(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Add or replace."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO item VALUES (?, ?)", items)
        self._db.execute("COMMIT")

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of `keys` that are held."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _CHUNK):
            part = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            found.update(self._db.execute(f"SELECT key, value FROM item WHERE key IN ({marks})", part))  # noqa: S608 - marks only
        return found

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Everything, by key."""
        yield from self._db.execute("SELECT key, value FROM item ORDER BY key")

    def close(self) -> None:
        self._db.close()
