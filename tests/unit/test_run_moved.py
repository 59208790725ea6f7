"""A Sync whose place is another one now, or is empty all of a sudden: what its Entries tell of is not there, and no Run may call that a backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd import encode
from syncd.checkpoint import sqlite
from syncd.clock import format_time
from syncd.errors import TaskError
from syncd.keys import SIDE
from syncd.model import Collection, Failure, Kind, Status
from syncd.run.preview import PlanLine, plan_sync
from syncd.sources.base import Batch
from syncd.targets import local
from syncd.targets.base import Target
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.rig import DAY, Rig, TestClock

MASK = f"3{SIDE}mask.png"


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(page=10)
    source.add("1", 5)
    source.add("2", 5)
    return source


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    rig = Rig(source, folder(tmp_path / "backup", clock), tmp_path / "state", clock)
    assert rig.run().status is Status.OK
    return rig


def folder(path: Path, clock: TestClock) -> Callable[[], Target]:
    return lambda: local.open(local.Config(type="local", path=path), clock)


def whole(rig: Rig, source: MemorySource) -> bool:
    return rig.tasks() == rig.expected(source.expected().items()) and {"1/_project.json", "2/_project.json"} < rig.files().keys()


def plan(rig: Rig) -> list[PlanLine]:
    with closing(sqlite.open(rig.state)) as checkpoint, closing(rig.open_target()) as target:
        return list(plan_sync(rig.job(checkpoint, target)))


def partly_read(source: MemorySource, monkeypatch: pytest.MonkeyPatch, task: str | None = None) -> None:
    real = source.changes

    def changes(*args: Any, **options: Any) -> Iterator[Batch]:
        for batch in real(*args, **options):
            yield replace(batch, tasks=[task for task in batch.tasks if task.id not in {"3", MASK}], failed=[Failure("1", task, "unreadable")])

    monkeypatch.setattr(source, "changes", changes)


def hidden(source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: Callable[[], list[Collection]] = source.collections
    monkeypatch.setattr(source, "collections", lambda: [collection for collection in shown() if collection.id != "2"])


def poisoned(source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    for id_ in ("3", "4"):
        monkeypatch.setattr(source.world["1"].tasks[id_], "poison", "unreadable")


def unsettled(source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    del monkeypatch
    source.fail("settings", 1, TaskError("not now"))


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("trouble", [partly_read, hidden, poisoned, unsettled])
def test_what_a_first_run_elsewhere_could_not_bring_is_brought_by_a_later_one(
    trouble: Callable[[MemorySource, pytest.MonkeyPatch], None], runs: int, rig: Rig, source: MemorySource, tmp_path: Path
) -> None:
    """The danger: its Entry is of the place before, so the Run that can read it again says `unchanged`, and the new place lacks it."""
    rig.open_target = folder(tmp_path / "elsewhere", rig.clock)
    for _ in range(runs):
        with pytest.MonkeyPatch.context() as monkeypatch:
            trouble(source, monkeypatch)
            rig.run()
    assert rig.run().status is Status.OK
    assert whole(rig, source)


def test_side_files_of_a_task_that_could_not_be_brought_are_brought_with_it(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.put("1", MASK, b"a mask")
    assert rig.run().status is Status.OK
    rig.open_target = folder(tmp_path / "elsewhere", rig.clock)
    with pytest.MonkeyPatch.context() as monkeypatch:
        partly_read(source, monkeypatch, "3")
        assert rig.run().status is Status.PARTIAL
    assert rig.run().status is Status.OK
    assert {"1/3.json", "1/3/mask.png"} < rig.files().keys()


def test_a_collection_that_is_not_named_during_the_move_is_brought_when_it_is_named_again(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    rig.open_target = folder(tmp_path / "elsewhere", rig.clock)
    rig.rules["projects"] = ["1"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        hidden(source, monkeypatch)
        assert rig.run().status is Status.OK
    del rig.rules["projects"]
    assert (Kind.INCREMENTAL, Status.OK) == ((report := rig.run()).kind, report.status)
    assert whole(rig, source)


def test_a_task_that_never_can_be_brought_makes_no_run_read_everything(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    rig.open_target = folder(tmp_path / "elsewhere", rig.clock)
    source.world["1"].tasks["3"].poison = "unreadable"
    assert rig.run().status is Status.PARTIAL
    source.reads.clear()
    assert (Kind.INCREMENTAL, 1) == ((report := rig.run()).kind, len(report.failed))
    assert source.reads == ["3"]


def test_a_place_that_has_lost_everything_is_not_begun_anew_unasked(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """The danger: the disk is not mounted, Runs put what changed into the bare mount point and say `ok`, and the disk never gets it."""
    (tmp_path / "backup").rename(tmp_path / "disk")
    source.now += SECOND
    source.put("1", "3", {"id": 3, "edited": True})
    for days in (0, 2):  # nor by a full Run that is merely due
        rig.clock.micros += days * DAY
        assert (Status.FAILED, 1) == ((report := rig.run()).status, report.exit_code)
        assert "mount it" in report.error
        told = [line for line in plan(rig) if line.sign == "!"][-1]
        assert ("mount it" in told.why, told.exit_code) == (True, 1)
    assert not rig.files()
    (tmp_path / "disk").rename(tmp_path / "backup")
    assert rig.run().status is Status.OK
    assert whole(rig, source)


def test_a_place_that_was_emptied_is_filled_by_a_full_run_that_is_asked_for(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    (tmp_path / "backup").rename(tmp_path / "gone")
    assert (Status.OK, 10) == ((report := rig.run(Kind.FULL)).status, report.healed)
    assert whole(rig, source)


def test_what_another_owner_put_meanwhile_is_made_right_when_the_place_is_taken_back(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """The danger: the Entries tell of what stood there before the other one came, and the Run that takes the place back says `nothing changed`."""
    strange = MemorySource()
    strange.add("1", 4)
    strange.put("1", "3", {"id": 3, "of": "another server"})
    other = Rig(strange, rig.open_target, tmp_path / "another state", rig.clock)
    assert other.run(take_over=True).status is Status.OK
    assert (Status.OK, 1) == ((report := rig.run(take_over=True)).status, report.healed)
    assert whole(rig, source)
    assert 11 == other.run(Kind.FULL).exit_code


def dated(rig: Rig, source: MemorySource) -> None:
    """Backed up with bodies that say when their task was made, as a Label Studio's do."""
    for task in source.world["1"].tasks.values():
        task.body = {**task.body, "data": {}, "created_at": format_time(task.created_at)}  # type: ignore[dict-item]  # no side files
    rig.run(Kind.FULL)


