"""`syncd changes`: every Run's lines once, in order, from the Target alone and without listing more than asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from syncd import keys
from syncd.clock import format_time, parse_time
from syncd.errors import Stopped, TargetError
from syncd.run import new_run_id
from syncd.targets import local
from syncd.targets.base import Target
from syncd.upkeep.changes import changes
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import DAY, Rig, TestClock


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource()
    source.add("1", 5)
    return source


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    rig = Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)
    rig.run()
    return rig


@pytest.fixture
def target(rig: Rig) -> Iterator[Target]:
    with closing(rig.open_target()) as target:
        yield target


def edit(rig: Rig, source: MemorySource, task: str, text: str) -> str:
    source.now += SECOND
    source.put("1", task, {"id": int(task), "data": {"text": text}})
    return rig.run().run_id


def test_all_lines_come_in_the_order_of_the_runs(rig: Rig, source: MemorySource, target: Target) -> None:
    edit(rig, source, "3", "a")
    rig.clock.micros += DAY
    edit(rig, source, "4", "b")
    assert rig.feeds() == list(changes(target, rig.clock))
    assert 8 == len(rig.feeds())


def test_since_a_run_gives_what_came_after_it(rig: Rig, source: MemorySource, target: Target) -> None:
    first, second = edit(rig, source, "3", "a"), edit(rig, source, "4", "b")
    assert [second] == [line["run_id"] for line in changes(target, rig.clock, after=first)]
    assert [] == list(changes(target, rig.clock, after=second))


def test_since_a_time_gives_what_was_recorded_then_or_later(rig: Rig, source: MemorySource, target: Target) -> None:
    edit(rig, source, "3", "a")
    rig.clock.micros += DAY
    moment = rig.clock.now()
    edit(rig, source, "4", "b")
    for since in (moment, parse_time(format_time(moment)[:10])):
        assert ["4"] == [line["task"] for line in changes(target, rig.clock, since=since)]
    assert [] == list(changes(target, rig.clock, since=moment + 9 * DAY))


def test_since_a_time_gives_what_a_run_recorded_that_had_begun_days_before(rig: Rig, target: Target) -> None:
    begun, moment = rig.clock.now() - 5 * DAY, rig.clock.now()
    lines = [f'{{"task": "{task}", "at": "{format_time(at)}"}}\n' for task, at in (("8", begun), ("9", moment + SECOND))]
    target.put(keys.feed(new_run_id(begun)), "".join(lines).encode())
    assert ["9"] == [line["task"] for line in changes(target, rig.clock, since=moment + SECOND)]


def test_only_the_wanted_days_are_listed_and_of_years_all_at_once(
    rig: Rig, source: MemorySource, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.clock.micros += 3 * DAY
    run = edit(rig, source, "3", "a")
    asked: list[str] = []
    listed = local.LocalTarget.list

    def watched(self: local.LocalTarget, prefix: str) -> Any:
        asked.append(prefix)
        return listed(self, prefix)

    monkeypatch.setattr(local.LocalTarget, "list", watched)
    list(changes(target, rig.clock, after=run))
    assert [f"{keys.feed(run)[:25]}/"] == asked
    everything = list(changes(target, rig.clock, since=0))
    assert [keys.CHANGES] == asked[1:]
    assert rig.feeds() == everything


class Reader:
    """Somebody who follows; between two looks `happens` is called, and in the end they stop."""

    def __init__(self, rig: Rig, *happens: Any) -> None:
        self.rig, self.happens, self.now = rig, list(happens), rig.clock.now

    def monotonic(self) -> float:
        return 0.0

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        if not self.happens:
            raise Stopped
        self.happens.pop(0)()


def followed(reader: Reader, target: Target) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    with pytest.raises(Stopped):
        lines.extend(changes(target, reader, follow=True))  # what was told before it was stopped stays
    return lines


def test_following_tells_each_run_once_as_it_comes(rig: Rig, source: MemorySource, target: Target) -> None:
    def next_day() -> None:
        rig.clock.micros += DAY
        edit(rig, source, "4", "b")

    reader = Reader(rig, lambda: None, lambda: edit(rig, source, "3", "a"), lambda: None, next_day, lambda: None)
    assert rig.feeds()[:6] == list(islice(changes(target, reader, follow=True), 6))
    lines = followed(reader, target)
    assert rig.feeds() == lines
    assert 8 == len(lines)


def test_a_killed_runs_feed_is_told_when_it_appears_though_days_later(rig: Rig, source: MemorySource, target: Target) -> None:
    def killed() -> None:
        source.now += SECOND
        source.put("1", "3", {"id": 3, "data": {}})
        with pytest.raises(Died):
            rig.run(life=Life(5, after=True))

    def later() -> None:
        rig.clock.micros += 3 * DAY
        edit(rig, source, "4", "b")

    lines = followed(Reader(rig, killed, lambda: None, later, lambda: None), target)
    assert rig.feeds() == lines
    assert ["3", "4"] == [line["task"] for line in lines[-2:]]


def test_the_first_run_of_all_is_told_although_it_was_killed_the_day_before(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "other"), rig.clock)
    rig.state = tmp_path / "other state"

    def killed() -> None:
        with pytest.raises(Died):
            rig.run(life=Life(9, after=True))

    def next_day() -> None:
        rig.clock.micros += DAY

    with closing(rig.open_target()) as target:
        lines = followed(Reader(rig, killed, next_day, rig.run, lambda: None), target)
    assert rig.feeds() == lines
    assert 2 == len({line["run_id"] for line in lines})


@pytest.mark.parametrize("line", [b"no json", b"[1]", b"null"])
def test_a_feed_that_somebody_spoilt_is_named(rig: Rig, target: Target, tmp_path: Path, line: bytes) -> None:
    run = rig.feeds()[0]["run_id"]
    (tmp_path / "backup" / keys.feed(run)).write_bytes(line + b"\n")
    with pytest.raises(TargetError, match=rf"{run}.ndjson: line 1"):
        list(changes(target, rig.clock))


def test_runs_of_one_second_are_in_order_too() -> None:
    moments = [1_790_000_000_000_000 + n for n in (0, 1, 17, 999_999, 1_000_000)]
    ids = [new_run_id(moment) for moment in moments]
    assert ids == sorted(ids)
    assert [f"2026-09-21 {name}" for name in ids] == [f"{keys.feed(name)[15:25]} {name}" for name in ids]
