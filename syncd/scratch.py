"""Sets as large as a Collection at flat memory: a dictionary of bytes on disk that vanishes with its owner, and any stream piece by piece.

Not durable, not shared between threads, never a record of anything: a Run that dies simply loses it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from syncd.errors import SyncdError

T = TypeVar("T")
_CHUNK = 500  # bound parameters per statement


def chunks(items: Iterable[T], size: int = _CHUNK) -> Iterator[list[T]]:
    """So many at a time, and what is left."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SyncdError(f"no room for what a Run sets aside: {error}; make some in $TMPDIR, else /var/tmp or /tmp") from None


class Scratch:
    """Text keys, lone surrogates included, to bytes values, in a private temporary SQLite file that the system removes."""

    def __init__(self) -> None:
        # "" is SQLite's temporary on-disk database: it stays in the page cache while small and spills to an unlinked file.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA cache_size=-1024")
        self._db.execute("CREATE TABLE item (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def put(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Add or replace."""
        self._write("INSERT OR REPLACE INTO item VALUES (?, ?)", items)

    def add(self, items: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Add those whose key is not held yet; what is held now for each of the keys."""
        before = self._db.total_changes
        self._write("INSERT OR IGNORE INTO item VALUES (?, ?)", items.items())
        return items if self._db.total_changes - before == len(items) else self.get(list(items))

    @_told()
    def mark(self, keys: Sequence[str], value: bytes) -> int:
        """Add those that are not held yet, all with this value; how many these were. In one statement: a fifth of the cost of `add`."""
        text = json.dumps(keys)
        if r"\u0000" in text:  # where a text ends for SQLite's JSON
            before = self._db.total_changes
            self.add(dict.fromkeys(keys, value))
            return self._db.total_changes - before
        return self._db.execute("INSERT OR IGNORE INTO item SELECT CAST(value AS BLOB), ? FROM json_each(?)", (value, text)).rowcount

    @_told()
    def _write(self, statement: str, items: Iterable[tuple[str, bytes]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, [(key.encode("utf-8", "surrogatepass"), value) for key, value in items])
        self._db.execute("COMMIT")

    @_told()
    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of `keys` that are held."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _CHUNK):
            part = [_pack(key) for key in keys[start : start + _CHUNK]]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, value FROM item WHERE key IN ({marks})", part)  # noqa: S608 - marks only
            found.update((_unpack(key), value) for key, value in rows)
        return found

    @_told()
    def take(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of `keys` that are held; they are forgotten."""
        found = self.get(keys)
        self._db.execute("BEGIN")
        self._db.executemany("DELETE FROM item WHERE key = ?", ((_pack(key),) for key in found))
        self._db.execute("COMMIT")
        return found

    def items(self, first: str = "", *, descending: bool = False) -> Iterator[tuple[str, bytes]]:
        """Everything not before `first`, by key in code point order."""
        order = "DESC" if descending else "ASC"
        for key, value in self._db.execute(f"SELECT key, value FROM item WHERE key >= ? ORDER BY key {order}", (_pack(first),)):  # noqa: S608 - a constant
            yield _unpack(key), value

    def close(self) -> None:
        self._db.close()

    def __del__(self) -> None:
        self._db.close()  # it and its statements hold each other: left alone, 100 KB wait for a collection, which is rare


def _pack(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _unpack(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
