"""The file behind the Checkpoint: who may open it, what is refused with which advice, how it grows older, and that readers leave no trace."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.checkpoint import sqlite, sqlite_file
from syncd.checkpoint.base import Commit
from syncd.errors import CheckpointError, OwnedError
from syncd.model import Collection, CollectionState, Counts, Entry, Kind, Revision


def entry(task: str) -> Entry:
    return Entry(task, Revision(1, 2, (3,)), Counts(1, 0, 0), bytes(32), 5, b"e")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with a Checkpoint of 1,000 Entries, closed."""
    folder = tmp_path / "state"
    checkpoint = sqlite.open(folder)
    checkpoint.commit(checkpoint.begin("cats", "r1", Kind.FULL, 1), "12", Commit(entries=[entry(str(n)) for n in range(1_000)]))
    checkpoint.close()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    sqlite.open(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"checkpoint.sqlite", "lock"}


def test_the_file_says_what_it_is_and_is_durable(state: Path) -> None:
    checkpoint = sqlite.open(state)
    assert isinstance(checkpoint, sqlite.SqliteCheckpoint)
    assert checkpoint._writer
    pragmas = {name: checkpoint._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "auto_vacuum")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 1}
    checkpoint.close()


class TestOwnership:
    HOLD = """
import sys
from pathlib import Path
from syncd.checkpoint import sqlite
checkpoint = sqlite.open(Path(sys.argv[1]))
print("held", flush=True)
input()
"""

    def test_a_second_process_is_told_the_pid_of_the_first_and_may_go_on_when_it_died(self, state: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", self.HOLD, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
            assert first.stdout
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(OwnedError, match=rf"pid {first.pid}\b.*{state}") as refused:
                sqlite.open(state)
            assert refused.value.exit_code == 11
            reader = sqlite.open(state, read_only=True)
            assert reader.size("cats", "12") == 1_000
            reader.close()
            first.send_signal(signal.SIGKILL)
        sqlite.open(state).close()

    def test_a_refused_open_does_not_keep_the_folder(self, state: Path) -> None:
        path = state / "checkpoint.sqlite"
        good = path.read_bytes()
        path.write_bytes(b"not a database, but long enough to have a header" * 100)
        with pytest.raises(CheckpointError):
            sqlite.open(state)
        path.write_bytes(good)
        sqlite.open(state).close()


def _garbage(path: Path) -> None:
    path.write_bytes(b"hello world " * 1_000)


def _short_header(path: Path) -> None:
    os.truncate(path, 50)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _last_page_missing(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4_096)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _no_tables(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3_996)


class TestDamage:
    @pytest.mark.parametrize("read_only", [False, True])
    @pytest.mark.parametrize("harm", [_garbage, _short_header, _half, _last_page_missing, _zeros, _no_tables])
    def test_a_damaged_file_is_refused_with_advice_and_left_as_it_is(self, state: Path, harm: Callable[[Path], None], read_only: bool) -> None:
        path = state / "checkpoint.sqlite"
        harm(path)
        before = path.read_bytes()
        with pytest.raises(CheckpointError, match=r"`syncd rebuild`.*a scan of the Source, never data") as refused:
            sqlite.open(state, read_only=read_only)
        assert str(path) in str(refused.value)
        assert path.read_bytes() == before

    def test_damage_inside_is_told_when_it_is_met(self, state: Path) -> None:
        path = state / "checkpoint.sqlite"
        data = bytearray(path.read_bytes())
        data[-12 * 4_096 :] = b"\xee" * (12 * 4_096)  # pages of Entries stand at the end
        path.write_bytes(data)
        checkpoint = sqlite.open(state)
        with pytest.raises(CheckpointError, match="damaged"):
            list(checkpoint.known("cats", "12").all_ids())
        checkpoint.close()

    @pytest.mark.parametrize("read_only", [False, True])
    def test_another_programs_database_is_refused_and_left_as_it_is(self, tmp_path: Path, read_only: bool) -> None:
        path = tmp_path / "checkpoint.sqlite"
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE theirs (a)")
        other.close()
        before = path.read_bytes()
        with pytest.raises(CheckpointError, match="another program"):
            sqlite.open(tmp_path, read_only=read_only)
        assert path.read_bytes() == before

    def test_a_creation_that_was_killed_is_begun_anew(self, tmp_path: Path) -> None:
        half = sqlite3.connect(tmp_path / "checkpoint.sqlite")
        half.execute("PRAGMA auto_vacuum = FULL")
        half.execute("PRAGMA journal_mode = WAL")
        half.close()
        assert sqlite.open(tmp_path, read_only=True).id == ""
        checkpoint = sqlite.open(tmp_path)
        assert checkpoint.id
        checkpoint.close()


class TestMigrations:
    def test_an_older_file_is_brought_up_to_date_with_everything_in_it(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = sqlite.open(state, read_only=True).id
        more = (
            *sqlite_file.MIGRATIONS,
            ("ALTER TABLE entry ADD COLUMN extra INTEGER NOT NULL DEFAULT 7", "CREATE TABLE more (a)"),
            ("CREATE TABLE most (a)",),
        )
        monkeypatch.setattr(sqlite_file, "MIGRATIONS", more)
        with pytest.raises(CheckpointError, match="older syncd"):
            sqlite.open(state, read_only=True)
        for _ in range(2):
            checkpoint = sqlite.open(state)
            assert checkpoint.id == before
            assert checkpoint.known("cats", "12").entries(["5"]) == {"5": entry("5")}
            checkpoint.close()
        monkeypatch.undo()
        newer = (state / "checkpoint.sqlite").read_bytes()
        for read_only in (False, True):
            with pytest.raises(CheckpointError, match=r"newer syncd \(schema 4, this one knows 2\)"):
                sqlite.open(state, read_only=read_only)
        assert (state / "checkpoint.sqlite").read_bytes() == newer

    def test_one_of_the_first_schema_knows_no_counters_yet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_file, "MIGRATIONS", sqlite_file.MIGRATIONS[:1])
        sqlite.open(tmp_path).close()
        old = sqlite3.connect(tmp_path / "checkpoint.sqlite")
        with old:
            columns = "sync, id, title, created_at, listed, cursor, position, pass_cursor, settings, drafts_at"
            old.execute(f"INSERT INTO collection ({columns}) VALUES ('cats', ?, ?, 5, 10, 3, NULL, NULL, ?, 9)", (b"12", b"Cats", b"d"))
        old.close()
        monkeypatch.undo()
        checkpoint = sqlite.open(tmp_path)
        assert checkpoint.states("cats") == {"12": CollectionState(Collection("12", "Cats", 5, 10), 3, None, None, b"d", 9, (), fresh=False)}
        checkpoint.close()

    def test_a_migration_that_fails_changes_nothing(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, ("DELETE FROM entry",), ("CREATE TABLE entry (a)",)))
        with pytest.raises(CheckpointError, match="already exists"):
            sqlite.open(state)
        monkeypatch.undo()
        checkpoint = sqlite.open(state)
        assert len(list(checkpoint.known("cats", "12").all_ids())) == 1_000
        checkpoint.close()


