"""Many Collections whose list shows numbers: only those are looked at whose numbers moved, and nothing that a plain Run finds is lost by it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings

from syncd.checkpoint import sqlite
from syncd.errors import SourceError
from syncd.model import Collection, Kind, Status
from syncd.run import collections
from syncd.run.preview import plan_sync
from syncd.targets import local
from syncd.upkeep.repair import repair
from syncd.upkeep.verify import verify
from tests.fakes.memory import SECOND, MemoryCollection, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import Rig, TestClock
from tests.unit.test_run_random import SETTINGS, STORIES, Story

SOON, LATER = 10 * SECOND, 301 * SECOND  # drafts_every is 300 s


def tasks(home: MemoryCollection) -> tuple[int, ...]:
    return (len(home.tasks),)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MemorySource:
    monkeypatch.setattr(collections, "FEW", 1)
    source = MemorySource()
    source.counting = tasks
    source.add("1", 5)
    source.add("2", 5)
    return source


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    rig = Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock)
    rig.run()
    return rig


def looked_at(rig: Rig, source: MemorySource, kind: Kind | None = None) -> list[str]:
    """The Collections that a Run asks for their settings, which it does before it reads them."""
    asked: list[str] = []
    settings = source.settings

    def ask(collection: Collection) -> dict[str, object]:
        asked.append(collection.id)
        return settings(collection)

    source.settings = ask  # type: ignore[method-assign]
    rig.clock.micros += SOON
    source.now += SOON
    report = rig.run(kind)
    assert not report.error
    source.settings = settings  # type: ignore[method-assign]
    return asked


def test_only_what_moved_is_looked_at(rig: Rig, source: MemorySource) -> None:
    assert [] == looked_at(rig, source)
    source.add("2", 1, first=9)
    assert ["2"] == looked_at(rig, source)
    assert "2/9.json" in rig.tasks()
    assert [] == looked_at(rig, source)
    source.world["1"].title = "another"
    assert ["1"] == looked_at(rig, source)
    assert ["1", "2"] == looked_at(rig, source, Kind.FULL)
    requests = source.requests
    report = rig.run()
    assert (1, 0) == (source.requests - requests, report.target_requests)


def test_an_idle_run_writes_its_own_row_alone(rig: Rig) -> None:
    rig.run(life=(life := Life()))
    assert 2 == life.effects, "it begins and it ends"


def test_few_are_always_looked_at(rig: Rig, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "FEW", 2)
    assert ["1", "2"] == looked_at(rig, source)


def test_a_source_without_counters_is_always_looked_at(rig: Rig, source: MemorySource) -> None:
    source.counting = lambda _: ()
    for _ in range(2):
        assert ["1", "2"] == looked_at(rig, source)


def test_what_moves_no_number_is_looked_for_as_often_as_drafts_are(rig: Rig, source: MemorySource) -> None:
    source.now += SECOND
    source.put("1", "3", {"id": 3, "edited": True})
    assert [] == looked_at(rig, source)
    assert not list(plan_sync_lines(rig))
    rig.clock.micros += LATER
    assert ["~ 1/3"] == list(plan_sync_lines(rig))
    assert ["1", "2"] == looked_at(rig, source)
    assert rig.tasks() == rig.expected(source.expected().items())
    source.put("1", "4", {"id": 4, "edited": True})
    rig.rules["drafts_every"] = "0s"
    assert ["1", "2"] == looked_at(rig, source)
    assert rig.tasks() == rig.expected(source.expected().items())


def plan_sync_lines(rig: Rig) -> Iterator[str]:
    with closing(sqlite.open(rig.state)) as checkpoint, closing(rig.open_target()) as target:
        yield from (f"{line.sign} {line.project}/{line.task}" for line in plan_sync(rig.job(checkpoint, target)))


def test_a_change_after_the_list_was_asked_for_is_seen_by_the_next_run(rig: Rig, source: MemorySource) -> None:
    """The danger: the numbers remembered are of a moment after the change, and the look was before it."""
    changes = source.changes

    def late(*args: object, **options: object) -> object:
        yield from changes(*args, **options)  # type: ignore[arg-type]
        if "9" not in source.world["1"].tasks:
            source.add("1", 1, first=9)

    source.add("1", 1, first=8)
    source.changes = late  # type: ignore[method-assign,assignment]
    assert ["1"] == looked_at(rig, source)
    assert "1/9.json" not in rig.tasks()
    assert ["1"] == looked_at(rig, source)
    assert "1/9.json" in rig.tasks()


@pytest.mark.parametrize("k", range(1, 12))
def test_a_look_that_was_cut_short_is_repeated(k: int, rig: Rig, source: MemorySource) -> None:
    source.add("1", 1, first=9)
    source.world["1"].settings["label_config"] = "<View><Choices/></View>"
    try:
        rig.run(life=Life(k))
    except Died:
        assert "1" in looked_at(rig, source) or k > 9
    assert rig.tasks() == rig.expected(source.expected().items())
    assert [] == looked_at(rig, source)


def test_a_source_that_fails_in_a_look_is_asked_again(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1, first=9)
    source.fail("page", 1, SourceError("500"))
    assert Status.FAILED is rig.run().status
    assert ["1", "2"] == looked_at(rig, source), "any may have been put and not recorded"
    assert "1/9.json" in rig.tasks()
    assert [] == looked_at(rig, source)


@pytest.mark.parametrize("k", range(1, 12))
def test_what_a_killed_run_put_and_the_source_took_back_is_healed_though_the_numbers_are_as_before(k: int, rig: Rig, source: MemorySource) -> None:
    source.counting = labels
    rig.clock.micros += LATER
    assert (["1", "2"], []) == (looked_at(rig, source), looked_at(rig, source))
    before = source.expected()["1", "3"]
    source.now += SECOND
    source.put("1", "3", {**before, "annotations": [1]})
    with suppress(Died):
        rig.run(life=Life(k))
    source.now += SECOND
    source.put("1", "3", before)
    for _ in range(2):
        rig.run()
        rig.clock.micros += LATER
    assert rig.tasks() == rig.expected(source.expected().items())


def labels(home: MemoryCollection) -> tuple[int, ...]:
    return (len(home.tasks), sum(len(cast("list[int]", cast("dict[str, object]", task.body)["annotations"])) for task in home.tasks.values()))


def test_a_task_that_is_kept_makes_its_collection_looked_at_once_more(rig: Rig, source: MemorySource) -> None:
    rig.rules["on_delete"] = "keep"
    del source.world["1"].tasks["3"]
    assert 1 == rig.run().kept
    assert ["1"] == looked_at(rig, source)
    assert [] == looked_at(rig, source)
    source.add("1", 1, first=3)
    assert ["1"] == looked_at(rig, source)


def test_a_failure_is_told_until_it_is_over(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1, first=9)
    source.world["1"].tasks["9"].poison = "unreadable"
    for _ in range(3):
        assert ["9"] == [failure.task for failure in rig.run().failed]
    source.world["1"].tasks["9"].poison = ""
    assert ["1"] == looked_at(rig, source)
    assert "1/9.json" in rig.tasks()
    assert [] == looked_at(rig, source)


def test_settings_that_cannot_be_kept_are_told_each_time(rig: Rig, source: MemorySource) -> None:
    source.add("1", 1, first=9)
    source.world["1"].settings["label_config"] = "<View>\ud800"
    for _ in range(3):
        assert [("1", None)] == [(failure.project, failure.task) for failure in rig.run().failed]


def test_settings_that_are_mended_are_put_again(rig: Rig) -> None:
    right = rig.files()["1/_project.json"]
    with closing(rig.open_target()) as target:
        target.put("1/_project.json", b"spoilt")
    rig.clock.micros += SOON
    with closing(sqlite.open(rig.state)) as checkpoint, closing(rig.open_target()) as target:
        job = rig.job(checkpoint, target)
        assert 1 == repair(job, verify(job, read=1.0)).again
    assert right == rig.files()["1/_project.json"]


def test_deletions_that_the_guard_stops_are_told_each_time(rig: Rig, source: MemorySource) -> None:
    source.world["1"].tasks.clear()
    plans = {rig.run().plan_id for _ in range(3)}
    (plan,) = plans
    assert plan
    assert 5 == rig.run(confirm_deletes=plan).trashed
    assert ["1"] == looked_at(rig, source)
    assert [] == looked_at(rig, source)


def everything(home: MemoryCollection) -> tuple[int, ...]:
    seen = [(id_, task.created_at, task.last_activity, task.poison) for id_, task in home.tasks.items()]
    return (zlib.crc32(repr(seen).encode()),)


class QuietStory(Story):
    """Any story, where the list shows a number that all but silent edits move: each Run must do all that a plain one does."""

    def after(self, kind: Kind | None, life: Life | None = None, **options: Any) -> None:
        self.source.counting = everything
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(collections, "FEW", 0)
            super().after(kind, life, **options)


TestQuietStory = QuietStory.TestCase
TestQuietStory.settings = settings(SETTINGS, max_examples=max(STORIES // 4, 1))
