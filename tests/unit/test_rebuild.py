"""The Checkpoint is lost or spoilt: every command says so, `syncd rebuild` keeps it aside, and nothing that is right in the Target is put again."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.checkpoint import sqlite, sqlite_file
from syncd.checkpoint.base import Commit
from syncd.errors import CheckpointError, OwnedError
from syncd.keys import SIDE
from syncd.model import Kind, Status
from syncd.targets import local
from syncd.upkeep.verify import verify
from tests.fakes.flips import AT, check_flips, rebuild, stamps
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import Rig, TestClock
from tests.fakes.tamper import quick_folder


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource()
    source.add("1", 200)
    source.add("2", 20)
    return source


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    rig = Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)
    source.world["1"].tasks["5"].poison = "it can't be read"  # a failure is remembered, too
    source.put("2", f"7{SIDE}mask.png", b"\x89PNG")
    rig.run()
    source.world["1"].tasks["5"].poison = ""
    rig.rules["on_delete"] = "keep"
    del source.world["1"].tasks["9"]
    rig.run(Kind.FULL)
    return rig


def test_a_lost_one_costs_a_scan_and_no_put(rig: Rig) -> None:
    before = stamps(rig)
    shutil.rmtree(rig.state)
    assert rebuild(rig) is None
    assert before == stamps(rig)
    assert Kind.INCREMENTAL is rig.run().kind


def test_what_a_killed_run_had_told_the_lost_one_alone_stands_in_a_feed(rig: Rig, source: MemorySource) -> None:
    """A machine dies in the middle of a long first Run, and takes the Checkpoint with it."""
    source.add("3", 120)
    with pytest.raises(Died):
        rig.run(life=Life(70))
    put = {key for key in rig.files() if key.startswith("3/")}
    assert 0 < len(put) < 120
    shutil.rmtree(rig.state)
    rig.run(Kind.FULL, take_over=True)
    told = {(line["key"], line["digest"]) for line in rig.feeds()}
    files = {key: data for key, data in rig.files().items() if not key.startswith("_syncd/") and "/_trash/" not in key}
    assert {(key, hashlib.sha256(data).hexdigest()) for key, data in files.items()} <= told


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(random.randbytes(9_999))


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def _nameless(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 0")


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")


@pytest.mark.parametrize(
    ("harm", "reason"), [(_truncated, "damaged"), (_garbage, "damaged"), (_newer, "newer"), (_nameless, "damaged"), (_foreign, "foreign")]
)
def test_one_that_will_never_do_is_recognised_kept_aside_byte_by_byte_and_replaced(rig: Rig, harm: object, reason: str) -> None:
    before, path = stamps(rig), rig.state / "checkpoint.sqlite"
    assert callable(harm)
    harm(path)
    spoilt = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(CheckpointError, match=r"`syncd rebuild` keeps it aside.*costs a scan of the Source, never data"):
            sqlite.open(rig.state, read_only=read_only)
        assert spoilt == path.read_bytes()
    aside = rebuild(rig)
    assert aside is not None
    assert f"checkpoint.sqlite.{reason}-2026-11-18T110640.000000Z" == aside[1].name
    assert spoilt == aside[1].read_bytes()
    assert before == stamps(rig)


def test_an_index_that_lies_is_recognised_by_full_runs_verify_and_rebuild(rig: Rig) -> None:
    """Nothing that a Run reads shows it: the Collections seem new."""
    path = rig.state / "checkpoint.sqlite"
    with closing(sqlite3.connect(path)) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_collection_1'").fetchall()
    spoilt = bytearray(path.read_bytes())
    spoilt[spoilt.index(b"cats1", (page - 1) * 4096)] ^= 1
    path.write_bytes(spoilt)
    with closing(sqlite.open(rig.state, read_only=True)) as checkpoint, closing(rig.open_target()) as target:
        for look in (lambda: list(verify(rig.job(checkpoint, target))), lambda: rig.run(Kind.FULL)):
            with pytest.raises(CheckpointError, match=r"damaged \(row 1 missing from index"):
                look()
    assert rebuild(rig)


def test_its_log_goes_with_it(rig: Rig) -> None:
    path = rig.state / "checkpoint.sqlite"
    _truncated(path)
    path.with_name("checkpoint.sqlite-wal").write_bytes(b"a log")
    aside = rebuild(rig)
    assert aside is not None
    assert b"a log" == aside[1].with_name(f"{aside[1].name}-wal").read_bytes()


def test_a_sound_one_is_left_alone_unless_asked(rig: Rig) -> None:
    assert sqlite.set_aside(rig.state, AT, force=False) is None
    with closing(sqlite.open(rig.state)), pytest.raises(OwnedError):
        sqlite.set_aside(rig.state, AT, force=True)
    aside = sqlite.set_aside(rig.state, AT, force=True)
    assert aside is not None
    assert "checkpoint.sqlite.old-2026-11-18T110640.000000Z" == aside[1].name
    sqlite.open(rig.state).close()
    again = sqlite.set_aside(rig.state, AT + 1, force=True)
    assert again is not None
    assert aside[1].exists()  # though it was in the same second


def test_an_older_one_is_brought_up_to_date_by_whoever_writes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamps(rig)
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", (*sqlite_file.MIGRATIONS, ("CREATE TABLE more (a)",)))
    with pytest.raises(CheckpointError, match="`syncd sync` brings it up to date"):
        sqlite.open(rig.state, read_only=True)
    report = rig.run(Kind.FULL)
    assert (Status.OK, 219, 0) == (report.status, report.unchanged, report.adopted)
    assert before == stamps(rig)


def test_a_cursor_ahead_of_the_source_comes_back_with_a_full_run(rig: Rig, source: MemorySource) -> None:
    """A flipped bit, or a server whose clock was wrong for an hour: else every change since would wait for a full Run, for ever."""
    with closing(sqlite.open(rig.state)) as checkpoint:
        state = checkpoint.states("cats")["1"]
        checkpoint.commit(checkpoint.begin("cats", "r", Kind.FULL, 1), "1", Commit(state=replace(state, cursor=10**17)))
    rig.run(Kind.FULL)
    source.now += SECOND
    source.put("1", "7", {"id": 7, "data": {"text": "edited"}})
    assert 1 == rig.run(Kind.INCREMENTAL).written


def test_bits_flipped_anywhere_are_recognised_or_harmless(rig: Rig) -> None:
    check_flips(rig, 100)
