"""A first Run is killed: the next one goes on at once, reads hardly anything twice, and what stands in the Target is whole and told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from syncd.model import Kind, Status
from syncd.targets import local
from syncd.targets.base import Target
from tests.fakes.memory import MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import Rig, TestClock

PAGE, TASKS = 5, 300
IN_FLIGHT = 8  # pages: 2 read ahead, the one being offered, 4 put or recorded, the one that died


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(PAGE)
    source.add("1", TASKS)
    return source


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path, calls: list[str]) -> Rig:
    clock = TestClock()

    class Spy:
        def __init__(self, inner: Target) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            if name in {"list", "put", "put_stream"}:
                calls.append(name)  # each is called where it is looked up
            return getattr(self._inner, name)

    return Rig(
        source, lambda: cast("Target", Spy(local.open(local.Config(type="local", path=tmp_path / "backup"), clock))), tmp_path / "state", clock
    )


def killed(rig: Rig, source: MemorySource, k: int = 200) -> int:
    """How many files stand there after a first Run that died at its k-th effect."""
    with suppress(Died):
        rig.run(life=Life(k))
    standing = len(rig.tasks())
    assert IN_FLIGHT * PAGE < standing < TASKS
    return standing


def whole(rig: Rig, source: MemorySource) -> bool:
    told = {(line["key"], line["digest"]) for line in rig.feeds() if line["op"] == "put"}
    return rig.tasks() == rig.expected(source.expected().items()) and {key for key, _ in told} >= rig.tasks().keys()


@pytest.mark.parametrize("k", [150, 200, 250, 299])
def test_what_was_empty_is_not_listed_and_hardly_anything_is_read_or_put_again(k: int, rig: Rig, source: MemorySource, calls: list[str]) -> None:
    standing = killed(rig, source, k)
    calls.clear()
    report = rig.run()
    assert (Status.OK, Kind.FULL) == (report.status, report.kind)
    assert "list" not in calls
    assert calls.index("put") < calls.index("put_stream"), "the killed Run's feed waits until the new puts are done"
    assert standing + report.written <= TASKS + IN_FLIGHT * PAGE
    assert len(source.reads) <= TASKS + IN_FLIGHT * PAGE
    assert whole(rig, source)
    assert (0, 0) == (rig.run().written, rig.run().target_requests)
    calls.clear()
    assert 0 == rig.run(Kind.FULL).written
    assert "list" in calls


def test_what_stood_there_before_is_listed_and_not_put_again(rig: Rig, source: MemorySource, tmp_path: Path, calls: list[str]) -> None:
    """The Checkpoint was lost, and its first pass is killed, too."""
    rig.run()
    for left in rig.state.iterdir():
        left.unlink()
    calls.clear()
    with suppress(Died):
        rig.run(life=Life(30), take_over=True)
    report = rig.run(take_over=True)
    assert (Status.OK, 0, True) == (report.status, report.written, report.adopted > 0)
    assert calls.count("list") >= 2
    assert calls.count("put") <= 2, "the owner's marker alone"


def test_an_edit_of_what_was_put_and_not_recorded_leaves_the_earlier_version_in_the_history(rig: Rig, source: MemorySource, calls: list[str]) -> None:
    rig.rules["history"] = {"keep_last": 5}
    killed(rig, source)
    (before,) = {max(rig.tasks(), key=lambda key: int(key[2:-5]))}
    old = rig.files()[before]
    source.now += 1
    source.put("1", before[2:-5], {"id": 1, "edited": True})
    calls.clear()
    rig.run()
    assert "list" in calls
    assert whole(rig, source)
    assert old in [data for key, data in rig.files().items() if "/_history/" in key]


def test_a_pass_that_is_killed_again_and_again_ends(rig: Rig, source: MemorySource) -> None:
    for _ in range(6):
        with suppress(Died):
            rig.run(life=Life(60))
    assert rig.run().status is Status.OK
    assert whole(rig, source)
    assert len(source.reads) <= TASKS + 7 * IN_FLIGHT * PAGE
