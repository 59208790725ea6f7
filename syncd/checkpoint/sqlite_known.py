"""What is read of one Collection in the SQLite Checkpoint, and how its rows hold ids, texts and Entries.

Refuses to write. Rules: every value is one-to-one with what its row holds; no transaction outlives a call or a page, so that a slow caller
neither blocks the one who commits nor lets the write-ahead log grow.
"""

# ruff: noqa: S608 - queries are put together from constants and question marks; every value is bound

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from syncd.model import Counts, Entry, Revision

_PART = 500  # ids per statement
_PAGE = 2_000  # rows read at a time when streaming
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")  # what fits SQLite's integers and comes back the same
_LARGEST = 10**18 - 1

ENTRY = "task, created_at, last_activity, counters, tasks, annotations, predictions, digest, size, etag, drafts, kept"
_FIELDS = (int, int, str, int, int, int, bytes, int, bytes, int, int)
_SHAPES = {(key, *_FIELDS) for key in (int, bytes)}  # of a row of ENTRY: a flipped bit makes a number of a text, which SQLite reads without complaint
HERE = "collection = (SELECT no FROM collection WHERE sync = ? AND id = ?)"

T = TypeVar("T")
Read = Callable[[], AbstractContextManager[sqlite3.Connection]]


def key_of(task: str) -> int | bytes:
    return int(task) if _INTEGER.fullmatch(task) else pack(task)


def task_of(key: int | bytes) -> str:
    return unpack(key) if isinstance(key, bytes) else str(key)


def pack(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def unpack(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def text_of(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def numbers_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def row_of(no: int, e: Entry) -> tuple[object, ...]:
    counters = text_of(e.revision.counters)
    return (no, key_of(e.task), e.revision.created_at, e.revision.last_activity, counters, *e.counts, e.digest, e.size, e.etag, e.drafts, e.kept)


def entry_of(row: Sequence[Any]) -> Entry:
    """row: the columns of ENTRY, and perhaps others after them. Raises ValueError for what nobody writes."""
    if tuple(map(type, row[:12])) not in _SHAPES:
        raise ValueError(f"a row of Entries holds {row[:12]!r:.200}")
    task, created_at, last_activity, counters, tasks, annotations, predictions, digest, size, etag, drafts, kept, *_ = row
    revision = Revision(created_at, last_activity, numbers_of(counters))
    return Entry(task_of(task), revision, Counts(tasks, annotations, predictions), digest, size, etag, bool(drafts), bool(kept))


def parts(tasks: Iterable[str]) -> Iterator[tuple[list[int | bytes], str]]:
    """Keys in pieces that one statement can bind, each with its question marks."""
    keys = [key_of(task) for task in tasks]
    for start in range(0, len(keys), _PART):
        part = keys[start : start + _PART]
        yield part, ",".join("?" * len(part))


class SqliteKnown:
    """See `sources.base.Known`."""

    def __init__(self, read: Read, sync: str, collection: str) -> None:
        self._read = read
        self._at = (sync, pack(collection))

    def entries(self, tasks: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        with self._read() as db:
            for keys, marks in parts(tasks):
                rows = db.execute(f"SELECT {ENTRY} FROM entry WHERE {HERE} AND task IN ({marks})", (*self._at, *keys))
                found.update((entry.task, entry) for entry in map(entry_of, rows))
        return found

    def counts(self, low: int, high: int) -> Counts:
        low, high = _bounds(low, high)
        with self._read() as db:
            whole = "SELECT tasks, annotations, predictions FROM collection WHERE sync = ? AND id = ?"
            live = f"FROM entry WHERE {HERE} AND kept = 0"
            part = f"SELECT coalesce(sum(tasks), 0), coalesce(sum(annotations), 0), coalesce(sum(predictions), 0) {live} AND task BETWEEN ? AND ?"
            ends = f"SELECT (SELECT min(task) {live}), (SELECT max(task) {live} AND task <= ?)"
            least, greatest = db.execute(ends, (*self._at, *self._at, _LARGEST)).fetchone()
            if greatest is not None and low <= least and greatest <= high:
                return Counts(*db.execute(whole, self._at).fetchone())
            return Counts(*db.execute(part, (*self._at, low, high)).fetchone())

    def ids(self, low: int, high: int) -> list[str]:
        with self._read() as db:
            query = f"SELECT task FROM entry WHERE {HERE} AND task BETWEEN ? AND ? AND kept = 0 ORDER BY task"
            return [str(task) for (task,) in db.execute(query, (*self._at, *_bounds(low, high)))]

    def all_ids(self) -> Iterator[str]:
        query = f"SELECT task FROM entry WHERE {HERE} AND kept = 0 AND task > ? ORDER BY task"
        yield from pages(self._read, query, self._at, -1, lambda row: task_of(row[0]))

    def size(self) -> int:
        with self._read() as db:
            row = db.execute("SELECT live FROM collection WHERE sync = ? AND id = ?", self._at).fetchone()
        return int(row[0]) if row else 0

    def last_id(self) -> int:
        with self._read() as db:
            query = f"SELECT task FROM entry WHERE {HERE} AND task <= ? AND kept = 0 ORDER BY task DESC LIMIT 1"
            row = db.execute(query, (*self._at, _LARGEST)).fetchone()
        return int(row[0]) if row else 0

    def with_drafts(self) -> list[str]:
        with self._read() as db:
            rows = db.execute(f"SELECT task FROM entry WHERE {HERE} AND drafts = 1 AND kept = 0 ORDER BY task", self._at)
            return [task_of(task) for (task,) in rows]

    def failing(self) -> list[str]:
        with self._read() as db:
            return [task_of(task) for (task,) in db.execute(f"SELECT task FROM failure WHERE {HERE} ORDER BY task", self._at)]

    def notes(self, names: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._read() as db:
            for start in range(0, len(names), _PART):
                part = [pack(name) for name in names[start : start + _PART]]
                rows = db.execute(f"SELECT name, value FROM note WHERE {HERE} AND name IN ({','.join('?' * len(part))})", (*self._at, *part))
                found.update((unpack(name), value) for name, value in rows)
        return found

    def all_notes(self) -> Iterator[tuple[str, bytes]]:
        query = f"SELECT value, name FROM note WHERE {HERE} AND name > ? ORDER BY name"
        yield from pages(self._read, query, self._at, -1, lambda row: (unpack(row[1]), row[0]))

    def note_count(self) -> int:
        with self._read() as db:
            return int(db.execute(f"SELECT count(*) FROM note WHERE {HERE}", self._at).fetchone()[0])


def _bounds(low: int, high: int) -> tuple[int, int]:
    return max(low, 0), min(high, _LARGEST)


def pages(read: Read, query: str, fixed: Sequence[object], after: object, of: Callable[[Any], T]) -> Iterator[T]:
    """What `of` makes of every row of a query whose last parameter and last column are the same ascending key; no transaction is held between
    two pages.
    """
    while True:
        with read() as db:
            rows = db.execute(f"{query} LIMIT {_PAGE}", (*fixed, after)).fetchall()
            found = [of(row) for row in rows]
        yield from found
        if len(rows) < _PAGE:
            return
        after = rows[-1][-1]