def test_a_new_server_under_the_ids_of_the_lost_one_destroys_nothing_though_the_checkpoint_is_lost_too(
    rig: Rig, source: MemorySource, tmp_path: Path
) -> None:
    """The danger: server and syncd stood on one disk. Both are set up anew, `--take-over` is typed as the refusal says: the backup is overwritten."""
    dated(rig, source)
    lost = {data for key, data in rig.files().items() if not key.startswith("_syncd/")}
    source.world.clear()
    source.now += SECOND
    for number in (1, 2, 3):
        source.put("1", str(number), {"id": number, "of": "the new server"})
    source.world["1"].settings = {"label_config": "<View>new</View>"}
    rig.state = tmp_path / "new state"
    assert (Status.OK, 3, 3) == ((report := rig.run(take_over=True)).status, report.written, report.trashed)
    assert lost <= set(rig.files().values())
    assert rig.tasks()["1/1.json"]["of"] == "the new server"


def test_nor_does_a_new_server_whose_tasks_come_later(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """No later Run lists what stands there."""
    dated(rig, source)
    lost = rig.files()["1/2.json"]
    source.world["1"].tasks.clear()
    rig.state = tmp_path / "new state"
    assert rig.run(take_over=True).status is Status.OK
    source.now += 3600 * SECOND
    source.put("1", "2", {"id": 2, "of": "the new server"})
    source.put("1", "9", {"id": 9})
    assert (Kind.INCREMENTAL, 2, 1) == ((report := rig.run()).kind, report.written, report.trashed)
    assert lost in rig.files().values()
    assert ("trash", encode.digest(lost).hex()) in [(line["op"], line["digest"]) for line in rig.feeds()]


def test_an_edited_task_of_a_lost_checkpoint_is_simply_put(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    dated(rig, source)
    source.now += SECOND
    source.put("1", "2", source.world["1"].tasks["2"].body | {"edited": True})  # type: ignore[operator]  # no side file
    rig.state = tmp_path / "new state"
    assert (Status.OK, 1, 0, 9) == ((report := rig.run(take_over=True)).status, report.written, report.trashed, report.adopted)
    assert whole(rig, source)
