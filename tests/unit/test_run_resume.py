"""A first Run is killed: the next one goes on at once, reads hardly anything twice, and what stands in the Target is whole and told."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import cast

import pytest

from syncd.checkpoint import sqlite
from syncd.errors import SourceError
from syncd.model import Kind, Report, Status
from syncd.targets import local
from syncd.targets.base import Target
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import DAY, Rig, TestClock

PAGE, TASKS = 5, 300
DONE = TASKS * 7 // 5 + 100  # effects after which the first Collection is done and the second one begun
IN_FLIGHT = 8  # pages: 2 read ahead, the one being offered, 4 put or recorded, the one that died


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(PAGE)
    source.add("1", TASKS)
    return source


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path, calls: list[str]) -> Rig:
    clock = TestClock()

    class Spy:
        def __init__(self, inner: Target) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            if name in {"list", "put", "put_stream"}:
                calls.append(name)  # each is called where it is looked up
            return getattr(self._inner, name)

    return Rig(
        source, lambda: cast("Target", Spy(local.open(local.Config(type="local", path=tmp_path / "backup"), clock))), tmp_path / "state", clock
    )


def killed(rig: Rig, source: MemorySource, k: int = 200) -> int:
    """How many files stand there after a first Run that died at its k-th effect."""
    with suppress(Died):
        rig.run(life=Life(k))
    standing = len(rig.tasks())
    assert IN_FLIGHT * PAGE < standing < TASKS
    return standing


def whole(rig: Rig, source: MemorySource) -> bool:
    told = {(line["key"], line["digest"]) for line in rig.feeds() if line["op"] == "put"}
    return rig.tasks() == rig.expected(source.expected().items()) and {key for key, _ in told} >= rig.tasks().keys()


@pytest.mark.parametrize("k", [150, 200, 250, 299])
def test_what_was_empty_is_not_listed_and_hardly_anything_is_read_or_put_again(k: int, rig: Rig, source: MemorySource, calls: list[str]) -> None:
    standing = killed(rig, source, k)
    calls.clear()
    report = rig.run()
    assert (Status.OK, Kind.FULL) == (report.status, report.kind)
    assert "list" not in calls
    assert calls.index("put") < calls.index("put_stream"), "the killed Run's feed waits until the new puts are done"
    assert standing + report.written <= TASKS + IN_FLIGHT * PAGE
    assert len(source.reads) <= TASKS + IN_FLIGHT * PAGE
    assert whole(rig, source)
    assert (0, 0) == (rig.run().written, rig.run().target_requests)
    calls.clear()
    assert 0 == rig.run(Kind.FULL).written
    assert "list" in calls


def test_what_stood_there_before_is_listed_and_not_put_again(rig: Rig, source: MemorySource, tmp_path: Path, calls: list[str]) -> None:
    """The Checkpoint was lost, and its first pass is killed, too."""
    rig.run()
    for left in rig.state.iterdir():
        left.unlink()
    calls.clear()
    with suppress(Died):
        rig.run(life=Life(30), take_over=True)
    report = rig.run(take_over=True)
    assert (Status.OK, 0, True) == (report.status, report.written, report.adopted > 0)
    assert calls.count("list") >= 2
    assert calls.count("put") <= 2, "the owner's marker alone"


def test_an_edit_of_what_was_put_and_not_recorded_leaves_the_earlier_version_in_the_history(rig: Rig, source: MemorySource, calls: list[str]) -> None:
    rig.rules["history"] = {"keep_last": 5}
    killed(rig, source)
    (before,) = {max(rig.tasks(), key=lambda key: int(key[2:-5]))}
    old = rig.files()[before]
    source.now += 1
    source.put("1", before[2:-5], {"id": 1, "edited": True})
    calls.clear()
    rig.run()
    assert "list" in calls
    assert whole(rig, source)
    assert old in [data for key, data in rig.files().items() if "/_history/" in key]


def test_a_pass_that_is_killed_again_and_again_ends(rig: Rig, source: MemorySource) -> None:
    for _ in range(6):
        with suppress(Died):
            rig.run(life=Life(60))
    assert rig.run().status is Status.OK
    assert whole(rig, source)
    assert len(source.reads) <= TASKS + 7 * IN_FLIGHT * PAGE


def test_what_a_killed_first_run_had_finished_is_not_read_again(rig: Rig, source: MemorySource, calls: list[str]) -> None:
    source.add("2", 100)
    source.add("3", 100)
    with suppress(Died):
        rig.run(life=Life(DONE))
    finished = [id_ for id_ in ("1", "2", "3") if f"{id_}/{TASKS if id_ == '1' else 100}.json" in rig.tasks()]
    assert finished == ["1"]
    source.now += SECOND
    source.put("1", "7", {"id": 7, "edited": True})
    del source.world["1"].tasks["8"]
    calls.clear()
    source.reads.clear()
    report = rig.run()
    assert (Status.OK, Kind.FULL, 1) == (report.status, report.kind, report.trashed)
    assert "list" not in calls[: calls.index("put")]
    assert len(source.reads) <= 201 + IN_FLIGHT * PAGE
    assert whole(rig, source)
    assert rig.run().kind is Kind.INCREMENTAL


def test_a_first_run_that_was_killed_long_ago_is_read_anew(rig: Rig, source: MemorySource) -> None:
    """Silent edits must not wait for longer than `full_every`."""
    source.add("2", 100)
    with suppress(Died):
        rig.run(life=Life(DONE))
    source.put("1", "7", {"id": 7, "silently": True}, silent=True)
    rig.clock.micros += DAY
    rig.run()
    assert whole(rig, source)


def test_a_run_that_goes_on_with_a_killed_one_makes_the_next_full_one_due_no_later(rig: Rig, source: MemorySource) -> None:
    source.add("2", 100)
    with suppress(Died):
        rig.run(life=Life(DONE))
    source.put("1", "7", {"id": 7, "silently": True}, silent=True)
    rig.clock.micros += DAY * 23 // 24
    assert Kind.FULL is rig.run().kind
    assert Kind.INCREMENTAL is rig.run().kind
    rig.clock.micros += DAY // 24
    assert Kind.FULL is rig.run().kind
    assert whole(rig, source)


def test_a_full_run_that_goes_on_with_the_first_pass_of_a_new_collection_leaves_the_full_one_due(rig: Rig, source: MemorySource) -> None:
    """The danger: a silent edit behind the position, and a Run that calls itself the full one."""
    rig.run()
    rig.clock.micros += DAY // 2
    source.add("2", TASKS)
    with suppress(Died):
        rig.run(life=Life(200))
    assert "2/1.json" in rig.tasks()
    source.put("2", "1", {"id": 1, "silently": True}, silent=True)
    rig.clock.micros += DAY // 2
    assert (Status.OK, Kind.FULL) == ((report := rig.run()).status, report.kind)
    assert (Status.OK, Kind.FULL) == ((report := rig.run()).status, report.kind)
    assert whole(rig, source)
    assert Kind.INCREMENTAL is rig.run().kind


def test_runs_that_failed_before_they_read_anything_make_the_next_full_one_due_no_sooner(rig: Rig, source: MemorySource) -> None:
    source.fail("collections", 1, SourceError("500"))
    assert rig.run().status is Status.FAILED
    rig.clock.micros += DAY * 23 // 24
    assert Kind.FULL is rig.run().kind
    rig.clock.micros += DAY * 23 // 24
    assert Kind.INCREMENTAL is rig.run().kind


@pytest.mark.parametrize("failed", [101, 1001])
def test_what_stands_elsewhere_is_not_forgotten_however_many_runs_failed_since(failed: int, rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """The danger: the first pass goes on at its position, and what is before it never comes to the new place."""
    killed(rig, source)
    clock = rig.clock
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "elsewhere"), clock)
    with closing(sqlite.open(rig.state)) as checkpoint:
        for number in range(failed):  # its token is refused, say, for a whole night
            report = Report(rig.name, f"failed-{number}", Kind.FULL, Status.FAILED, place="elsewhere")
            checkpoint.finish(checkpoint.begin(rig.name, report.run_id, report.kind, clock.now(), report.place), report, clock.now())
    assert rig.run().status is Status.OK
    assert rig.tasks() == rig.expected(source.expected().items())


def test_a_file_of_somebody_else_that_appears_meanwhile_is_replaced_and_told(rig: Rig, source: MemorySource) -> None:
    killed(rig, source)
    with closing(rig.open_target()) as target:
        target.put("1/299.json", b"foreign")
    rig.run()
    assert whole(rig, source)
    assert 1 == [line["key"] for line in rig.feeds() if line["op"] == "put"].count("1/299.json")


def test_a_sync_that_took_the_place_meanwhile_is_refused_and_taken_over_from(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    killed(rig, source)
    other = Rig(source, rig.open_target, tmp_path / "another state", rig.clock)
    assert 11 == other.run().exit_code
    assert Status.OK is other.run(take_over=True).status
    source.now += SECOND
    source.put("1", "6", {"id": 6, "edited": True})
    source.put("1", "290", {"id": 290, "edited": True})
    del source.world["1"].tasks["280"]
    assert 1 == other.run().trashed
    assert 11 == rig.run().exit_code
    assert Status.OK is rig.run(take_over=True).status
    assert rig.tasks() == rig.expected(source.expected().items())


def test_a_long_outage_begins_nothing_anew(rig: Rig, source: MemorySource, calls: list[str]) -> None:
    standing = killed(rig, source)
    with closing(sqlite.open(rig.state)) as checkpoint:
        for number in range(101):
            report = Report(rig.name, f"failed-{number}", Kind.FULL, Status.FAILED)
            checkpoint.finish(checkpoint.begin(rig.name, report.run_id, report.kind, rig.clock.now()), report, rig.clock.now())
    calls.clear()
    assert rig.run().written <= TASKS - standing + IN_FLIGHT * PAGE
    assert "list" not in calls
    assert whole(rig, source)


def test_what_is_asked_for_in_full_is_read_in_full(rig: Rig, source: MemorySource) -> None:
    source.add("2", 100)
    with suppress(Died):
        rig.run(life=Life(DONE))
    source.put("1", "7", {"id": 7, "silently": True}, silent=True)
    rig.run(Kind.FULL)
    assert whole(rig, source)


@pytest.mark.parametrize("k", [200, DONE])
def test_a_first_run_that_was_killed_and_goes_on_elsewhere_begins_anew(k: int, rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """The danger: what the killed Run put stands in the place before, and the new one is called whole."""
    source.add("2", 100)
    with suppress(Died):
        rig.run(life=Life(k))
    clock = rig.clock
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "elsewhere"), clock)
    for _ in range(2):
        with suppress(Died):
            rig.run(life=Life(60))
    assert rig.run().status is Status.OK
    assert rig.tasks() == rig.expected(source.expected().items())


def test_a_run_that_failed_elsewhere_before_it_put_anything_makes_nothing_due(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    rig.run()
    here, clock = rig.open_target, rig.clock
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "elsewhere"), clock)
    source.fail("collections", 1, SourceError("500"))
    assert rig.run().status is Status.FAILED
    rig.open_target = here
    assert rig.run().kind is Kind.INCREMENTAL
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "elsewhere"), clock)
    source.world["1"].tasks["7"].body = {"id": 7, "edited": True}
    with suppress(Died):
        rig.run(life=Life(20))
    rig.open_target = here
    assert rig.run().kind is Kind.FULL
