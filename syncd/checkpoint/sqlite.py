"""The Checkpoint in one SQLite file beside the daemon: `<folder>/checkpoint.sqlite`, guarded by `<folder>/lock`.

Refuses to decide: it records what it is told, all of a Commit or nothing, and only for the Lease that may write (fencing).
Rules: one connection writes, under a lock; readers have their own and never hold a transaction while their caller works, so that the
write-ahead log stays small. What is asked of whole Collections (how many, which sums) is kept in the Collection's row by the same transaction.
"""

# ruff: noqa: S608 - queries are put together from constants and question marks; every value is bound

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from syncd.checkpoint import sqlite_file
from syncd.checkpoint.base import Checkpoint, Commit, Lease
from syncd.checkpoint.sqlite_known import ENTRY, SqliteKnown, entry_of, key_of, numbers_of, pack, pages, parts, row_of, task_of, text_of, unpack
from syncd.errors import CheckpointError
from syncd.known import Known
from syncd.model import Collection, CollectionState, Entry, Event, Failure, Kind, Op, Report, RunRecord, Status, Why

_RUNS = 1_000  # history kept per Sync
_FAILURES = 100  # shown in a Run's stored Report; all that fail now stand in their own table

_PUT = f"INSERT OR REPLACE INTO entry (collection, {ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_EVENT = "op, why, project, task, digest, last_activity, at"
_STATE = "id, title, created_at, listed, cursor, position, pass_cursor, settings, drafts_at, counters, fresh"
_STATE_TYPES = (bytes, bytes, int, int | None, int | None, bytes | None, int | None, bytes, int, str, int)
_TOTALS = """SELECT coalesce(sum(tasks > 0 AND NOT kept), 0), coalesce(sum(kept), 0),
    coalesce(sum(tasks * counted), 0), coalesce(sum(annotations * counted), 0), coalesce(sum(predictions * counted), 0)
    FROM (SELECT *, kept = 0 AND typeof(task) = 'integer' AS counted FROM entry WHERE collection = ? AND task IN ({marks}))"""


def open(folder: Path, *, read_only: bool = False) -> Checkpoint:  # noqa: A001 - the name every edge opens with
    """The Checkpoint in that folder; made (0700) when absent. read_only: takes no lock, writes nothing, creates no file; empty (id "") when absent.

    Raises CheckpointError (foreign, newer, damaged, not writable) and OwnedError (another process has it).
    """
    path = folder / "checkpoint.sqlite"
    with sqlite_file.translated(path):
        if read_only:
            return SqliteCheckpoint(path, None, None)
        sqlite_file.make_folder(folder)
        with ExitStack() as undo:
            lock = sqlite_file.take_lock(folder)
            undo.callback(os.close, lock)
            writer = sqlite_file.open_writer(path)
            undo.callback(writer.close)
            checkpoint = SqliteCheckpoint(path, writer, lock)
            undo.pop_all()
            return checkpoint


def set_aside(folder: Path, at: int, *, force: bool) -> tuple[str, Path] | None:
    """Move a Checkpoint that can't be used out of the way, or with `force` any: what is wrong with it, and its new path. None: there is none, or
    reading all of it shows nothing wrong. Raises OwnedError, and CheckpointError for what no new file helps against.
    """
    path = folder / "checkpoint.sqlite"
    with sqlite_file.translated(path), ExitStack() as undo:
        sqlite_file.make_folder(folder)
        undo.callback(os.close, sqlite_file.take_lock(folder))
        why, reason = "it was asked for", "old"
        try:
            _read_all(SqliteCheckpoint(path, None, None))
        except sqlite_file.UnusableError as error:
            why, reason, force = error.fault, error.reason, True
        return (why, sqlite_file.keep_aside(path, reason, at)) if force and path.exists() else None