class TestReadOnly:
    def test_without_a_state_it_is_empty_and_nothing_is_created(self, tmp_path: Path) -> None:
        checkpoint = sqlite.open(tmp_path / "none", read_only=True)
        assert checkpoint.id == ""
        assert (checkpoint.states("cats"), checkpoint.runs("cats", 5), checkpoint.size("cats", "12")) == ({}, [], 0)
        assert list(checkpoint.known("cats", "12").all_ids()) == []
        checkpoint.close()
        assert list(tmp_path.iterdir()) == []

    def test_it_leaves_no_trace_and_sees_what_a_writer_does_meanwhile(self, state: Path) -> None:
        before = {path.name: path.read_bytes() for path in state.iterdir()}
        reader = sqlite.open(state, read_only=True)
        assert len(list(reader.known("cats", "12").all_ids())) == 1_000
        assert {path.name: path.read_bytes() for path in state.iterdir()} == before
        for n in range(2):
            writer = sqlite.open(state)
            writer.commit(writer.begin("cats", f"w{n}", Kind.FULL, 1), "12", Commit(entries=[entry(f"x{n}")]))
            assert (reader.id, reader.size("cats", "12")) == (writer.id, 1_001 + n)
            writer.close()
            assert reader.size("cats", "12") == 1_001 + n
        reader.close()

    def test_it_refuses_to_write(self, state: Path) -> None:
        reader = sqlite.open(state, read_only=True)
        with pytest.raises(CheckpointError, match="reading only"):
            reader.begin("cats", "r", Kind.FULL, 1)
        reader.close()

    @pytest.mark.parametrize("read_only", [False, True])
    def test_a_closed_one_says_so(self, state: Path, read_only: bool) -> None:
        checkpoint = sqlite.open(state, read_only=read_only)
        checkpoint.close()
        checkpoint.close()
        with pytest.raises(CheckpointError, match="closed"):
            checkpoint.size("cats", "12")
        with pytest.raises(CheckpointError, match="closed"):
            checkpoint.begin("cats", "r", Kind.FULL, 1)


class TestDisk:
    def test_a_full_disk_stops_the_run_and_loses_nothing(self, small_disk: Path) -> None:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(300_000))
        checkpoint = sqlite.open(small_disk / "state")
        lease = checkpoint.begin("cats", "r1", Kind.FULL, 1)
        done = 0

        def fill() -> None:
            nonlocal done
            while True:
                checkpoint.commit(lease, "12", Commit(entries=[entry(str(done + n)) for n in range(100)]))
                done += 100

        with pytest.raises(CheckpointError, match=r"checkpoint.sqlite is full: make room"):
            fill()
        assert done
        assert len(list(checkpoint.known("cats", "12").all_ids())) == checkpoint.size("cats", "12") == done
        filler.unlink()
        checkpoint.commit(lease, "12", Commit(entries=[entry("x")]))
        checkpoint.close()
        again = sqlite.open(small_disk / "state")
        assert (again.size("cats", "12"), again.known("cats", "12").counts(0, 10**9).tasks) == (done + 1, done)
        again.close()

    def test_a_disk_that_can_only_be_read_serves_readers_and_tells_writers(self, small_disk: Path) -> None:
        sqlite.open(small_disk / "state").close()
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        with pytest.raises(CheckpointError, match=r"state/checkpoint.sqlite .*Read-only file system"):
            sqlite.open(small_disk / "state")
        with pytest.raises(CheckpointError, match=r"other/checkpoint.sqlite .*Read-only file system"):
            sqlite.open(small_disk / "other")
        reader = sqlite.open(small_disk / "state", read_only=True)
        assert reader.id
        reader.close()

    def test_a_folder_that_is_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("no folder")
        with pytest.raises(CheckpointError, match=r"state/checkpoint.sqlite"):
            sqlite.open(tmp_path / "state")
        with pytest.raises(CheckpointError, match=r"state/below/checkpoint.sqlite"):
            sqlite.open(tmp_path / "state" / "below")
