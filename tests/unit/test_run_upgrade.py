"""A Checkpoint that the version before wrote, in whatever state its Run left it: the next Run brings it up to date and goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from syncd.checkpoint import sqlite
from syncd.errors import CheckpointError, SourceError
from syncd.model import Status
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import Rig, TestClock


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(5)
    source.add("1", 60)
    source.add("2", 20)
    return source


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    return Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)


def make_old(rig: Rig) -> None:
    """As the first schema has it: no counters, nothing fresh, and a killed Run that says no place."""
    with closing(sqlite3.connect(rig.state / "checkpoint.sqlite")) as db, db:
        db.execute("ALTER TABLE collection DROP COLUMN counters")
        db.execute("ALTER TABLE collection DROP COLUMN fresh")
        db.execute("UPDATE run SET report = '{}' WHERE status IS NULL")
        db.execute("PRAGMA user_version = 1")


def whole(rig: Rig, source: MemorySource) -> bool:
    told = {line["key"] for line in rig.feeds() if line["op"] == "put"}
    return rig.tasks() == rig.expected(source.expected().items()) and told >= rig.tasks().keys()


@pytest.mark.parametrize("k", [3, 20, 40, 60, 80, 100, 115])
def test_a_first_run_that_was_killed_goes_on(k: int, rig: Rig, source: MemorySource) -> None:
    with suppress(Died):
        rig.run(life=Life(k))
    make_old(rig)
    with pytest.raises(CheckpointError, match="older syncd: `syncd sync` brings it up to date"):
        sqlite.open(rig.state, read_only=True)
    source.now += SECOND
    source.put("1", "3", {"id": 3, "edited": True})
    assert rig.run().status is Status.OK
    assert whole(rig, source)
    assert (0, 0) == (rig.run().written, rig.run().target_requests)


@pytest.mark.parametrize("k", range(1, 14))
def test_a_later_run_that_was_killed_is_told(k: int, rig: Rig, source: MemorySource) -> None:
    rig.run()
    source.now += SECOND
    source.put("1", "3", {"id": 3, "edited": True})
    del source.world["2"].tasks["4"]
    with suppress(Died):
        rig.run(life=Life(k))
    make_old(rig)
    assert rig.run().status is Status.OK
    assert whole(rig, source)
    told = [(line["op"], line["key"]) for line in rig.feeds()]
    assert (1, True) == (told.count(("trash", "2/4.json")), 2 <= told.count(("put", "1/3.json")) <= 3)


def test_what_failed_is_tried_again(rig: Rig, source: MemorySource) -> None:
    source.world["1"].tasks["7"].poison = "unreadable"
    assert rig.run().status is Status.PARTIAL
    make_old(rig)
    assert ["7"] == [failure.task for failure in rig.run().failed]
    source.world["1"].tasks["7"].poison = ""
    source.fail("collections", 1, SourceError("500"))
    assert rig.run().status is Status.FAILED
    assert rig.run().status is Status.OK
    assert whole(rig, source)
