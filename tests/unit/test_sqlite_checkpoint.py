"""What only the SQLite Checkpoint promises: its size, its cost, and that nothing acknowledged is lost when its process is killed."""

from __future__ import annotations

import hashlib
import itertools
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Commit, Lease
from syncd.model import Counts, Entry, Event, Failure, Kind, Op, Revision, Why

MANY = 50_000


def studio_entry(n: int) -> Entry:
    """As a Label Studio task in S3 makes it."""
    digest = hashlib.sha256(b"%d" % n).digest()
    etag = digest[:16]  # an MD5, as object stores give it and Targets keep it
    revision = Revision(1_700_000_000_000_000 + 1_003 * n, 1_730_000_000_000_000 + 7_001 * n, (1, 0, 2, 0))
    return Entry(str(n), revision, Counts(1, 1, 2), digest, 2_100, etag, drafts=n % 50 == 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite.SqliteCheckpoint]:
    checkpoint = sqlite.open(tmp_path_factory.mktemp("state"))
    assert isinstance(checkpoint, sqlite.SqliteCheckpoint)
    yield checkpoint
    checkpoint.close()


# --- against a plain dictionary --------------------------------------------------------------------------------------------------------

TASKS = [*(str(n) for n in range(12)), "99999999999", "9" * 18, "9" * 19, "007", "x", "\ud83d", "é"]
tasks = st.sampled_from(TASKS)
entries = st.builds(
    Entry,
    tasks,
    st.builds(Revision, st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(-9, 2**70), max_size=3).map(tuple)),
    st.builds(Counts, st.integers(0, 1), st.integers(0, 5), st.integers(0, 5)),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**40),
    st.binary(max_size=40) | st.from_regex(rb'("?)[0-9a-f]{32}\1', fullmatch=True),
    st.booleans(),
    st.booleans(),
)
commits = st.builds(
    Commit,
    entries=st.lists(entries, max_size=6, unique_by=lambda e: e.task),
    forgotten=st.lists(tasks, max_size=4),
    failed=st.lists(tasks, max_size=3).map(lambda names: [Failure("12", name, "no") for name in names]),
    cleared=st.lists(tasks, max_size=3),
    notes=st.dictionaries(st.sampled_from(["a", "b", "\udcff"]), st.none() | st.binary(max_size=3), max_size=3),
)
numbers = itertools.count()


def order(task: str) -> tuple[bool, int, str]:
    number = task.isascii() and task.isdigit() and len(task) <= 18 and str(int(task)) == task
    return (False, int(task), "") if number else (True, 0, task)


def integers(held: dict[str, Entry], low: int, high: int) -> list[Entry]:
    return [e for task, e in held.items() if not e.kept and not order(task)[0] and low <= int(task) <= high]


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(commits, max_size=6), bounds=st.lists(st.tuples(st.integers(-2, 13), st.sampled_from([0, 5, 11, 10**12, 10**30])), max_size=4))
def test_any_history_of_commits_gives_what_a_dictionary_gives(
    checkpoint: sqlite.SqliteCheckpoint, steps: list[Commit], bounds: list[tuple[int, int]]
) -> None:
    sync = f"sync-{next(numbers)}"
    lease = checkpoint.begin(sync, "r", Kind.FULL, 1)
    held: dict[str, Entry] = {}
    failing: set[str] = set()
    notes: dict[str, bytes] = {}
    for step in steps:
        checkpoint.commit(lease, "12", step)
        held = {task: e for task, e in held.items() if task not in step.forgotten} | {e.task: e for e in step.entries}
        failing -= {e.task for e in step.entries} | {*step.forgotten, *step.cleared}
        failing |= {f.task for f in step.failed if f.task is not None}
        notes = {name: value for name, value in (notes | dict(step.notes)).items() if value is not None}
    known = checkpoint.known(sync, "12")
    live = sorted((task for task, e in held.items() if not e.kept), key=order)
    tasks = [task for task in live if held[task].counts.tasks]
    assert known.entries(TASKS) == held
    assert list(known.all_ids()) == live
    assert known.with_drafts() == [task for task in live if held[task].drafts]
    assert known.last_id() == max((int(e.task) for e in integers(held, 0, 10**18)), default=0)
    assert (checkpoint.size(sync, "12"), known.size(), checkpoint.kept(sync, "12")) == (len(tasks), len(tasks), len(held) - len(live))
    assert known.failing() == sorted(failing, key=order)
    assert list(known.all_notes()) == sorted(notes.items())
    for low, high in [*bounds, (0, 10**18)]:
        inside = integers(held, low, high)
        assert known.ids(low, high) == sorted((e.task for e in inside), key=order)
        assert known.counts(low, high) == Counts(*(sum(column) for column in zip((0, 0, 0), *(e.counts for e in inside), strict=True)))


