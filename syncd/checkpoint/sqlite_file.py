"""The file behind the SQLite Checkpoint: its schema and migrations, the lock on its folder, its connections, its errors.

Refuses to touch a file that is not syncd's, or that a newer syncd wrote. Knows nothing of Entries or Runs beyond their columns.
Rules: a migration is one more entry of MIGRATIONS, never an edit of an old one; all pending ones are one transaction.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from syncd.clock import format_time
from syncd.errors import CheckpointError, OwnedError

APPLICATION_ID = 0x73796E63
_WAIT = 30  # seconds for another connection's lock: held for milliseconds only
_WAL_BYTES = 16 << 20  # the WAL file is cut to this after a large transaction
_ADVICE = "`syncd rebuild` keeps it aside and makes a new one: that costs a scan of the Source, never data"
# 0: a text that is no UTF-8
_DAMAGED = {0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT}

# Ids, names and titles are BLOBs of UTF-8 that also holds lone surrogates; an id that is an integer is an INTEGER. SQLite orders INTEGER before BLOB
# and BLOBs byte by byte: integers first, then texts by code point. `task` has no type, so that SQLite converts nothing.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE checkpoint (id TEXT NOT NULL)",
        "INSERT INTO checkpoint VALUES (lower(hex(randomblob(16))))",
        # last_full stands here since the history may be shorter than full_every.
        "CREATE TABLE sync (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL, last_full INTEGER) WITHOUT ROWID",
        # live, kept: Entries. tasks, annotations, predictions: sums over the live ones with an integer id. title NULL: no state.
        """CREATE TABLE collection (no INTEGER PRIMARY KEY, sync TEXT NOT NULL, id BLOB NOT NULL, title BLOB, created_at INTEGER, listed INTEGER,
           cursor INTEGER, position BLOB, pass_cursor INTEGER, settings BLOB, drafts_at INTEGER,
           live INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0,
           tasks INTEGER NOT NULL DEFAULT 0, annotations INTEGER NOT NULL DEFAULT 0, predictions INTEGER NOT NULL DEFAULT 0, UNIQUE (sync, id))""",
        """CREATE TABLE entry (collection INTEGER NOT NULL, task NOT NULL, created_at INTEGER NOT NULL, last_activity INTEGER NOT NULL,
           counters TEXT NOT NULL, tasks INTEGER NOT NULL, annotations INTEGER NOT NULL, predictions INTEGER NOT NULL, digest BLOB NOT NULL,
           size INTEGER NOT NULL, etag BLOB NOT NULL, drafts INTEGER NOT NULL, kept INTEGER NOT NULL,
           PRIMARY KEY (collection, task)) WITHOUT ROWID""",
        "CREATE INDEX entry_drafts ON entry (collection, task) WHERE drafts = 1 AND kept = 0",
        """CREATE TABLE failure (collection INTEGER NOT NULL, task NOT NULL, error BLOB NOT NULL, last_activity INTEGER,
           PRIMARY KEY (collection, task)) WITHOUT ROWID""",
        "CREATE TABLE note (collection INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (collection, name)) WITHOUT ROWID",
        """CREATE TABLE run (no INTEGER PRIMARY KEY, sync TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, started_at INTEGER NOT NULL,
           finished_at INTEGER, status TEXT, report TEXT NOT NULL DEFAULT '{}', UNIQUE (sync, id))""",
        "CREATE INDEX run_sync ON run (sync)",
        """CREATE TABLE event (run INTEGER NOT NULL, no INTEGER NOT NULL, op TEXT NOT NULL, why TEXT NOT NULL, project BLOB NOT NULL, task,
           digest BLOB NOT NULL, last_activity INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (run, no)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE collection ADD COLUMN counters TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE collection ADD COLUMN fresh INTEGER NOT NULL DEFAULT 0",
    ),
)