class SqliteCheckpoint:
    """See `base.Checkpoint`. Made by `open`; without a writer it only reads."""

    def __init__(self, path: Path, writer: sqlite3.Connection | None, lock: int | None) -> None:
        self._path = path
        self._writer = writer
        self._folder_lock = lock
        self._writing = threading.Lock()
        self._idle: deque[sqlite3.Connection] = deque()  # readers at rest
        self._closed = False
        with self._read() as db:
            self.id: str = db.execute("SELECT id FROM checkpoint").fetchone()[0]

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the last commit. Keep it short: while it lasts, the write-ahead log can't be reused."""
        with sqlite_file.translated(self._path):
            db = self._reader()
            try:
                with db:  # ends the transaction either way
                    db.execute("BEGIN")
                    yield db
            except (ValueError, TypeError, AttributeError) as error:  # a value that nobody writes
                raise sqlite_file.UnusableError(f"the Checkpoint {self._path} is damaged ({error})") from error
            finally:
                self._idle.append(db)
                if self._closed or self._writer is None:
                    self._close_readers()

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise CheckpointError(f"the Checkpoint {self._path} is closed")
        if self._writer is None:
            return sqlite_file.open_snapshot(self._path)
        try:
            return self._idle.pop()
        except IndexError:
            return sqlite_file.open_reader(self._path)

    def _close_readers(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _write(self, lease: Lease | None) -> Iterator[sqlite3.Connection]:
        """One transaction, whole or not at all; with a Lease, only while no later Run of its Sync began."""
        with sqlite_file.translated(self._path), self._writing:
            if self._writer is None or self._closed:
                raise CheckpointError(f"the Checkpoint {self._path} is {'closed' if self._closed else 'open for reading only'}")
            with self._writer as db:  # commits, or rolls back
                db.execute("BEGIN IMMEDIATE")
                if lease:
                    _fence(db, lease)
                yield db

    def begin(self, sync: str, run_id: str, kind: Kind, at: int, place: str = "") -> Lease:
        with self._write(None) as db:
            bump = "INSERT INTO sync (name, epoch) VALUES (?, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch"
            ((epoch,),) = db.execute(bump, (sync,)).fetchall()
            report = json.dumps({"place": place} if place else {})
            db.execute("INSERT INTO run (sync, id, kind, started_at, report) VALUES (?, ?, ?, ?, ?)", (sync, run_id, kind, at, report))
        return Lease(sync, run_id, epoch)

    def commit(self, lease: Lease, collection: str, commit: Commit) -> None:
        with self._write(lease) as db:
            no = _number(db, lease.sync, collection)
            _record_entries(db, no, commit)
            _record_failures(db, no, commit)
            _record_notes(db, no, commit)
            _record_events(db, lease, commit.events)
            if commit.state:
                _record_state(db, no, commit.state)

    def drop(self, lease: Lease, collection: str) -> None:
        with self._write(lease) as db:
            query = "SELECT no, (SELECT count(*) FROM entry WHERE collection = no) FROM collection WHERE sync = ? AND id = ?"
            row = db.execute(query, (lease.sync, pack(collection))).fetchone()
            if row is None:
                return
            if row[1]:
                raise CheckpointError(f"{row[1]} Entries of {lease.sync}/{collection} are still recorded: their files must be deleted first (I3)")
            db.execute("DELETE FROM note WHERE collection = ?", row[:1])
            db.execute("DELETE FROM failure WHERE collection = ?", row[:1])
            db.execute("DELETE FROM collection WHERE no = ?", row[:1])

    def finish(self, lease: Lease, report: Report, at: int, *, full_since: int | None = None) -> None:
        stored = asdict(replace(report, failed=report.failed[:_FAILURES])) | {"failed_count": len(report.failed)}
        with self._write(lease) as db:
            end = "UPDATE run SET finished_at = ?, status = ?, report = ? WHERE sync = ? AND id = ? RETURNING kind, started_at"
            ((kind, started_at),) = db.execute(end, (at, report.status, json.dumps(stored), lease.sync, lease.run_id)).fetchall()
            if kind == Kind.FULL and report.status != Status.FAILED:
                db.execute("UPDATE sync SET last_full = ? WHERE name = ?", (started_at if full_since is None else full_since, lease.sync))
            # Runs whose feed is not written yet stay, whatever their age.
            prune = """DELETE FROM run WHERE sync = ? AND NOT EXISTS (SELECT 1 FROM event WHERE run = run.no)
                AND no <= (SELECT no FROM run WHERE sync = ? ORDER BY no DESC LIMIT 1 OFFSET ?)"""
            db.execute(prune, (lease.sync, lease.sync, _RUNS))

    def states(self, sync: str) -> dict[str, CollectionState]:
        with self._read() as db:
            rows = db.execute(f"SELECT {_STATE} FROM collection WHERE sync = ? AND title IS NOT NULL ORDER BY id", (sync,)).fetchall()
            return {state.collection.id: state for state in map(_state, rows)}

    def known(self, sync: str, collection: str) -> Known:
        return SqliteKnown(self._read, sync, collection)

    def entries(self, sync: str) -> Iterator[tuple[str, Entry]]:
        with self._read() as db:
            collections = db.execute("SELECT no, id FROM collection WHERE sync = ? ORDER BY id", (sync,)).fetchall()
            collections = [(no, unpack(id_)) for no, id_ in collections]
        query = f"SELECT {ENTRY}, task FROM entry WHERE collection = ? AND task > ? ORDER BY task"
        for no, project in collections:
            yield from ((project, entry) for entry in pages(self._read, query, (no,), -1, entry_of))

    def size(self, sync: str, collection: str) -> int:
        return self.known(sync, collection).size()

    def kept(self, sync: str, collection: str) -> int:
        with self._read() as db:
            row = db.execute("SELECT kept FROM collection WHERE sync = ? AND id = ?", (sync, pack(collection))).fetchone()
        return int(row[0]) if row else 0

    def failures(self, sync: str, limit: int = -1, collection: str | None = None) -> list[Failure]:
        here, of = ("", ()) if collection is None else ("AND c.id = ?", (pack(collection),))
        with self._read() as db:
            query = f"""SELECT c.id, f.task, f.error, f.last_activity FROM failure f JOIN collection c ON c.no = f.collection
                WHERE c.sync = ? {here} ORDER BY c.id, f.task LIMIT ?"""
            rows = db.execute(query, (sync, *of, limit)).fetchall()
            return [Failure(unpack(project), task_of(task), unpack(error), last_activity) for project, task, error, last_activity in rows]

    def pending_feeds(self, sync: str) -> list[str]:
        with self._read() as db:
            query = "SELECT id FROM run WHERE sync = ? AND EXISTS (SELECT 1 FROM event WHERE run = run.no) ORDER BY no"
            return [run_id for (run_id,) in db.execute(query, (sync,))]

    def events(self, sync: str, run_id: str) -> Iterator[Event]:
        with self._read() as db:
            run = db.execute("SELECT no FROM run WHERE sync = ? AND id = ?", (sync, run_id)).fetchone()
        if run:
            yield from pages(self._read, f"SELECT {_EVENT}, no FROM event WHERE run = ? AND no > ? ORDER BY no", run, 0, _event)

    def clear_events(self, lease: Lease, run_id: str) -> None:
        # In one transaction, half a second for a million: half of a feed must never be written over a whole one.
        with self._write(lease) as db:
            db.execute("DELETE FROM event WHERE run = (SELECT no FROM run WHERE sync = ? AND id = ?)", (lease.sync, run_id))

    def runs(self, sync: str, limit: int) -> list[RunRecord]:
        with self._read() as db:
            query = "SELECT id, kind, started_at, finished_at, status, report FROM run WHERE sync = ? ORDER BY no DESC LIMIT ?"
            rows = db.execute(query, (sync, limit)).fetchall()
            return [
                RunRecord(sync, run_id, Kind(kind), started_at, finished_at, Status(status) if status else None, json.loads(report))
                for run_id, kind, started_at, finished_at, status, report in rows
            ]

    def last_full(self, sync: str) -> int | None:
        with self._read() as db:
            row = db.execute("SELECT last_full FROM sync WHERE name = ?", (sync,)).fetchone()
        return row[0] if row else None

    def examine(self) -> None:
        with self._read() as db:
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()  # measured: 0.2 s for a million Entries
        if found != "ok":
            raise sqlite_file.UnusableError(f"the Checkpoint {self._path} is damaged ({found})")

    def syncs(self) -> list[str]:
        """Every Sync it knows of."""
        with self._read() as db:
            return [name for (name,) in db.execute("SELECT name FROM sync UNION SELECT sync FROM collection")]

    def close(self) -> None:
        with sqlite_file.translated(self._path), self._writing:
            self._closed = True
            self._close_readers()
            if self._writer:
                self._writer.close()  # last: it folds the write-ahead log into the file
            if self._folder_lock is not None:
                os.close(self._folder_lock)
                self._folder_lock = None


def _read_all(checkpoint: SqliteCheckpoint) -> None:
    """Every row, since a value that nobody writes is met only where it is used."""
    checkpoint.examine()
    for name in checkpoint.syncs():
        events = chain.from_iterable(checkpoint.events(name, run_id) for run_id in checkpoint.pending_feeds(name))
        rows = checkpoint.states(name), checkpoint.failures(name), checkpoint.runs(name, -1), checkpoint.entries(name), events
        deque(chain(*rows), 0)


def _fence(db: sqlite3.Connection, lease: Lease) -> None:
    if not db.execute("SELECT 1 FROM sync WHERE name = ? AND epoch = ?", (lease.sync, lease.epoch)).fetchone():
        raise CheckpointError(f"fenced: a later Run of {lease.sync} began, so Run {lease.run_id} may record nothing more")


def _number(db: sqlite3.Connection, sync: str, collection: str) -> int:
    at = (sync, pack(collection))
    row = db.execute("SELECT no FROM collection WHERE sync = ? AND id = ?", at).fetchone()
    return int(row[0]) if row else int(db.execute("INSERT INTO collection (sync, id) VALUES (?, ?) RETURNING no", at).fetchall()[0][0])


def _totals(db: sqlite3.Connection, no: int, tasks: Iterable[str]) -> list[int]:
    sums = [db.execute(_TOTALS.format(marks=marks), (no, *keys)).fetchone() for keys, marks in parts(tasks)]
    return [sum(column) for column in zip(*sums, strict=True)]


def _record_entries(db: sqlite3.Connection, no: int, commit: Commit) -> None:
    touched = {entry.task for entry in commit.entries}.union(commit.forgotten)
    if not touched:
        return
    before = _totals(db, no, touched)
    db.executemany("DELETE FROM entry WHERE collection = ? AND task = ?", [(no, key_of(task)) for task in commit.forgotten])
    db.executemany(_PUT, [row_of(no, entry) for entry in commit.entries])
    after = _totals(db, no, touched)
    change = [new - old for new, old in zip(after, before, strict=True)]
    add = """UPDATE collection SET live = live + ?, kept = kept + ?, tasks = tasks + ?, annotations = annotations + ?, predictions = predictions + ?
        WHERE no = ?"""
    db.execute(add, (*change, no))


def _record_failures(db: sqlite3.Connection, no: int, commit: Commit) -> None:
    over = [entry.task for entry in commit.entries]
    over += [*commit.forgotten, *commit.cleared]
    if db.execute("SELECT 1 FROM failure WHERE collection = ? LIMIT 1", (no,)).fetchone():
        db.executemany("DELETE FROM failure WHERE collection = ? AND task = ?", [(no, key_of(task)) for task in over])
    failed = [(no, key_of(f.task), pack(f.error), f.last_activity) for f in commit.failed if f.task is not None]
    db.executemany("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?)", failed)


def _record_notes(db: sqlite3.Connection, no: int, commit: Commit) -> None:
    forgotten = [(no, pack(name)) for name, value in commit.notes.items() if value is None]
    kept = [(no, pack(name), value) for name, value in commit.notes.items() if value is not None]
    db.executemany("DELETE FROM note WHERE collection = ? AND name = ?", forgotten)
    db.executemany("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", kept)


def _record_events(db: sqlite3.Connection, lease: Lease, events: Sequence[Event]) -> None:
    if not events:
        return
    find = "SELECT no, (SELECT coalesce(max(e.no), 0) FROM event e WHERE e.run = run.no) FROM run WHERE sync = ? AND id = ?"
    ((run, last),) = db.execute(find, (lease.sync, lease.run_id)).fetchall()
    rows = [
        (run, no, e.op, e.why, pack(e.project), None if e.task is None else key_of(e.task), e.digest, e.last_activity, e.at)
        for no, e in enumerate(events, last + 1)
    ]
    db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _record_state(db: sqlite3.Connection, no: int, state: CollectionState) -> None:
    set_ = """UPDATE collection SET title = ?, created_at = ?, listed = ?, cursor = ?, position = ?, pass_cursor = ?, settings = ?, drafts_at = ?,
        counters = ?, fresh = ? WHERE no = ?"""
    at, position = state.collection, None if state.position is None else pack(state.position)
    values = (pack(at.title), at.created_at, at.tasks, state.cursor, position, state.pass_cursor, state.settings, state.drafts_at)
    db.execute(set_, (*values, text_of(state.counters), state.fresh, no))


def _event(row: Sequence[Any]) -> Event:
    op, why, project, task, digest, last_activity, at, _no = row
    return Event(Op(op), Why(why), unpack(project), None if task is None else task_of(task), digest, last_activity, at)


def _state(row: Sequence[Any]) -> CollectionState:
    if not all(map(isinstance, row, _STATE_TYPES)):
        raise ValueError(f"a row of Collections holds {row!r:.200}")
    id_, title, created_at, listed, cursor, position, pass_cursor, settings, drafts_at, counters, fresh = row
    collection, position = Collection(unpack(id_), unpack(title), created_at, listed), None if position is None else unpack(position)
    return CollectionState(collection, cursor, position, pass_cursor, settings, drafts_at, numbers_of(counters), bool(fresh))
