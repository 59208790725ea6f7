"""Whole Runs over an in-memory Source, a real folder and a real SQLite Checkpoint: what is read, written, deleted and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.checkpoint import sqlite
from syncd.errors import AccessError, SourceError, TaskError
from syncd.model import Collection, Kind, Status
from syncd.run import Progress
from syncd.run.preview import plan_sync
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.rig import DAY, Rig, TestClock


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    return Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)


def same(rig: Rig, source: MemorySource) -> bool:
    return rig.tasks() == rig.expected(source.expected().items())


def test_first_run_puts_every_task_and_the_second_one_nothing(rig: Rig, source: MemorySource) -> None:
    source.add("1", 120)
    source.add("2", 3)
    first = rig.run()
    assert "" == first.error
    assert (Status.OK, Kind.FULL, 123, 0, []) == (first.status, first.kind, first.written, first.unchanged, first.failed)
    assert same(rig, source)
    source.reads.clear()
    second = rig.run()
    assert (Status.OK, Kind.INCREMENTAL, 0, 0) == (second.status, second.kind, second.written, second.target_requests)
    assert source.reads == []


def test_requests_that_failed_are_told_apart(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = source.collections

    def flaky() -> list[Collection]:
        source.requests += 3
        source.failed.tries += 2
        return asked()

    monkeypatch.setattr(source, "collections", flaky)
    source.failed.tries = 5  # of an earlier Run
    report = rig.run()
    assert (report.source_requests > 2, report.source_requests_failed, report.target_requests_failed) == (True, 2, 0)


def test_only_what_changed_is_read_and_written(rig: Rig, source: MemorySource) -> None:
    source.add("1", 120)
    rig.run()
    source.reads.clear()
    source.now += SECOND
    source.put("1", "60", {"id": 60, "annotations": [{"id": 1}]})
    source.add("1", 1, first=121)
    report = rig.run()
    assert (2, 0) == (report.written, report.unchanged)
    assert sorted(source.reads) == ["121", "60"]
    assert same(rig, source)


def test_a_silent_edit_is_caught_by_the_next_full_run(rig: Rig, source: MemorySource) -> None:
    source.add("1", 5)
    rig.run()
    source.put("1", "3", {"id": 3, "silently": True}, silent=True)
    assert 0 == rig.run().written
    rig.clock.micros += DAY
    report = rig.run()
    assert (Kind.FULL, 1, 4) == (report.kind, report.written, report.unchanged)
    assert same(rig, source)


def test_no_retention_is_over_at_once(rig: Rig, source: MemorySource) -> None:
    source.add("1", 30)
    rig.rules["trash_retention"] = "0s"
    rig.run()
    del source.world["1"].tasks["6"]
    assert rig.run().trashed == 1
    rig.run(Kind.FULL)
    assert not [key for key in rig.files() if "/_trash/" in key]


def test_deleted_task_lies_in_the_trash_until_its_retention_ends(rig: Rig, source: MemorySource) -> None:
    source.add("1", 5)
    rig.run()
    data = rig.files()["1/3.json"]
    del source.world["1"].tasks["3"]
    report = rig.run()
    assert (1, 0, Status.OK) == (report.trashed, report.deleted, report.status)
    assert same(rig, source)
    trash = [key for key in rig.files() if "/_trash/" in key]
    assert [data] == [rig.files()[key] for key in trash]
    rig.clock.micros += 30 * DAY
    rig.run(Kind.FULL)
    assert trash[0] in rig.files()
    rig.clock.micros += 2 * DAY
    rig.run(Kind.FULL)
    assert not any("/_trash/" in key for key in rig.files())


@pytest.mark.parametrize(("on_delete", "left"), [("delete", False), ("keep", True)])
def test_other_ways_to_follow_a_deletion(rig: Rig, source: MemorySource, on_delete: str, left: bool) -> None:
    rig.rules["on_delete"] = on_delete
    source.add("1", 5)
    rig.run()
    del source.world["1"].tasks["3"]
    report = rig.run()
    assert (0, int(not left), int(left)) == (report.trashed, report.deleted, report.kept)
    assert left == ("1/3.json" in rig.files())
    again = rig.run()
    assert (0, 0, 0) == (again.trashed, again.deleted, again.kept)


def test_guard_stops_a_mass_deletion_until_that_very_plan_is_confirmed(rig: Rig, source: MemorySource) -> None:
    source.add("1", 100)
    source.add("2", 5)
    rig.run()
    for number in range(1, 31):
        del source.world["1"].tasks[str(number)]
    del source.world["2"].tasks["1"]
    source.now += SECOND
    source.add("1", 1, first=500)
    report = rig.run()
    assert (Status.GUARDED, 20, 1, 0) == (report.status, report.exit_code, report.written, report.trashed)
    assert 105 == len([key for key in rig.files() if "/_" not in f"/{key}"]) - 1
    assert report.plan_id == rig.run().plan_id
    assert Status.GUARDED is rig.run(confirm_deletes="000000000000").status
    del source.world["1"].tasks["31"]
    other = rig.run(confirm_deletes=report.plan_id)
    assert (Status.GUARDED, False) == (other.status, other.plan_id == report.plan_id)
    confirmed = rig.run(confirm_deletes=other.plan_id)
    assert (Status.OK, 32) == (confirmed.status, confirmed.trashed)
    assert same(rig, source)


def test_a_collection_that_vanished_waits_for_a_person_even_with_one_task(rig: Rig, source: MemorySource) -> None:
    source.add("1", 3)
    source.add("2", 1)
    rig.run()
    del source.world["2"]
    report = rig.run()
    assert Status.GUARDED is report.status
    assert "2/1.json" in rig.files()
    assert Status.OK is rig.run(confirm_deletes=report.plan_id).status
    left = [key for key in rig.files() if key.startswith("2/")]
    assert len(left) == 2
    assert all("/_trash/" in key for key in left)
    assert Status.OK is rig.run().status


def test_a_collection_left_out_by_the_config_is_left_alone(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 3)
    source.add("2", 3)
    rig.run()
    everything = source.collections
    rig.rules["projects"] = ["1"]
    monkeypatch.setattr(source, "collections", lambda: [c for c in everything() if c.id != "2"])
    assert (Status.OK, 0) == ((report := rig.run()).status, report.trashed)
    assert "2/1.json" in rig.files()


def test_a_named_collection_that_nobody_knows_is_a_failure(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1)
    rig.rules["projects"] = ["1", "99", "Project *"]
    report = rig.run()
    assert (Status.PARTIAL, ["99"]) == (report.status, [failure.project for failure in report.failed])


def test_a_reused_id_is_another_task_and_the_old_one_goes_to_the_trash(rig: Rig, source: MemorySource) -> None:
    source.add("1", 30)
    rig.run()
    old = rig.files()["1/30.json"]
    del source.world["1"].tasks["30"]
    source.now += SECOND
    source.put("1", "30", {"id": 30, "data": "another task"})
    report = rig.run()
    assert (1, 1) == (report.written, report.trashed)
    assert same(rig, source)
    assert [old] == [data for key, data in rig.files().items() if "/_trash/" in key]


def test_a_reused_collection_id_is_another_collection(rig: Rig, source: MemorySource) -> None:
    source.add("1", 40)
    rig.run()
    del source.world["1"]
    source.now += SECOND
    source.add("1", 2, first=100)
    source.world["1"].created_at = 2
    report = rig.run()
    assert (Status.GUARDED, 2) == (report.status, report.written)
    assert Status.OK is rig.run(confirm_deletes=report.plan_id).status
    assert same(rig, source)


def test_a_failed_task_is_reported_alone_holds_the_cursor_and_is_retried(rig: Rig, source: MemorySource) -> None:
    source.add("1", 60)
    source.world["1"].tasks["9"].poison = "the server can't say what task 9 holds"
    report = rig.run()
    assert (Status.PARTIAL, 3, 59, ["9"]) == (report.status, report.exit_code, report.written, [f.task for f in report.failed])
    source.now += 3600 * SECOND
    source.put("1", "10", {"id": 10, "edited": True})
    report = rig.run()
    assert (Status.PARTIAL, 1, ["9"]) == (report.status, report.written, [f.task for f in report.failed])
    _, after = report.cursors.get("1", (0, 0))
    assert (after or 0) <= source.world["1"].tasks["9"].last_activity
    source.world["1"].tasks["9"].poison = ""
    report = rig.run()
    assert (Status.OK, 1, []) == (report.status, report.written, report.failed)
    assert same(rig, source)
    assert Status.OK is rig.run().status


def test_a_value_that_cannot_be_written_fails_its_task_alone(rig: Rig, source: MemorySource) -> None:
    source.add("1", 3)
    source.put("1", "2", {"id": 2, "data": {"text": "\ud800"}})
    report = rig.run()
    assert (Status.PARTIAL, 2) == (report.status, report.written)
    assert "$.data.text" in report.failed[0].error


@pytest.mark.parametrize("call", ["collections", "page", "settings"])
@pytest.mark.parametrize(("error", "code"), [(SourceError("500"), 1), (AccessError("401"), 12)])
def test_source_trouble_deletes_nothing_and_the_next_run_is_complete(rig: Rig, source: MemorySource, call: str, error: Exception, code: int) -> None:
    source.add("1", 120)
    rig.run()
    del source.world["1"].tasks["3"]
    source.now += SECOND
    source.add("1", 100, first=200)
    source.fail(call, 2 if call == "page" else 1, error)
    report = rig.run()
    source.assert_all_failed()
    assert (Status.FAILED, code, 0) == (report.status, report.exit_code, report.trashed)
    assert "1/3.json" in rig.files()
    assert Status.OK is rig.run().status
    assert same(rig, source)


def test_an_unconfirmed_candidate_is_never_deleted(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 30)
    rig.run()
    monkeypatch.setattr(source, "confirm", lambda collection, tasks: {})
    del source.world["1"].tasks["3"]
    report = rig.run()
    assert (Status.OK, 0, True) == (report.status, report.trashed, "1/3.json" in rig.files())


def test_missing_and_foreign_files_are_healed_by_a_full_run(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.add("1", 10)
    rig.run()
    (tmp_path / "backup/1/1.json").unlink()
    (tmp_path / "backup/1/2.json").write_bytes(b"garbage")
    original = (tmp_path / "backup/1/3.json").read_bytes()
    (tmp_path / "backup/1/3.json").write_bytes(original.replace(b"task", b"TASK"))
    (tmp_path / "backup/1/4.json").write_bytes((tmp_path / "backup/1/4.json").read_bytes())
    report = rig.run(Kind.FULL)
    assert (0, 3, 1, 6) == (report.written, report.healed, report.adopted, report.unchanged)
    assert same(rig, source)
    assert (0, 0, 10) == ((again := rig.run(Kind.FULL)).healed, again.adopted, again.unchanged)


def test_losing_the_checkpoint_puts_nothing_again(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.add("1", 10)
    rig.run()
    source.put("1", "4", {"id": 4, "changed": "meanwhile"})
    rig.state = tmp_path / "another"
    refused = rig.run()
    assert (Status.FAILED, 11, 0) == (refused.status, refused.exit_code, refused.adopted)
    assert "--take-over" in refused.error
    report = rig.run(take_over=True)
    assert (1, 9, Status.OK) == (report.written, report.adopted, report.status)
    assert same(rig, source)


def test_settings_are_put_when_they_change(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1)
    rig.run()
    source.world["1"].settings["label_config"] = "<View><Text/></View>"
    report = rig.run()
    assert (0, Status.OK) == (report.written, report.status)
    assert b"<Text/>" in rig.files()["1/_project.json"]
    assert ["settings", "settings"] == [line["why"] for line in rig.feeds() if line["task"] is None]


def test_change_feed_tells_every_put_and_deletion_once(rig: Rig, source: MemorySource) -> None:
    source.add("1", 25)
    rig.run()
    source.now += SECOND
    source.put("1", "5", {"id": 5, "annotations": [{"id": 1}]})
    del source.world["1"].tasks["6"]
    rig.run()
    lines: list[dict[str, Any]] = [line for line in rig.feeds() if line["task"] is not None]
    assert 27 == len(lines)
    assert [("put", "changed", "5"), ("trash", "deleted", "6")] == [(line["op"], line["why"], line["task"]) for line in lines[25:]]
    assert {"op", "why", "project", "task", "key", "digest", "last_activity", "run_id", "at"} == set(lines[0])


def test_task_error_of_the_target_fails_that_task_alone(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    source.add("1", 30)
    target = rig.open_target()
    put = target.put

    def refuse(key: str, data: bytes) -> bytes:
        if key == "1/7.json":
            raise TaskError("no room for this one")
        return put(key, data)

    monkeypatch.setattr(target, "put", refuse, raising=False)
    monkeypatch.setattr(rig, "open_target", lambda: target)
    report = rig.run()
    assert (Status.PARTIAL, 29, ["7"]) == (report.status, report.written, [f.task for f in report.failed])
    monkeypatch.undo()
    report = rig.run()
    assert (Status.OK, 1) == (report.status, report.written)
    assert same(rig, source)


def test_plan_tells_what_a_run_would_do_and_touches_nothing(rig: Rig, source: MemorySource) -> None:
    source.add("1", 30)
    rig.run()
    source.now += SECOND
    source.put("1", "5", {"id": 5, "edited": True})
    source.add("1", 1, first=31)
    del source.world["1"].tasks["6"]
    source.world["1"].tasks["7"].poison = "unreadable"
    source.world["1"].tasks["7"].last_activity = source.now
    before = rig.files()
    checkpoint, target = sqlite.open(rig.state, read_only=True), rig.open_target()
    lines = {(line.sign, line.task) for line in plan_sync(rig.job(checkpoint, target))}
    target.close()
    checkpoint.close()
    assert {("~", "5"), ("+", "31"), ("-", "6"), ("!", "7")} == lines
    assert before == rig.files()
    report = rig.run()
    assert (2, 1, 1) == (report.written, report.trashed, len(report.failed))


def test_a_failing_task_that_vanished_is_forgotten(rig: Rig, source: MemorySource) -> None:
    source.add("1", 3)
    source.world["1"].tasks["2"].poison = "unreadable"
    assert 1 == len(rig.run().failed)
    del source.world["1"].tasks["2"]
    assert (Status.OK, []) == ((report := rig.run()).status, report.failed)
    checkpoint = sqlite.open(rig.state, read_only=True)
    assert [] == checkpoint.failures(rig.name)
    checkpoint.close()


def test_removed_settings_are_healed_and_those_of_a_reused_id_kept(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    source.add("1", 1)
    rig.run()
    old = rig.files()["1/_project.json"]
    (tmp_path / "backup/1/_project.json").unlink()
    rig.run(Kind.FULL)
    assert old == rig.files()["1/_project.json"]
    source.world["1"].created_at = 2
    source.world["1"].settings["label_config"] = "<View><Image/></View>"
    rig.run()
    assert old in [data for key, data in rig.files().items() if "/_trash/" in key]
    assert b"<Image/>" in rig.files()["1/_project.json"]


def test_a_run_that_does_not_read_everything_does_not_say_how_much_there_is(rig: Rig, source: MemorySource) -> None:
    source.add("1", 200)
    told = list[tuple[int, int | None]]()
    rig.run(on_progress=lambda progress: told.append((progress.read, progress.total)))
    assert told[-1] == (200, 200)
    source.put("1", "7", {"data": {"text": "new"}})
    rig.run(on_progress=lambda progress: told.append((progress.read, progress.total)))
    assert told[-1][1] is None


def test_a_run_that_is_stopped_keeps_what_it_put_and_the_next_one_goes_on(rig: Rig, source: MemorySource) -> None:
    source.page = 10
    source.add("1", 200)

    def stop_in_the_middle(progress: Progress) -> None:
        if progress.written >= 50:
            rig.clock.stop.set()

    report = rig.run(on_progress=stop_in_the_middle)
    assert (Status.FAILED, 130, "interrupted") == (report.status, report.exit_code, report.error)
    assert 50 <= report.written < 200
    rig.clock.stop.clear()
    source.reads.clear()
    second = rig.run()
    assert 200 == report.written + second.written
    assert len(source.reads) <= 200 - report.written + 10
    assert same(rig, source)