class UnusableError(CheckpointError):
    """The file will never do. fault: what is wrong, without advice; reason: one word for its new name when it is kept aside."""

    def __init__(self, fault: str, reason: str = "damaged") -> None:
        super().__init__(f"{fault}: {_ADVICE}")
        self.fault, self.reason = fault, reason


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """The one place where SQLite's and the system's errors become CheckpointError."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    except UnicodeDecodeError as error:  # of a name that is spoilt, in SQLite's own message
        raise UnusableError(f"the Checkpoint {path} is damaged") from error
    except (OSError, OverflowError) as error:
        raise CheckpointError(f"the Checkpoint {path} can't be used: {error}") from error


def _explained(error: sqlite3.Error, path: Path) -> CheckpointError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest its detail
    if code == sqlite3.SQLITE_FULL:
        return CheckpointError(f"the disk of the Checkpoint {path} is full: make room and run again, nothing recorded is lost")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        advice = "check the folder's owner and permissions, and that its disk is writable"
        return CheckpointError(f"the Checkpoint {path} can't be opened or written ({error}): {advice}")
    if code in _DAMAGED:
        return UnusableError(f"the Checkpoint {path} is damaged ({error})")
    return CheckpointError(f"the Checkpoint {path} failed ({error}, {getattr(error, 'sqlite_errorname', 'no code')}): check its disk and run again")


def keep_aside(path: Path, reason: str, at: int) -> Path:
    """Rename the file to `<name>.<reason>-<time>`, durably, and what SQLite keeps beside it alike; its new path."""
    aside = path.with_name(f"{path.name}.{reason}-{format_time(at).translate({ord(':'): None})}")
    for beside in ("-wal", "-shm", ""):  # a log left behind would be taken for the new file's
        with suppress(FileNotFoundError):
            path.with_name(path.name + beside).rename(aside.with_name(aside.name + beside))
    _sync(path.parent)
    return aside


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create it for its owner alone, durably. One that exists is left as it is."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    _sync(folder.parent)


def take_lock(folder: Path) -> int:
    """The descriptor that holds the folder until it is closed, or the process dies. Raises OwnedError naming the pid that has it."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise OwnedError(f"another syncd (pid {owner}) uses the state folder {folder}: stop it, or give this one another `state:`") from error
    except OSError:
        os.close(handle)
        raise
    return handle


def connect(path: Path, query: str) -> sqlite3.Connection:
    """A connection that may move between threads. query: SQLite's URI parameters, such as `mode=ro`."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{query}", uri=True, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    with _closed_if_wrong(db):
        db.execute("PRAGMA synchronous = FULL")  # a commit that returned survives a power loss
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    return db


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes: creates the file, or checks and migrates it."""
    db = connect(path, "mode=rwc")
    with _closed_if_wrong(db):
        _migrate(db, path)
        db.execute("PRAGMA cache_size = -2048")  # KiB
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection beside the writer's."""
    db = connect(path, "mode=rw")
    db.execute("PRAGMA query_only = ON")
    return db


def open_snapshot(path: Path) -> sqlite3.Connection:
    """A connection that leaves no trace, whether another process writes or none. For one short reading: what it sees may be past at the next.

    Opening a WAL database creates its -wal and -shm files unless SQLite is told that nobody writes, which is true while there is no -wal file.
    """
    live = path.with_name(path.name + "-wal").exists()
    if not path.exists():
        return _empty()
    db = connect(path, "mode=ro" if live else "mode=ro&immutable=1")
    with _closed_if_wrong(db):
        version = _version(db, path)
        if 0 < version < len(MIGRATIONS):
            raise CheckpointError(f"the Checkpoint {path} was written by an older syncd: `syncd sync` brings it up to date")
    if version:
        return db
    db.close()
    return _empty()


@contextmanager
def _closed_if_wrong(db: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise


def _empty() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _upgrade(db, 0)
    db.execute("UPDATE checkpoint SET id = ''")
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    """The schema version; 0 for a file without tables. Raises CheckpointError for a foreign or a newer one, before anything is changed."""
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (owner, version, tables) == (0, 0, 0):
        return 0
    if owner != APPLICATION_ID:
        raise UnusableError(f"{path} is a SQLite database of another program (another `state:` leaves it there)", "foreign")
    if version == 0:
        raise UnusableError(f"the Checkpoint {path} is damaged (it names no schema)")
    if version > len(MIGRATIONS):
        knows = f"schema {version}, this one knows {len(MIGRATIONS)}"
        raise UnusableError(f"the Checkpoint {path} was written by a newer syncd ({knows}), which can go on with it", "newer")
    return int(version)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = _version(db, path)
    db.execute("PRAGMA auto_vacuum = FULL")  # counts only before the first table: events come and go, their pages are given back
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise CheckpointError(f"the disk of the Checkpoint {path} can't hold a write-ahead log: give a `state:` on a local disk")
    if version < len(MIGRATIONS):
        _upgrade(db, version)


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    with db:  # commits, or rolls back
        db.execute("BEGIN IMMEDIATE")
        for statement in chain.from_iterable(MIGRATIONS[version:]):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
