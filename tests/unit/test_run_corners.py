"""Corners of a Run where a backup could be told complete and not be: moved places, resumed passes, names nobody shows, unsure puts."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd import encode
from syncd.checkpoint import sqlite
from syncd.errors import TargetError
from syncd.model import Kind, Status
from syncd.run.preview import plan_sync
from syncd.sources.base import Batch
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import DAY, Rig, TestClock


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(page=10)


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    return Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)


def same(rig: Rig, source: MemorySource) -> bool:
    return rig.tasks() == rig.expected(source.expected().items())


def test_another_target_is_filled_at_once(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """Entries tell of the old place only: a Run that trusted them would call an empty backup complete."""
    source.add("1", 5)
    rig.run()
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "elsewhere"), rig.clock)
    report = rig.run()
    assert (Kind.FULL, Status.OK, 5) == (report.kind, report.status, report.healed)
    assert same(rig, source)
    assert Kind.INCREMENTAL is rig.run().kind


def test_another_target_stays_due_until_it_is_filled(rig: Rig, source: MemorySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 5)
    rig.run()
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "elsewhere"), rig.clock)
    source.fail("page", 1, TargetError("full"))
    assert Status.FAILED is rig.run().status
    assert (Kind.FULL, Status.OK) == ((report := rig.run()).kind, report.status)
    assert same(rig, source)


def test_another_key_template_is_followed_at_once(rig: Rig, source: MemorySource) -> None:
    source.add("1", 5)
    rig.run()
    rig.rules["key"] = "{project}/tasks/{task}.json"
    assert (Kind.FULL, 5) == ((report := rig.run()).kind, report.healed)
    assert "1/tasks/3.json" in rig.files()


def test_settings_that_cannot_be_kept_are_one_failure_and_stop_nothing(rig: Rig, source: MemorySource) -> None:
    source.add("1", 3)
    source.add("2", 3)
    source.world["1"].settings["label_config"] = "\ud800"
    report = rig.run()
    assert (Status.PARTIAL, 6) == (report.status, report.written)
    assert [("1", None)] == [(failure.project, failure.task) for failure in report.failed]
    assert "$.label_config" in report.failed[0].error


def test_foreign_settings_are_healed_by_a_full_run(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.add("1", 1)
    rig.run()
    right = rig.files()["1/_project.json"]
    (tmp_path / "backup/1/_project.json").write_bytes(b"garbage")
    rig.run(Kind.FULL)
    assert right == rig.files()["1/_project.json"]


def test_a_resumed_first_pass_tells_a_failure_once_and_every_put(rig: Rig, source: MemorySource) -> None:
    source.add("1", 60)
    source.world["1"].tasks["9"].poison = "unreadable"
    with suppress(Died):
        rig.run(life=Life(45))
    standing = len(rig.tasks())
    assert 0 < standing < 59
    report = rig.run()
    assert (Status.PARTIAL, ["9"]) == (report.status, [failure.task for failure in report.failed])
    assert 59 <= standing + report.written <= 59 + standing, "what was put and not recorded may be put again"
    told = {line["task"] for line in rig.feeds() if line["op"] == "put"}
    assert told >= {str(number) for number in range(1, 61) if number != 9}


def test_a_first_pass_without_a_cursor_misses_nothing_behind_its_position(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends no Date gives no Cursor; the one it gives later may not pass what changed behind the position meanwhile."""
    source.add("1", 60)
    changes = source.changes
    monkeypatch.setattr(source, "changes", lambda *args, **kwargs: (replace(batch, cursor=None) for batch in changes(*args, **kwargs)))
    with suppress(Died):
        rig.run(life=Life(45))
    monkeypatch.undo()
    source.now += SECOND
    source.put("1", "1", {"id": 1, "edited": "meanwhile"})
    source.now += 3600 * SECOND
    rig.run()
    rig.run()
    assert same(rig, source)


