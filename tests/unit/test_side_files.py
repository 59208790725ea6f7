"""Side files stand beside their task and are kept like it, but are no tasks; what changes by itself is no change."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import orjson
import pytest

from syncd.checkpoint import sqlite
from syncd.clock import parse_time
from syncd.keys import SIDE, Layout, Named, is_side, shown
from syncd.model import Kind, Status
from syncd.run.trash import list_trash
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.rig import Rig, TestClock

FRAMES = b'{"frame":1}\n{"frame":2}\n'


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource()
    for number in range(1, 31):
        source.put("1", f"row{number}", {"data_row": {"id": f"row{number}"}})
    source.put("1", f"row1{SIDE}frames-l1.ndjson", FRAMES)
    return source


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    return Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)


def test_a_side_file_stands_in_its_tasks_folder_byte_for_byte_and_counts_as_no_task(rig: Rig) -> None:
    report = rig.run()
    assert (Status.OK, 30) == (report.status, report.written)
    assert FRAMES == rig.files()["1/row1/frames-l1.ndjson"]
    assert {"row1"} == {line["task"] for line in rig.feeds() if line["key"] == "1/row1/frames-l1.ndjson"}
    again = rig.run(Kind.FULL)
    assert (30, 0, 0) == (again.unchanged, again.written, again.adopted)


def test_a_lost_side_file_is_healed(rig: Rig, tmp_path: Path) -> None:
    rig.run()
    (tmp_path / "backup/1/row1/frames-l1.ndjson").unlink()
    rig.run(Kind.FULL)
    assert FRAMES == rig.files()["1/row1/frames-l1.ndjson"]


def test_side_files_trip_no_guard_and_go_to_the_trash_with_their_task(rig: Rig, source: MemorySource) -> None:
    for number in range(40):
        source.put("1", f"row2{SIDE}mask-{number}.png", b"\x89PNG")
    rig.run()
    for number in range(40):
        del source.world["1"].tasks[f"row2{SIDE}mask-{number}.png"]
    del source.world["1"].tasks["row1"], source.world["1"].tasks[f"row1{SIDE}frames-l1.ndjson"]
    report = rig.run()
    assert (Status.OK, 1) == (report.status, report.trashed)
    files = rig.files()
    assert not [key for key in files if key.startswith("1/row1/") or key.endswith(".png")]
    assert FRAMES in [data for key, data in files.items() if "/_trash/" in key]
    with closing(sqlite.open(rig.state, read_only=True)) as checkpoint, closing(rig.open_target()) as target:
        assert {"row1", "row1/frames-l1.ndjson"} < {item.task for item in list_trash(rig.job(checkpoint, target))}


def test_few_tasks_with_many_side_files_are_still_never_all_deleted_unasked(rig: Rig, source: MemorySource) -> None:
    for number in range(100):
        source.put("2", f"one{SIDE}mask-{number}.png", b"\x89PNG")
    source.put("2", "one", {"data_row": {"id": "one"}})
    rig.run()
    source.world["2"].tasks.clear()
    report = rig.run()
    assert (Status.GUARDED, 0) == (report.status, report.trashed)
    assert "all 1 tasks of Collection 2 are gone" in report.guard


def test_a_collection_that_is_gone_takes_its_side_files_along(rig: Rig, source: MemorySource) -> None:
    source.put("2", "one", {"data_row": {"id": "one"}})
    rig.run()
    del source.world["1"]
    plan = rig.run().plan_id
    report = rig.run(confirm_deletes=plan)
    assert (Status.OK, 30) == (report.status, report.trashed)
    assert [key for key in rig.files() if key.startswith("1/") and "/_trash/" not in key] == []


def test_a_dataset_that_the_config_names_no_more_is_left_alone(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.put("datasets/ck1", "row", {"data_row": {"id": "row"}})
    rig.run()
    shown = [c for c in source.collections() if c.id == "1"]
    monkeypatch.setattr(source, "collections", lambda: shown)  # nothing is named: all projects, and no dataset
    report = rig.run()
    assert (Status.OK, []) == (report.status, report.failed)
    assert "datasets/ck1/row.json" in rig.files()


def test_what_changes_by_itself_is_no_change_and_the_entry_names_the_bytes_that_stand(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.put("1", "row1", {"id": "row1", "mask": "https://box/tasks/1/masks/9"})
    rig.run()
    source.put("1", "row1", {"id": "row1", "mask": "https://box/tasks/22/masks/9"}, silent=True)
    report = rig.run(Kind.FULL)
    assert (30, 0, 0) == (report.unchanged, report.written, report.healed)
    assert "tasks/1/" in rig.tasks()["1/row1.json"]["mask"]
    path = tmp_path / "backup/1/row1.json"
    path.write_bytes(b"x" + path.read_bytes()[1:])  # somebody else's bytes are still found: the Entry tells of those that stood here
    assert 1 == rig.run(Kind.FULL).healed
    assert "tasks/22/" in rig.tasks()["1/row1.json"]["mask"]
    source.now += SECOND
    source.put("1", "row1", {"id": "row1", "mask": "https://box/tasks/22/masks/9", "label": 1})
    assert 1 == rig.run().written
    assert orjson.loads(path.read_bytes())["label"] == 1


def test_keys_of_side_files_and_of_other_kinds_of_collection() -> None:
    layout = Layout()
    assert "datasets/ck1/row.json" == layout.task("datasets/ck1", "row")
    assert "model_runs/ck1/" == layout.folder("model_runs/ck1")
    assert "slices/ck1/row/mask-1.png" == layout.task("slices/ck1", f"row{SIDE}mask-1.png")
    assert "%64atasets/row.json" == layout.task("datasets", "row")  # or its folder would hold every dataset
    assert "other%2Fck1/row.json" == layout.task("other/ck1", "row")
    assert layout.task("p", "a") != layout.task("p", f"a{SIDE}b.json")
    assert not layout.task("p", f"a{SIDE}b.json").endswith(".json")  # a task's folder holds no task's file
    assert "x/p/ls/row/frames.ndjson" == Layout("x/{project}/ls/{task}.json").task("p", f"row{SIDE}frames.ndjson")
    trashed = layout.trash("datasets/ck1", f"row{SIDE}mask-1.png", b"d" * 32, 1_795_000_000_000_000)
    home, day = layout.task("datasets/ck1", f"row{SIDE}mask-1.png"), parse_time("2026-11-18")
    assert Named("datasets/ck1", f"row{SIDE}mask-1.png", home, "trash", day) == layout.named(trashed)
    assert is_side(f"row{SIDE}mask-1.png")
    assert "row/mask-1.png" == shown(f"row{SIDE}mask-1.png")
