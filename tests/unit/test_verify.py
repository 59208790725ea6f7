"""`syncd verify`: everything that was tampered with behind syncd's back is found in the modes that read it, mended, and nothing is lost by it."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from syncd.checkpoint import sqlite
from syncd.errors import SourceError
from syncd.keys import SIDE
from syncd.model import Status
from syncd.targets import local
from syncd.upkeep.repair import Repair, repair
from syncd.upkeep.verify import DIFFERS, ERROR, EXTRA, MISSING, SAME, VerifyLine, verify
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import Rig, TestClock

EVERYTHING = 1.0


class Desk(Rig):
    """A Rig on a folder, with a person who tampers, verifies and repairs."""

    @property
    def folder(self) -> Path:
        return self.state.parent / "backup"

    def path(self, key: str) -> Path:
        return self.folder / key

    def verify(self, *, read: float = 0.0, source: bool = False) -> list[VerifyLine]:
        """Everything but what is right."""
        return [line for line in self.lines(read=read, source=source) if line.sign != SAME]

    def lines(self, *, read: float = 0.0, source: bool = False) -> list[VerifyLine]:
        with closing(sqlite.open(self.state, read_only=True)) as checkpoint, closing(self.open_target()) as target:
            return list(verify(self.job(checkpoint, target), read=read, source=source))

    def repair(self, lines: list[VerifyLine], confirm: str = "") -> Repair:
        self.clock.wait(1)
        with closing(sqlite.open(self.state)) as checkpoint, closing(self.open_target()) as target:
            return repair(self.job(checkpoint, target), lines, confirm_deletes=confirm)


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


def quietly(path: Path, data: bytes) -> None:
    """Other bytes, and the same time as before: only reading tells."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


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
        for key in ("1/999.json", "3/_project.json", "1/notes.txt", "stray"):
            desk.path(key).parent.mkdir(exist_ok=True)
            desk.path(key).write_bytes(b"{}")
        lines = desk.verify()
        assert found(lines) == {
            (MISSING, "1/3.json"), (MISSING, "2/7/mask.png"), (MISSING, "1/_project.json"), (DIFFERS, "1/4.json"), (DIFFERS, "1/5.json"),
            (EXTRA, "1/999.json"), (EXTRA, "3/_project.json"), (EXTRA, "1/notes.txt"), (EXTRA, "stray"),
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
        desk.path("1/_history/7").mkdir(parents=True)
        desk.path("1/_history/7/20261120T120000Z.json").write_bytes(b"{}")
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

    def test_a_collection_gone_from_the_source_is_told_and_its_tasks_are_not_fetched(self, desk: Desk, source: MemorySource) -> None:
        del source.world["2"]
        assert found(desk.verify(source=True)) == {(EXTRA, "")}
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

    def test_a_put_in_flight_is_waited_for_and_tampering_is_found_all_the_same(self, desk: Desk, source: MemorySource) -> None:
        """A Run has put two files and not recorded them yet, while somebody removes a third."""
        source.now += SECOND
        source.put("1", "5", {"id": 5, "data": {"text": "a newer and longer text than before"}})
        source.put("1", "61", {"id": 61, "data": {}})
        with pytest.raises(Died):
            desk.run(life=Life(_last_commit(desk)))  # dies before its commit; here it is only slow
        desk.path("1/7.json").unlink()
        assert found(desk.verify()) == {(DIFFERS, "1/5.json"), (EXTRA, "1/61.json"), (MISSING, "1/7.json")}
        wait, desk.clock.wait = desk.clock.wait, lambda seconds: (setattr(desk.clock, "wait", wait), desk.run())[0]  # type: ignore[method-assign]
        assert found(desk.verify()) == {(MISSING, "1/7.json")}


def _last_commit(desk: Desk) -> int:
    """The effect of a Run that records its puts: begin, claim's sweep, two puts, flush come before it."""
    return 6


class TestMended:
    def tamper(self, desk: Desk, count: int) -> dict[str, set[str]]:
        """So many files of each kind; the keys."""
        keys = [f"{p}/{t}.json" for p, home in desk.source.world.items() for t in home.tasks if SIDE not in t]  # type: ignore[attr-defined]
        chosen = iter(random.sample(keys, 5 * count))
        kinds = {kind: {next(chosen) for _ in range(count)} for kind in ("removed", "truncated", "changed", "swapped", "other")}
        for key in kinds["removed"]:
            desk.path(key).unlink()
        for key in kinds["truncated"]:
            os.truncate(desk.path(key), desk.path(key).stat().st_size // 2)
        for key in kinds["changed"]:
            quietly(desk.path(key), desk.path(key).read_bytes().replace(b"task", b"tusk"))
        for key, other in zip(sorted(kinds["swapped"]), sorted(kinds["other"]), strict=True):
            one, two = desk.path(key).read_bytes(), desk.path(other).read_bytes()
            quietly(desk.path(key), two)
            quietly(desk.path(other), one)
        kinds["added"] = {f"1/9000{number}.json" for number in range(count)}
        for key in kinds["added"]:
            desk.path(key).write_bytes(b'{"id":0}\n')
        return kinds

    def check(self, desk: Desk, count: int) -> None:
        before = desk.files()
        kinds = self.tamper(desk, count)
        tampered = {desk.path(key).read_bytes() for keys in kinds.values() for key in keys if desk.path(key).exists()}
        listed = {line.key for line in desk.verify()}
        assert kinds["removed"] | kinds["truncated"] | kinds["added"] <= listed
        lines = desk.verify(read=EVERYTHING)
        assert {line.key for line in lines} == set().union(*kinds.values())
        assert len(lines) == 6 * count
        done = desk.repair(lines)
        assert (Status.OK, 5 * count, []) == (done.report.status, done.report.healed + done.report.written, done.left)
        if done.guard:
            done = desk.repair(desk.verify(), done.guard.plan_id)
        assert (count, None) == (done.trashed, done.guard)
        assert desk.verify(read=EVERYTHING, source=True) == []
        after = desk.files()
        assert {key: data for key, data in before.items() if not key.startswith("_syncd/")}.items() <= after.items()
        assert tampered - set(before.values()) <= {data for key, data in after.items() if "/_trash/" in key}

    def test_every_kind_of_tampering_is_found_and_mended_and_its_bytes_are_kept(self, desk: Desk, source: MemorySource) -> None:
        source.add("1", 900, first=100)
        desk.run()
        self.check(desk, 50)

    @pytest.mark.live
    @pytest.mark.skipif(not os.environ.get("SYNCD_LIVE"), reason="20,000 files take a minute")
    def test_a_thousand_of_each_kind_among_twenty_thousand(self, desk: Desk, source: MemorySource) -> None:
        source.add("1", 19_900, first=100)
        desk.run()
        self.check(desk, 1_000)
