"""Earlier TaskFiles: kept before each put that replaces one, found again for any moment, and pruned to the rules and never below them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.config.shape import History
from syncd.errors import TargetError, TaskError
from syncd.keys import SIDE, Layout, encode
from syncd.model import Kind, Report
from syncd.run.history import unkept
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.rig import DAY, Rig, TestClock

LAYOUT = Layout()
RULES = {"keep_last": 3, "keep_within": "7d"}


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    rules = {"history": {"keep_last": 1000}}
    return Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock, rules)


def edit(source: MemorySource, task: str, version: object) -> None:
    source.now += SECOND
    source.put("1", task, {"id": int(task), "version": version})


def history(rig: Rig, task: str = "1") -> dict[int, Any]:
    """What is kept of a task, by the moment it was replaced."""
    found = {LAYOUT.named(key): data for key, data in rig.files().items() if "/_history/" in key}
    return {each.at: orjson.loads(data).get("version") for each, data in found.items() if each and (each.project, each.task) == ("1", task)}


def at(rig: Rig, moment: int, task: str = "1") -> Any:
    """The version that stood then."""
    later = {when: version for when, version in history(rig, task).items() if when > moment}
    return later[min(later)] if later else rig.tasks()[f"1/{task}.json"]["version"]


class Faulty:
    """A Target of which one method fails for keys that hold a text."""

    def __init__(self, target: Any, method: str, text: str, error: Exception) -> None:
        self._target, self._method, self._text, self._error = target, method, text, error

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._target, name)
        if name != self._method:
            return real

        def call(key: str, *rest: Any) -> Any:
            if self._text in key:
                raise self._error
            return real(key, *rest)

        return call


def faulty(rig: Rig, method: str, text: str, error: Exception) -> Callable[..., Report]:
    """A Run on such a Target."""
    sound = rig.open_target

    def run(**options: Any) -> Report:
        rig.open_target = lambda: Faulty(sound(), method, text, error)
        try:
            return rig.run(**options)
        finally:
            rig.open_target = sound

    return run


@pytest.mark.parametrize("seed", range(2))
def test_every_moment_of_weeks_of_edits_can_be_had_back(rig: Rig, source: MemorySource, seed: int) -> None:
    chance = random.Random(seed)
    edit(source, "1", 0)
    edit(source, "2", 0)
    rig.run()
    stood = [(rig.clock.now(), 0)]
    for version in range(1, 31):
        rig.clock.wait(chance.uniform(1, 86_400))
        if chance.random() < 0.2:  # an edit that no Run saw
            edit(source, "1", f"{version}, unseen")
        edit(source, "1", version)
        stood.append((rig.clock.now(), stood[-1][1]))  # before the Run it is still the old one
        rig.run(Kind.FULL if chance.random() < 0.3 else None)
        stood.append((rig.clock.now(), version))
    assert [at(rig, moment) for moment, _ in stood] == [version for _, version in stood]
    assert len(history(rig)) == 30
    assert history(rig, "2") == {}


def test_nothing_is_kept_of_new_and_equal_tasks_and_without_rules(rig: Rig, source: MemorySource) -> None:
    edit(source, "1", 0)
    rig.run()
    source.now += SECOND
    source.put("1", "1", {"id": 1, "version": 0})
    rig.run()
    rig.run(Kind.FULL)
    assert history(rig) == {}
    rig.rules = {}
    edit(source, "1", 1)
    rig.run()
    assert history(rig) == {}


def test_nothing_is_put_when_its_history_can_not_be(rig: Rig, source: MemorySource) -> None:
    edit(source, "1", 0)
    edit(source, "2", 0)
    rig.run()
    edit(source, "1", 1)
    edit(source, "2", 1)
    report = faulty(rig, "copy", "1/1.json", TaskError("no room for its copy"))()
    assert [(failure.task, failure.error) for failure in report.failed] == [("1", "no room for its copy")]
    rig.clock.wait(1)
    assert (0, 1) == (at(rig, rig.clock.now(), "1"), at(rig, rig.clock.now(), "2"))
    assert rig.run().failed == []
    assert [0] == list(history(rig, "1").values()) == list(history(rig, "2").values())


def test_a_version_is_durable_before_its_key_is_put(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """A folder renames what waits in one go, in an order of its own: a power loss between two of them must cost neither version."""
    for task in range(1, 31):
        edit(source, str(task), 0)
    rig.run()
    for task in range(1, 31):
        edit(source, str(task), 1)
    put, folder = local.LocalTarget.put, tmp_path / "backup/1/_history"
    in_place: list[bool] = []

    def seen(target: local.LocalTarget, key: str, data: bytes) -> bytes:
        if "_" not in key:
            in_place.append(any(folder.glob(f"{key[2:-5]}/*.json")))
        return put(target, key, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.LocalTarget, "put", seen)
        assert rig.run().written == 30
    assert in_place == [True] * 30


@pytest.mark.parametrize("error", [TaskError("refused"), TargetError("gone")])
def test_a_put_that_fails_again_and_again_pushes_no_version_out(rig: Rig, source: MemorySource, error: Exception) -> None:
    for version in range(4):
        edit(source, "1", version)
        rig.run()
    edit(source, "1", 4)
    rig.rules = {"history": {"keep_last": 3}}
    for _ in range(5):
        assert faulty(rig, "put", "1/1.json", error)(kind=Kind.FULL).exit_code
    before = rig.clock.now()
    rig.run()
    rig.run(Kind.FULL)
    assert [1, 2, 3] == [version for _, version in sorted(history(rig).items())]
    assert (3, 4) == (at(rig, before), at(rig, rig.clock.now()))


def test_a_clock_that_stands_still_costs_no_version(rig: Rig, source: MemorySource) -> None:
    """A Source may give a task twice in one Run."""
    rig.clock.wait = lambda seconds: None  # type: ignore[method-assign]
    edit(source, "1", 0)
    rig.run()
    source.now += SECOND
    both = [source._task({"1": task}, "1") for task in _versions(source, 1, 2)]
    real = source.changes
    from syncd.sources.base import Batch

    source.changes = lambda *args, **kw: iter([Batch(tasks=[both[0]], cursor=source.now), Batch(tasks=[both[1]], cursor=source.now)])  # type: ignore[method-assign]
    rig.run()
    source.changes = real  # type: ignore[method-assign]
    assert [0, 1] == [version for _, version in sorted(history(rig).items())]


def _versions(source: MemorySource, *versions: int) -> list[Any]:
    made = []
    for version in versions:
        edit(source, "1", version)
        made.append(source.world["1"].tasks["1"])
    return made


def test_what_somebody_else_wrote_is_not_kept(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    edit(source, "1", 0)
    rig.run()
    (tmp_path / "backup/1/1.json").write_text('{"version": "foreign"}')
    rig.clock.wait(1)
    assert rig.run(Kind.FULL).healed == 1
    (tmp_path / "backup/1/1.json").unlink()
    assert rig.run(Kind.FULL).healed == 1
    assert history(rig) == {}


def test_what_was_moved_here_is_kept_all_the_same(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    edit(source, "1", 0)
    rig.run()
    path = tmp_path / "backup/1/1.json"
    path.write_bytes(path.read_bytes())  # other times, so another etag
    edit(source, "1", 1)
    rig.run(Kind.FULL)
    assert [0] == list(history(rig).values())


def test_a_file_that_a_lost_checkpoint_knew_is_kept(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    edit(source, "1", 0)
    rig.run()
    rig.state = tmp_path / "another"
    edit(source, "1", 1)
    rig.run(take_over=True)
    assert [0] == list(history(rig).values())


def test_a_reused_id_and_a_deleted_task_keep_their_history(rig: Rig, source: MemorySource) -> None:
    for version in (0, 1):
        edit(source, "1", version)
        edit(source, "2", version)
        rig.run()
    rig.clock.wait(1)
    before = rig.clock.now()
    del source.world["1"].tasks["1"]
    rig.run()
    assert [0] == list(history(rig).values())
    del source.world["1"].tasks["2"]
    edit(source, "2", "another task")
    report = rig.run()
    assert (1, 1) == (report.written, report.trashed)
    assert (1, "another task") == (at(rig, before, "2"), at(rig, rig.clock.now(), "2"))


def test_side_files_have_their_own_history(rig: Rig, source: MemorySource) -> None:
    masks = [f"1{SIDE}{name}" for name in ("json", "a.json", "m.png")]
    for version in range(3):
        edit(source, "1", version)
        for mask in masks:
            source.put("1", mask, f"{mask[2:]} {version}".encode())
        rig.run()
        rig.clock.wait(86_400)
    found = {LAYOUT.named(key): data for key, data in rig.files().items() if "/_history/" in key}
    for mask in masks:
        assert [f"{mask[2:]} {v}".encode() for v in range(2)] == [
            data for each, data in sorted(found.items(), key=lambda item: item[0].at if item[0] else 0) if each and each.task == mask
        ]
    rig.rules = {"history": {"keep_last": 1}}
    rig.run(Kind.FULL)
    left = [LAYOUT.named(key) for key in rig.files() if "/_history/" in key]
    assert sorted(each.task or "" for each in left if each) == sorted(["1", *masks])


def test_hostile_ids_have_a_history_each(rig: Rig, source: MemorySource) -> None:
    hostile = ["", "..", "a/b", "a", "A", "x" * 300, "y" * 300, "_trash", "a.json", "con", "\udcff", "é", "e\u0301", "~", "%2e"]
    hostile += ["b", encode("y" * 300)]  # made to look like the long one, which is shortened so
    for version in range(3):
        source.now += SECOND
        for project in hostile:
            for task in hostile[::2]:
                source.put(project, task, {"id": f"{project!a} {task!a}", "version": version})
        rig.rules = {"history": {"keep_last": 1}}
        source.settings = lambda collection: {}  # type: ignore[method-assign]  # a title that is no text can't be kept
        assert rig.run().failed == []
    assert rig.run(Kind.FULL).failed == []
    kept = [orjson.loads(data) for key, data in rig.files().items() if "/_history/" in key]
    assert sorted(one["id"] for one in kept) == sorted(one["id"] for one in rig.tasks().values())
    assert {one["version"] for one in kept} == {1}


def test_a_full_run_prunes_by_the_rules_and_never_below(rig: Rig, source: MemorySource) -> None:
    """Two Collections of one task each: in a listing their histories are neighbours."""
    rig.rules = {"history": RULES, "overlap": "0s"}
    for version in range(12):
        edit(source, "1", version)
        source.put("2", "1", {"id": 1, "version": version})
        rig.run(Kind.INCREMENTAL if version else None)
        rig.clock.wait(86_400)
    rig.run(Kind.FULL)
    assert list(range(5, 11)) == [version for _, version in sorted(history(rig).items())]
    assert 12 == sum("/_history/" in key for key in rig.files())
    rig.clock.wait(30 * 86_400)
    rig.run(Kind.FULL)
    assert [8, 9, 10] == [version for _, version in sorted(history(rig).items())]
    rig.rules = {}
    rig.run(Kind.FULL)
    assert 6 == sum("/_history/" in key for key in rig.files()), "without rules nothing is pruned either"


def test_what_only_looks_like_trash_stops_no_run(rig: Rig) -> None:
    """Its day is none."""
    with closing(rig.open_target()) as target:
        target.put("1/_trash/2026-99-99/7.0123456789ab.json", b"mine")
        target.flush()
    assert rig.run(Kind.FULL).error == ""
    assert "1/_trash/2026-99-99/7.0123456789ab.json" in rig.files()


moments = st.lists(st.integers(0, 40 * DAY), unique=True, max_size=30)


@given(moments=moments, last=st.none() | st.integers(1, 8), within=st.none() | st.integers(1, 40).map(lambda days: days * 86400.0))
def test_pruning_goes_to_the_rules_and_never_below(moments: list[int], last: int | None, within: float | None) -> None:
    if last is None and within is None:
        return
    rules, now = History(keep_last=last, keep_within=within), 30 * DAY
    gone = set(unkept(moments, rules, now))
    for at in moments:
        newer = sum(at < other <= now for other in moments)
        by_number, by_age = last is not None and newer < last, within is not None and at > now - within * SECOND
        assert (at in gone) == (at <= now and not by_number and not by_age)