# --- size and cost ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sqlite.SqliteCheckpoint, Lease, Path, int]]:
    """MANY Entries with their events, in commits of 500, while a slow reader stands in the middle of its listing; the WAL's greatest size."""
    folder = tmp_path_factory.mktemp("large")
    checkpoint = sqlite.open(folder)
    assert isinstance(checkpoint, sqlite.SqliteCheckpoint)
    lease = checkpoint.begin("cats", "r", Kind.FULL, 1)
    reader, greatest = checkpoint.known("cats", "12").all_ids(), 0
    for start in range(1, MANY, 500):
        batch = [studio_entry(n) for n in range(start, start + 500)]
        events = [Event(Op.PUT, Why.NEW, "12", e.task, e.digest, e.revision.last_activity, 5) for e in batch]
        checkpoint.commit(lease, "12", Commit(entries=batch, events=events))
        assert next(reader)
        greatest = max(greatest, (folder / "checkpoint.sqlite-wal").stat().st_size)
    yield checkpoint, lease, folder / "checkpoint.sqlite", greatest
    checkpoint.close()


Large = tuple[sqlite.SqliteCheckpoint, Lease, Path, int]


def test_the_write_ahead_log_stays_small_beside_a_slow_reader(large: Large) -> None:
    assert large[3] < 6 << 20


def test_whole_collections_are_asked_without_a_scan(large: Large) -> None:
    checkpoint = large[0]
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    known = checkpoint.known("cats", "12")
    known.last_id()
    (reader,) = checkpoint._idle
    reader.set_progress_handler(count, 10)  # each 10 instructions of SQLite's machine
    assert (known.last_id(), checkpoint.size("cats", "12"), checkpoint.kept("cats", "12")) == (MANY, MANY, 0)
    assert known.counts(1, MANY) == known.counts(0, 10**12) == Counts(MANY, MANY, 2 * MANY)
    assert steps < 100
    known.counts(1, MANY - 1)
    reader.set_progress_handler(None, 0)
    assert steps > 1_000, "the handler counts"


def test_a_task_costs_about_a_hundred_bytes_and_told_events_none(large: Large) -> None:
    checkpoint, lease, path, _ = large
    checkpoint.clear_events(lease, "r")
    assert list(checkpoint.events("cats", "r")) == []
    reader = sqlite3.connect(path)
    pages, free = (reader.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    reader.close()
    assert (pages - free) * 4_096 / MANY <= 120
    assert free == 0, "pages of told events are given back"
    assert path.stat().st_size / MANY <= 125


# --- killed ----------------------------------------------------------------------------------------------------------------------------

COMMIT_FOREVER = """
import sys
from dataclasses import replace
from pathlib import Path
from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Commit
from syncd.model import Collection, CollectionState, Counts, Entry, Event, Kind, Op, Revision, Why
checkpoint = sqlite.open(Path(sys.argv[1]))
lease = checkpoint.begin("cats", sys.argv[2], Kind.FULL, 1)
state = checkpoint.states("cats").get("12", CollectionState(Collection("12", "Cats"), cursor=0))
while True:
    n = state.cursor
    entries = [Entry(str(50 * n + k), Revision(1, n), Counts(1, 2, 3), bytes(32), 9, b"e") for k in range(50)]
    events = [Event(Op.PUT, Why.NEW, "12", e.task, e.digest, n, 1) for e in entries]
    state = replace(state, cursor=n + 1)
    checkpoint.commit(lease, "12", Commit(entries=entries, events=events, state=state, notes={"n": b"%d" % n}))
    if n % 40 == 0:
        checkpoint.clear_events(lease, sys.argv[2])
    print(n + 1, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill_and_nothing_is_torn(tmp_path: Path) -> None:
    chance = random.Random(7)
    for life in range(8):
        with subprocess.Popen([sys.executable, "-c", COMMIT_FOREVER, tmp_path, f"r{life}"], stdout=subprocess.PIPE) as process:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 60))]
            process.send_signal(signal.SIGKILL)
            acknowledged = int((lines + process.stdout.read().splitlines(keepends=True))[-1])
        raw = sqlite3.connect(tmp_path / "checkpoint.sqlite")
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        raw.close()
        checkpoint = sqlite.open(tmp_path)
        commits = checkpoint.states("cats")["12"].cursor
        assert commits in {acknowledged, acknowledged + 1}
        known = checkpoint.known("cats", "12")
        assert list(known.all_ids()) == [str(n) for n in range(50 * commits)]
        assert checkpoint.size("cats", "12") == 50 * commits
        assert known.counts(0, 10**9) == Counts(50 * commits, 100 * commits, 150 * commits)
        assert known.notes(["n"]) == {"n": b"%d" % (commits - 1)}
        for run_id in checkpoint.pending_feeds("cats"):
            told = [int(event.task or -1) for event in checkpoint.events("cats", run_id)]
            assert told == list(range(told[0], told[0] + len(told)))
            assert len(told) % 50 == 0
        assert checkpoint.runs("cats", 1)[0].status is None
        checkpoint.close()
