"""The sentences of `syncd/sources/base.py`, executed against every Source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from syncd import encode
from syncd.errors import SourceError
from syncd.model import Collection, Gone
from syncd.sources.base import Source
from tests.fakes.folders import FilesWorld
from tests.fakes.follower import Follower
from tests.fakes.worlds import LabelboxWorld, LabelStudioWorld, MemoryWorld, World

WORLDS: dict[str, Callable[[Path], World]] = {
    "files": FilesWorld,
    "label_studio": LabelStudioWorld,
    "labelbox": LabelboxWorld,
    "memory": MemoryWorld,
}
SELECTING = {"label_studio", "labelbox", "files"}  # memory takes everything: the pipelines' tests need no selection
RESUMING = {"label_studio", "labelbox", "memory"}
MANY = 130  # tasks: several pages


class Stage:
    """A World with one Collection of MANY tasks, a Source of it, and somebody who follows that."""

    def __init__(self, make: Callable[[Path], World], folder: Path) -> None:
        (folder / "world").mkdir()
        self._folder = folder
        self.world = make(folder / "world")
        self.truth: dict[str, dict[str, Any]] = {}
        self.add(MANY)
        self.source = self.world.open({})
        self.cats = next(c for c in self.source.collections() if c.title == "Cats" or c.id == "Cats")
        self.follower = Follower(self.source, folder / "state", self.cats)

    def add(self, count: int) -> list[str]:
        data = [{"text": f"task {len(self.truth) + n}"} for n in range(count)]
        ids = self.world.add("Cats", *data)
        self.truth.update(zip(ids, data, strict=True))
        return ids

    def edit(self, task: str, **data: Any) -> None:
        self.truth[task] = data
        self.world.edit("Cats", task, data)

    def delete(self, *tasks: str) -> None:
        for task in tasks:
            del self.truth[task]
        self.world.delete("Cats", *tasks)

    def ids(self, *places: int) -> list[str]:
        order = list(self.truth)
        return [order[place] for place in places]

    def followed(self) -> bool:
        return {task: self.world.data(body) for task, body in self.follower.files.items()} == self.truth

    def close(self) -> None:
        self.follower.close()
        self.source.close()
        self.source.close()  # polite only: twice is once
        self.world.close()


@pytest.fixture(params=WORLDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(kind: str, tmp_path: Path) -> Iterator[Stage]:
    built = Stage(WORLDS[kind], tmp_path)
    yield built
    built.close()


def test_collections_are_all_there_with_unique_ids(stage: Stage) -> None:
    stage.world.add("Dogs", {"text": "a dog"})
    found = stage.source.collections()
    assert len({c.id for c in found}) == len(found) == 2
    assert {c.tasks for c in found} <= {None, MANY, 1}


def test_only_what_is_selected_by_id_or_title_pattern_is_listed(kind: str, stage: Stage) -> None:
    if kind not in SELECTING:
        pytest.skip("selects nothing")
    stage.world.add("Dogs", {"text": "a dog"})
    for patterns, expected in ((["C*"], ["Cats"]), ([stage.cats.id], ["Cats"]), (["4711"], []), ([], []), (["c*"], [])):
        source = stage.world.open({"projects": patterns})
        assert [c.title for c in source.collections()] == expected
        source.close()


def test_a_full_reading_yields_every_task_once_and_nothing_missing(stage: Stage) -> None:
    seen = stage.follower.run()
    assert sorted(seen.tasks) == sorted(stage.truth)
    assert stage.followed()
    assert (seen.missing, seen.failed) == ([], [])


def test_values_are_what_the_source_holds(stage: Stage) -> None:
    exact = {"f": 1e-320, "third": 0.1, "text": "\u0007\u202e\U0001f408é e\u0301", "n": 2**53 + 1, "empty": "", "none": None, "list": [[], {}]}
    (task,) = stage.world.add("Cats", exact)
    stage.follower.run()
    assert encode.dumps(stage.world.data(stage.follower.files[task])) == encode.dumps(exact)


def test_a_full_reading_names_everything_that_vanished(stage: Stage) -> None:
    stage.follower.run()
    gone = stage.ids(0, 1, 64, MANY - 1)
    stage.delete(*gone)
    seen = stage.follower.run(full=True)
    assert sorted(seen.missing) == sorted(gone)
    assert seen.gone == dict.fromkeys(gone, Gone.DELETED)
    assert stage.followed()


def test_a_reading_resumed_at_a_position_yields_the_rest_and_nothing_missing(kind: str, stage: Stage) -> None:
    if kind not in RESUMING:
        pytest.skip("can't resume")
    first = stage.follower.run(stop_after=2)
    stage.delete(first.tasks[0])
    rest = stage.follower.run(position=first.positions[-1])
    assert rest.tasks
    assert sorted(first.tasks + rest.tasks) == sorted([*stage.truth, first.tasks[0]])
    assert rest.missing == []


def test_an_incremental_reading_brings_what_was_edited_created_and_deleted(stage: Stage) -> None:
    stage.follower.run()
    stage.world.wait(3600)
    stage.edit(stage.ids(7)[0], text="edited")
    stage.add(3)
    stage.delete(*stage.ids(3, 90))
    stage.world.wait(3600)
    seen = stage.follower.run()
    assert stage.followed()
    assert len(seen.tasks) < MANY
    assert set(seen.gone.values()) == {Gone.DELETED}


def test_nothing_changed_means_no_bodies_and_nothing_missing(stage: Stage) -> None:
    stage.follower.run()
    stage.world.wait(3600)
    stage.follower.run()
    stage.world.wait(3600)
    seen = stage.follower.run()
    assert (seen.tasks, seen.missing, seen.failed) == ([], [], [])


def test_what_changes_while_a_reading_goes_on_is_in_the_next_one_even_without_overlap(stage: Stage) -> None:
    """The Cursor is taken before the first listing begins (I2)."""
    stage.world.wait(3600)
    reading = stage.source.changes(stage.cats, None, stage.follower.known)
    first = next(batch for batch in reading if batch.tasks)
    stage.world.wait(5)
    stage.edit(first.tasks[0].id, text="edited behind the reader")
    rest = list(reading)
    cursor = next((batch.cursor for batch in [first, *rest] if batch.cursor is not None), None)
    assert cursor is not None
    again = [task.id for batch in stage.source.changes(stage.cats, cursor, stage.follower.known) for task in batch.tasks]
    assert first.tasks[0].id in again


def test_every_batch_of_a_reading_carries_the_same_cursor_or_none(stage: Stage) -> None:
    cursors = {batch.cursor for batch in stage.source.changes(stage.cats, None, stage.follower.known)}
    assert len(cursors - {None}) == 1


def test_a_task_that_cannot_be_read_fails_by_its_own_and_comes_when_it_can(stage: Stage) -> None:
    (bad,) = stage.ids(40)
    stage.world.spoil("Cats", bad)
    seen = stage.follower.run()
    assert [failure.task in {bad, None} for failure in seen.failed] == [True]
    assert seen.failed[0].error
    assert sorted(seen.tasks) == sorted(stage.truth.keys() - {bad})
    assert seen.missing == []


def test_a_failure_is_told_again_until_it_is_over(stage: Stage) -> None:
    stage.follower.run()
    (bad,) = stage.ids(40)
    stage.world.wait(3600)
    stage.edit(bad, text="edited")
    stage.world.spoil("Cats", bad)
    for _ in range(2):
        stage.world.wait(3600)
        seen = stage.follower.run()
        assert len(seen.failed) == 1
        assert seen.missing == []


@pytest.mark.parametrize("full", [True, False])
def test_a_source_that_is_down_raises_while_iterating_and_proves_nothing(full: bool, stage: Stage) -> None:
    stage.follower.run()
    stage.world.go_down()
    with pytest.raises(SourceError):
        stage.follower.run(full=full)
    stage.world.come_back()
    assert stage.follower.run(full=full).missing == []


def down_calls(source: Source, cats: Collection, task: str) -> list[Callable[[], object]]:
    return [source.collections, lambda: source.confirm(cats, [task]), lambda: source.confirm_collection(cats), lambda: source.settings(cats)]


def test_a_source_that_is_down_answers_no_question(stage: Stage) -> None:
    stage.follower.run()
    stage.world.go_down()
    for call in down_calls(stage.source, stage.cats, stage.ids(0)[0]):
        with pytest.raises(SourceError):
            call()


def test_confirm_names_the_proved_ones_only(stage: Stage) -> None:
    stage.follower.run()
    here, gone = stage.ids(0, 1)
    stage.delete(gone)
    assert stage.source.confirm(stage.cats, [here, gone]) == {gone: Gone.DELETED}
    assert stage.source.confirm(stage.cats, []) == {}


def test_a_collection_is_gone_only_when_it_is(stage: Stage) -> None:
    stage.world.add("Dogs", {"text": "a dog"})
    dogs = next(c for c in stage.source.collections() if c.id != stage.cats.id)
    assert stage.source.confirm_collection(dogs) is False
    stage.world.remove("Dogs")
    assert stage.source.confirm_collection(dogs) is True
    assert stage.source.confirm_collection(stage.cats) is False
    assert [c.id for c in stage.source.collections()] == [stage.cats.id]


def test_settings_change_when_somebody_changes_them_and_not_by_work(stage: Stage) -> None:
    before = encode.dumps(stage.source.settings(stage.cats))
    stage.edit(stage.ids(0)[0], text="edited")
    stage.add(2)
    assert encode.dumps(stage.source.settings(stage.cats)) == before
    if stage.world.configure("Cats"):
        assert encode.dumps(stage.source.settings(stage.cats)) != before


def test_changes_may_run_in_another_thread(stage: Stage) -> None:
    found: list[str] = []
    reader = threading.Thread(
        target=lambda: found.extend(t.id for batch in stage.source.changes(stage.cats, None, stage.follower.known) for t in batch.tasks)
    )
    reader.start()
    reader.join(30)
    assert sorted(found) == sorted(stage.truth)


def test_requests_only_grow(stage: Stage) -> None:
    before = stage.source.requests
    stage.follower.run()
    assert stage.source.requests > before >= 0