def test_a_named_collection_that_is_no_longer_shown_and_not_gone_is_a_failure(
    rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that lost sight of a project must not look like a backup of it (I8)."""
    source.add("1", 1)
    source.add("2", 1)
    rig.rules["projects"] = ["1", "2"]
    assert Status.OK is rig.run().status
    everything = source.collections
    monkeypatch.setattr(source, "collections", lambda: [c for c in everything() if c.id != "2"])
    report = rig.run()
    assert (Status.PARTIAL, ["2"]) == (report.status, [failure.project for failure in report.failed])
    assert "2/1.json" in rig.files()


@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize("k", range(1, 12))
def test_a_deletion_cut_short_is_told_as_what_it_became(k: int, days: int, rig: Rig, source: MemorySource) -> None:
    source.add("1", 5)
    rig.run()
    del source.world["1"].tasks["3"]
    reports: list[Any] = []
    with suppress(Died):
        reports.append(rig.run(life=Life(k, after=True)))
    rig.clock.micros += days * DAY
    reports.append(rig.run())
    assert sum(report.deleted for report in reports) == 0
    assert {"trash"} == {line["op"] for line in rig.feeds() if line["task"] == "3" and line["op"] != "put"}


def test_an_edit_taken_back_after_a_kill_is_taken_back_in_the_target(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1)
    rig.run()
    for k in range(1, 12):
        source.now += SECOND
        source.put("1", "1", {"id": 1, "edited": k})
        with suppress(Died):
            rig.run(life=Life(k, after=True))
        source.now += SECOND
        source.put("1", "1", {"id": 1, "data": {"text": "task 1 of 1"}, "annotations": []})
        assert Status.OK is rig.run().status
        assert same(rig, source), k


def test_the_plan_that_is_shown_is_the_plan_that_is_confirmed(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 40)
    source.world["1"].tasks["40"].poison = "unreadable"
    rig.run()
    for number in range(11, 41):
        del source.world["1"].tasks[str(number)]
    confirm = source.confirm
    monkeypatch.setattr(source, "confirm", lambda collection, tasks: {id_: gone for id_, gone in confirm(collection, tasks).items() if id_ != "12"})
    checkpoint, target = sqlite.open(rig.state, read_only=True), rig.open_target()
    shown = [line.why for line in plan_sync(rig.job(checkpoint, target)) if line.sign == "!"]
    target.close()
    checkpoint.close()
    report = rig.run()
    assert report.plan_id
    assert f"(Plan {report.plan_id})" in shown[-1]
    assert (Status.OK, 28) == ((done := rig.run(confirm_deletes=report.plan_id)).status, done.trashed)
    assert "1/12.json" in rig.files()


def test_a_failing_task_whose_file_is_kept_holds_nothing_once_it_is_gone(rig: Rig, source: MemorySource) -> None:
    rig.rules["on_delete"] = "keep"
    source.add("1", 3)
    rig.run()
    gone = source.world["1"].tasks.pop("2")
    rig.run()
    source.now += SECOND
    gone.last_activity, gone.poison = source.now, "unreadable"
    source.world["1"].tasks["2"] = gone
    assert 1 == len(rig.run().failed)
    del source.world["1"].tasks["2"]
    assert Status.OK is rig.run().status
    checkpoint = sqlite.open(rig.state, read_only=True)
    assert [] == checkpoint.failures(rig.name)
    checkpoint.close()
    assert "1/2.json" in rig.files()


def test_no_room_for_temporary_files_is_told_as_that(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 300)
    rig.run()
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **options)
        if args == ("",):
            made.execute("PRAGMA max_page_count = 4")
        return made

    monkeypatch.setattr(sqlite3, "connect", small)
    report = rig.run(Kind.FULL)
    assert (report.status, report.trashed) == (Status.FAILED, 0)
    assert "TMPDIR" in report.error


def test_a_failure_outlasts_a_run_that_could_not_put_its_task(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the failure tells of an edit that has no date: forgotten before the put, it would be missed."""
    source.add("1", 100)
    source.page = 100
    rig.run()
    for task, found in source.world["1"].tasks.items():
        source.put("1", task, {"id": int(task), "edited": True}, silent=True)
        found.poison = "unreadable"
    assert Status.PARTIAL is rig.run(Kind.FULL).status
    for found in source.world["1"].tasks.values():
        found.poison = ""
    with monkeypatch.context() as broken:
        broken.setattr(local.LocalTarget, "put", lambda *_: (_ for _ in ()).throw(TargetError("full")))
        assert Status.FAILED is rig.run().status
    assert Status.OK is rig.run().status
    assert same(rig, source)


def test_a_clock_that_was_set_back_does_not_stop_drafts(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 1)
    rig.run()
    asked: list[bool] = []
    changes = source.changes

    def watched(*args: Any, **options: Any) -> Any:
        asked.append(options["drafts"])
        return changes(*args, **options)

    monkeypatch.setattr(source, "changes", watched)
    rig.clock.micros -= 10 * DAY
    rig.run(Kind.INCREMENTAL)
    assert [True] == asked


def test_the_trash_is_emptied_when_no_collection_is_left(rig: Rig, source: MemorySource) -> None:
    source.add("1", 2)
    rig.run()
    source.world.clear()
    report = rig.run()
    assert Status.OK is rig.run(confirm_deletes=report.plan_id).status
    assert any("/_trash/" in key for key in rig.files())
    rig.clock.micros += 32 * DAY
    assert Status.OK is rig.run().status
    assert not any("/_trash/" in key for key in rig.files())


def test_the_newest_of_two_versions_in_one_reading_stays(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 1)
    changes, newer = source.changes, threading.Event()

    def twice(*args: Any, **options: Any) -> Iterator[Batch]:
        yield from changes(*args, **options)
        source.now += SECOND
        source.put("1", "1", {"id": 1, "edited": "meanwhile"})
        yield from changes(*args, **options)

    target = rig.open_target()
    put = target.put

    def slow(key: str, data: bytes) -> bytes:
        if b"meanwhile" in data:
            newer.set()
        elif key == "1/1.json":
            newer.wait(0.5)  # as if this answer took its time
            if newer.is_set():
                time.sleep(0.1)
        return put(key, data)

    monkeypatch.setattr(source, "changes", twice)
    monkeypatch.setattr(target, "put", slow, raising=False)
    monkeypatch.setattr(rig, "open_target", lambda: target)
    assert Status.OK is rig.run().status
    monkeypatch.undo()
    assert same(rig, source)


def test_the_feed_tells_what_became_of_a_collections_settings(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1)
    source.add("2", 1)
    rig.run()
    del source.world["2"]
    rig.run(confirm_deletes=rig.run().plan_id)
    assert ["put", "trash"] == [line["op"] for line in rig.feeds() if line["key"] == "2/_project.json"]


def test_an_idle_run_asks_and_writes_nothing(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request to the Target, no commit: only the Run's own row."""
    source.add("1", 30)
    rig.run()
    source.now += 60 * SECOND
    life = Life()
    report = rig.run(life=life)
    assert (Status.OK, 0, 2) == (report.status, report.target_requests, life.effects)  # begin and finish


def test_a_collection_that_is_not_listed_any_more_and_not_gone_is_a_failure(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list of projects, answered with 200, must not look like a backup of them (I8)."""
    source.add("1", 1)
    source.add("2", 1)
    rig.run()
    everything = source.collections
    monkeypatch.setattr(source, "collections", lambda: [c for c in everything() if c.id != "2"])
    report = rig.run()
    assert (Status.PARTIAL, ["2"]) == (report.status, [failure.project for failure in report.failed])
    monkeypatch.setattr(source, "collections", list)
    report = rig.run()
    assert (Status.FAILED, 1) == (report.status, report.exit_code)
    assert {"1/1.json", "2/1.json"} <= set(rig.files())
    monkeypatch.undo()
    assert Status.OK is rig.run().status


def test_a_lost_checkpoint_rewrites_no_settings_that_are_right(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.add("1", 3)
    rig.run()
    file = tmp_path / "backup/1/_project.json"
    before = file.stat()
    rig.state = tmp_path / "state-of-a-new-machine"
    report = rig.run(take_over=True)
    assert (3, 0, 0) == (report.adopted, report.written, report.bytes_written)
    assert (before.st_ino, before.st_mtime_ns) == ((now := file.stat()).st_ino, now.st_mtime_ns)
    assert rig.run().bytes_written == 0


def test_a_plan_for_another_owners_place_says_so_and_calls_nothing_changed_that_is_right(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """Of a lost Checkpoint: what stands there is adopted, so a Plan that lists it would send a person looking for changes nobody made."""
    source.add("1", 3)
    rig.run()
    (tmp_path / "backup/1/2.json").write_bytes(b"{}\n")
    rig.state = tmp_path / "state-of-a-new-machine"
    before = rig.files()
    checkpoint, target = sqlite.open(rig.state, read_only=True), rig.open_target()
    lines = list(plan_sync(rig.job(checkpoint, target)))
    target.close()
    checkpoint.close()
    assert [("~", "2", 0), ("!", None, 11)] == [(line.sign, line.task, line.exit_code) for line in lines]
    assert "--take-over" in lines[-1].why
    assert before == rig.files()
    report = rig.run(take_over=True)
    assert (2, 1) == (report.adopted, report.written)


def test_settings_of_a_reused_id_are_rescued_only_in_a_place_of_ones_own(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """The owner is asked before the first write of a Run, whatever that write is (I6)."""
    source.add("1", 1)
    rig.run()
    mine, rig.state = rig.state, tmp_path / "another"
    assert Status.OK is rig.run(take_over=True).status
    rig.state = mine
    source.world["1"].created_at = 2
    before = rig.files()
    report = rig.run(Kind.INCREMENTAL)
    assert (Status.FAILED, 11) == (report.status, report.exit_code)
    assert before == rig.files()


def test_the_trash_tells_the_digest_of_what_it_holds_though_the_entry_is_spoilt(rig: Rig, source: MemorySource) -> None:
    """One flipped bit in the Checkpoint, and the last file of a deleted task would look damaged to whoever wants it back."""
    source.add("1", 5)
    rig.run()
    data = rig.files()["1/3.json"]
    with closing(sqlite3.connect(rig.state / "checkpoint.sqlite")) as db, db:
        db.execute("UPDATE entry SET digest = ? WHERE task = 3", (bytes(32),))
    del source.world["1"].tasks["3"]
    assert 1 == rig.run().trashed
    (key,) = (key for key in rig.files() if "/_trash/" in key)
    assert (data, encode.digest(data).hex()[:12]) == (rig.files()[key], key.split(".")[-2])
    assert [encode.digest(data).hex()] == [line["digest"] for line in rig.feeds() if line["op"] == "trash"]
