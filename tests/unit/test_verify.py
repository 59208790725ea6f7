"""`syncd verify`: everything that was tampered with behind syncd's back is found in the modes that read it, mended, and nothing is lost by it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from syncd.checkpoint import sqlite
from syncd.errors import SourceError
from syncd.keys import SIDE
from syncd.model import Kind, Status
from syncd.targets import local
from syncd.upkeep.verify import DIFFERS, ERROR, EXTRA, MISSING, SAME, VerifyLine, verify
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import TestClock
from tests.fakes.tamper import EVERYTHING, Desk, check_tampering, quietly


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource()
    source.add("1", 60)
    source.add("2", 40)
    source.put("2", f"7{SIDE}mask.png", b"\x89PNG")
    return source


@pytest.fixture
def desk(source: MemorySource, tmp_path: Path) -> Desk:
    clock = TestClock()
    desk = Desk(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)
    desk.run()
    return desk


def found(lines: list[VerifyLine]) -> set[tuple[str, str]]:
    return {(line.sign, line.key) for line in lines}


class TestFound:
    def test_a_whole_backup_is_right_in_every_mode(self, desk: Desk) -> None:
        desk.run()
        for read in (0.0, EVERYTHING):
            lines = desk.lines(read=read, source=True)
            assert Counter({SAME: 103}) == Counter(line.sign for line in lines)  # 100 tasks, a side file, two settings
            assert (103 if read else 0) == sum(line.read for line in lines)

    def test_what_costs_the_listing_alone_asks_for_nothing_else(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("nothing but the listing is asked for")

        for name in set(vars(local.LocalTarget)) & {"get", "put", "create", "copy", "delete", "sweep", "put_stream", "conditional"}:
            monkeypatch.setattr(local.LocalTarget, name, refuse)
        with closing(sqlite.open(desk.state, read_only=True)) as checkpoint, closing(desk.open_target()) as target:
            assert {SAME} == {line.sign for line in verify(desk.job(checkpoint, target))}
            assert 1 == target.requests

    def test_the_listing_tells_what_is_missing_cut_touched_or_nobodys(self, desk: Desk) -> None:
        desk.path("1/3.json").unlink()
        desk.path("2/7/mask.png").unlink()
        desk.path("1/_project.json").unlink()
        os.truncate(desk.path("1/4.json"), 9)
        desk.path("1/5.json").write_bytes(desk.path("1/5.json").read_bytes().replace(b"task", b"fake"))
        for key in ("1/999.json", "3/_project.json", "1/notes.txt", "stray", "1/_trash/mine", "1/_history/mine.json"):
            desk.path(key).parent.mkdir(exist_ok=True)
            desk.path(key).write_bytes(b"{}")
        lines = desk.verify()
        assert found(lines) == {
            (MISSING, "1/3.json"), (MISSING, "2/7/mask.png"), (MISSING, "1/_project.json"), (DIFFERS, "1/4.json"), (DIFFERS, "1/5.json"),
            (EXTRA, "1/999.json"), (EXTRA, "3/_project.json"), (EXTRA, "1/notes.txt"), (EXTRA, "stray"), (EXTRA, "1/_trash/mine"),
            (EXTRA, "1/_history/mine.json"),
        }  # fmt: skip
        why = {line.key: (line.project, line.task, line.why) for line in lines}
        assert ("1", "999", "orphaned: no Entry tells of it") == why["1/999.json"]
        assert ("", None, "not syncd's, which never touches it") == why["1/notes.txt"]
        assert "9 bytes instead of" in why["1/4.json"][2]

    def test_only_reading_finds_other_bytes_of_the_same_size_and_time(self, desk: Desk) -> None:
        one, two = (desk.path(f"1/{n}.json").read_bytes() for n in (11, 12))
        quietly(desk.path("1/11.json"), two)
        quietly(desk.path("1/12.json"), one)
        quietly(desk.path("2/_project.json"), desk.path("2/_project.json").read_bytes().replace(b"View", b"Veiw"))
        assert desk.verify() == []
        assert found(desk.verify(read=EVERYTHING)) == {(DIFFERS, "1/11.json"), (DIFFERS, "1/12.json"), (DIFFERS, "2/_project.json")}

    def test_a_sample_reads_about_as_much_as_was_asked_for_and_others_each_time(self, desk: Desk) -> None:
        read = [{line.key for line in desk.lines(read=0.3) if line.read} for _ in range(4)]
        assert all(5 <= len(keys) <= 70 for keys in read)  # 31 expected of 103: beyond is less likely than one in a billion
        assert len({frozenset(keys) for keys in read}) > 1

    def test_the_trash_the_history_and_syncds_own_are_nobodys_business(self, desk: Desk, source: MemorySource) -> None:
        del source.world["1"].tasks["5"]
        desk.run()
        desk.rules["history"] = {"keep_last": 9}
        source.now += SECOND
        source.put("1", "6", {"id": 6, "data": {"text": "edited"}})
        desk.run()
        assert any("/_history/" in key for key in desk.files())
        assert any("/_trash/" in key for key in desk.files())
        assert desk.verify(read=EVERYTHING) == []

    def test_a_kept_tasks_file_is_looked_at_too(self, desk: Desk, source: MemorySource) -> None:
        desk.rules["on_delete"] = "keep"
        del source.world["1"].tasks["5"]
        desk.run()
        assert desk.verify() == []
        desk.path("1/5.json").unlink()
        lines = desk.verify()
        assert found(lines) == {(MISSING, "1/5.json")}
        done = desk.repair(lines)
        assert ["1/5.json"] == [line.key for line in done.left]
        assert "gone from the Source" in done.left[0].why

    def test_what_the_source_says_now_is_compared_when_asked(self, desk: Desk, source: MemorySource) -> None:
        source.put("1", "8", {"id": 8, "data": {"text": "edited behind every clock"}}, silent=True)
        source.put("1", "61", {"id": 61, "data": {}})
        source.world["1"].tasks["9"].poison = "it can't be read"
        del source.world["2"].tasks["3"]
        assert desk.verify() == []
        lines = desk.verify(source=True)
        assert {(line.sign, line.project, line.task) for line in lines} == {
            (DIFFERS, "1", "8"),
            (MISSING, "1", "61"),
            (ERROR, "1", "9"),
            (EXTRA, "2", "3"),
        }
        source.world["1"].tasks["9"].poison = ""
        assert Status.OK is desk.repair(lines).report.status
        assert desk.tasks() == desk.expected(((p, t), b) for (p, t), b in source.expected().items() if isinstance(b, dict))
        assert desk.verify(read=EVERYTHING, source=True) == []

    def test_a_place_that_was_emptied_is_filled_again(self, desk: Desk) -> None:
        shutil.rmtree(desk.path("1").parent)
        lines = desk.verify()
        assert {MISSING} == {line.sign for line in lines}
        assert [] == (done := desk.repair(lines)).left
        assert Status.OK is done.report.status
        assert desk.verify(read=EVERYTHING, source=True) == []

    def test_a_task_that_the_last_run_could_not_back_up_is_not_right_and_may_be_mended(self, desk: Desk, source: MemorySource) -> None:
        source.now += SECOND
        source.put("1", "70", {"id": 70, "data": {}})
        source.world["1"].tasks["70"].poison = "it can't be read"
        desk.run()
        (line,) = desk.verify()
        assert (ERROR, "70", "not as the Source has it: it can't be read") == (line.sign, line.task, line.why)
        assert ["70"] == [failure.task for failure in desk.repair([line]).report.failed]
        source.world["1"].tasks["70"].poison = ""
        assert [] == desk.repair([line]).report.failed
        assert desk.verify(read=EVERYTHING, source=True) == []

    def test_a_collection_gone_from_the_source_is_told_and_its_tasks_are_not_fetched(self, desk: Desk, source: MemorySource) -> None:
        del source.world["2"]
        assert Counter({EXTRA: 41, ERROR: 1}) == Counter(line.sign for line in desk.verify(source=True))  # the Guard has a word on it, too
        desk.path("2/3.json").unlink()
        lines = desk.verify()
        done = desk.repair(lines)
        assert [line.key for line in done.left] == ["2/3.json"]
        assert [] == [failure for failure in done.report.failed if failure.task]  # nothing is left failing for ever

    def test_a_checkpoint_that_knows_nothing_proves_nothing(self, desk: Desk, tmp_path: Path) -> None:
        desk.state = tmp_path / "empty"
        (line,) = desk.verify()
        assert ERROR == line.sign
        assert "syncd rebuild" in line.why

    def test_a_place_that_another_checkpoint_took_over_is_told_when_it_differs(self, desk: Desk, tmp_path: Path) -> None:
        ours, desk.state = desk.state, tmp_path / "another"
        desk.run(take_over=True)
        desk.state = ours
        assert desk.verify() == []
        desk.path("1/5.json").unlink()
        missing, owned = desk.verify()
        assert (MISSING, ERROR) == (missing.sign, owned.sign)
        assert "belongs to sync cats of another Checkpoint" in owned.why
        assert 11 == desk.repair([missing]).report.exit_code

    def test_errors_of_the_source_are_raised(self, desk: Desk, source: MemorySource) -> None:
        source.fail("page", 1, SourceError("down"))
        with pytest.raises(SourceError, match="down"):
            desk.verify(source=True)
        source.assert_all_failed()


class TestBesideADaemon:
    def test_what_a_run_puts_meanwhile_is_no_difference(self, desk: Desk, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Run happens between the listing and the look at the Entries."""
        listed = local.LocalTarget.list

        def then_run(target: local.LocalTarget, prefix: str) -> Iterator[object]:
            yield from listed(target, prefix)
            monkeypatch.undo()
            source.now += SECOND
            source.put("1", "5", {"id": 5, "data": {"text": "a newer and longer text than before"}})
            source.put("1", "61", {"id": 61, "data": {}})
            del source.world["1"].tasks["6"]
            desk.run()

        monkeypatch.setattr(local.LocalTarget, "list", then_run)
        assert desk.verify() == []
        assert desk.verify(read=EVERYTHING) == []

    def test_a_put_in_flight_is_waited_for_and_tampering_is_found_all_the_same(
        self, desk: Desk, source: MemorySource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A Run has put two files and not recorded them yet, while somebody removes a third."""
        source.now += SECOND
        source.put("1", "5", {"id": 5, "data": {"text": "a newer and longer text than before"}})
        source.put("1", "61", {"id": 61, "data": {}})
        with pytest.raises(Died):
            desk.run(life=Life(_last_commit(desk)))  # dies before its commit; here it is only slow
        desk.path("1/7.json").unlink()
        assert found(desk.verify()) == {(DIFFERS, "1/5.json"), (EXTRA, "1/61.json"), (MISSING, "1/7.json")}

        def then_it_goes_on(seconds: float) -> None:
            monkeypatch.undo()
            desk.run()

        monkeypatch.setattr(desk.clock, "wait", then_it_goes_on)
        assert found(desk.verify()) == {(MISSING, "1/7.json")}


def _last_commit(desk: Desk) -> int:
    """The effect of a Run that records its puts: begin, claim's sweep, two puts, flush come before it."""
    return 6


class TestMended:
    def test_every_kind_of_tampering_is_found_and_mended_and_its_bytes_are_kept(self, desk: Desk, source: MemorySource) -> None:
        source.add("1", 900, first=100)
        desk.run()
        check_tampering(desk, 50)

    def test_what_somebody_put_in_a_tasks_place_is_in_the_trash_before_the_task_is_put_again(self, desk: Desk) -> None:
        right = desk.path("1/5.json").read_bytes()
        desk.path("1/5.json").write_bytes(b"my only copy of a poem")
        desk.path("1/_project.json").write_bytes(b"and of a song")
        done = desk.repair(desk.verify(read=EVERYTHING))
        assert (Status.OK, 1, []) == (done.report.status, done.report.healed, done.left)
        assert right == desk.path("1/5.json").read_bytes()
        assert {b"my only copy of a poem", b"and of a song"} == set(desk.kept().values())
        assert desk.verify(read=EVERYTHING, source=True) == []
        assert ["healed"] == [line["why"] for line in desk.feeds() if line["run_id"] == done.report.run_id and line["task"] == "5"]

    def test_no_history_takes_somebody_elses_bytes_for_a_version(self, desk: Desk) -> None:
        desk.rules["history"] = {"keep_last": 9}
        desk.path("1/5.json").write_bytes(b"not by the Source")
        desk.repair(desk.verify())
        assert {b"not by the Source"} == set(desk.kept().values())
        assert not [key for key in desk.files() if "/_history/" in key]

    def test_a_side_file_is_put_again(self, desk: Desk) -> None:
        desk.path("2/7/mask.png").unlink()
        desk.path("2/_project.json").unlink()
        assert 2 == desk.repair(desk.verify()).again
        assert b"\x89PNG" == desk.path("2/7/mask.png").read_bytes()
        assert desk.verify() == []

    def test_a_place_that_was_moved_is_recorded_anew_without_a_put(self, desk: Desk) -> None:
        files = [desk.path(key) for key in desk.backup() if not key.endswith("_project.json")]
        for path in files:
            os.utime(path, ns=(1, 1))
        lines = desk.verify()
        assert len(files) == len(lines)
        assert desk.verify(read=EVERYTHING) == []
        done = desk.repair(lines)
        assert (len(files), 0, 0) == (done.recorded, done.report.healed, done.report.bytes_written)
        assert {1} == {path.stat().st_mtime_ns for path in files}
        assert desk.verify() == []

    def test_too_many_orphans_wait_for_a_person_and_all_else_is_mended(self, desk: Desk) -> None:
        for number in range(21):
            desk.path(f"1/9000{number}.json").write_bytes(b"{}")
        desk.path("1/5.json").unlink()
        done = desk.repair(desk.verify())
        assert done.guard is not None
        assert "orphaned files: 21 of 81 tasks of Collection 1 are gone, more than the 20 that max_delete allows" in str(done.guard)
        assert (0, 1) == (done.trashed, done.report.healed)
        assert 0 == desk.repair(desk.verify(), "another plan").trashed
        assert 21 == desk.repair(desk.verify(), done.guard.plan_id).trashed
        assert desk.verify() == []
        assert 21 == len(desk.kept())
        assert 21 == sum(line["op"] == "trash" for line in desk.feeds())

    def test_the_file_of_a_task_that_cannot_be_read_is_no_orphan(self, desk: Desk, source: MemorySource) -> None:
        """The Checkpoint was lost, and the Source can't give this task now: its file is all there is."""
        whole = desk.path("1/5.json").read_bytes()
        source.world["1"].tasks["5"].poison = "unreadable"
        shutil.rmtree(desk.state)
        assert Status.PARTIAL is desk.run(Kind.FULL, take_over=True).status
        done = desk.repair(desk.verify())
        assert (0, True) == (done.trashed, "1/5.json" in {line.key for line in done.left})
        assert whole == desk.path("1/5.json").read_bytes()
        source.world["1"].tasks["5"].poison = ""
        assert Status.OK is desk.repair(desk.verify()).report.status
        assert desk.verify(read=EVERYTHING, source=True) == []

    def test_orphans_stay_where_deleted_tasks_are_kept(self, desk: Desk) -> None:
        """After the Checkpoint was lost nobody knows any more which of them a person wanted to keep."""
        desk.rules["on_delete"] = "keep"
        desk.path("1/999.json").write_bytes(b"{}")
        done = desk.repair(desk.verify())
        assert (0, ["1/999.json"]) == (done.trashed, [line.key for line in done.left])
        assert desk.path("1/999.json").exists()

    def test_orphans_of_a_collection_that_the_config_leaves_out_stay_until_it_is_gone(self, desk: Desk, source: MemorySource) -> None:
        source.add("3", 1)
        whole = source.collections
        source.collections = lambda: [collection for collection in whole() if collection.id != "3"]  # type: ignore[method-assign]
        orphans = {"3/1.json", "3/_project.json"}
        for key in orphans:
            desk.path(key).parent.mkdir(exist_ok=True)
            desk.path(key).write_bytes(b"{}")
        done = desk.repair(desk.verify())
        assert (0, orphans) == (done.trashed, {line.key for line in done.left})
        del source.world["3"]
        done = desk.repair(desk.verify())
        assert (0, "all 2 tasks of Collection 3 are gone") == (done.trashed, str(done.guard).partition(": ")[2])  # few as they are
        assert done.guard is not None
        assert 2 == desk.repair(desk.verify(), done.guard.plan_id).trashed

    def test_what_is_not_syncds_is_never_touched(self, desk: Desk) -> None:
        desk.path("1/notes.txt").write_bytes(b"mine")
        done = desk.repair(desk.verify())
        assert (0, ["1/notes.txt"]) == (done.trashed, [line.key for line in done.left])
        assert b"mine" == desk.path("1/notes.txt").read_bytes()

    def test_what_is_left_of_a_task_that_is_gone_stays_in_its_place(self, desk: Desk, source: MemorySource) -> None:
        """One bit of it is wrong, and nobody can give it again: in the trash it would have 30 days."""
        desk.rules["on_delete"] = "keep"
        del source.world["1"].tasks["5"]
        spoilt = desk.path("1/5.json").read_bytes().replace(b"task", b"tusk")
        quietly(desk.path("1/5.json"), spoilt)
        for _ in range(2):
            done = desk.repair(desk.verify(read=EVERYTHING))
            assert (Status.OK, ["1/5.json"]) == (done.report.status, [line.key for line in done.left])
            assert spoilt == desk.path("1/5.json").read_bytes()

    def test_a_task_that_is_gone_meanwhile_goes_the_way_of_all_tasks(self, desk: Desk, source: MemorySource) -> None:
        desk.path("1/5.json").unlink()
        lines = desk.verify()
        del source.world["1"].tasks["5"]
        done = desk.repair(lines)
        assert (Status.OK, []) == (done.report.status, done.report.failed)
        assert desk.verify(source=True) == []

    def test_a_task_that_can_not_be_read_stays_failing_and_is_mended_when_it_can(self, desk: Desk, source: MemorySource) -> None:
        desk.path("1/5.json").unlink()
        source.world["1"].tasks["5"].poison = "it can't be read"
        done = desk.repair(desk.verify())
        assert (Status.PARTIAL, ["5"]) == (done.report.status, [failure.task for failure in done.report.failed])
        source.world["1"].tasks["5"].poison = ""
        assert Status.OK is desk.run().status
        assert desk.verify(source=True) == []
