"""Die before and after the k-th side effect, for every k, on every kind of Target; and by real SIGKILLs at random moments.

On stores `make test` takes every second k, before and after in turn; `make test-live` takes all, and more SIGKILLs.
After each death one Run makes the Target equal to the Source, whole, without litter, with nothing lost and nothing put twice without need.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from syncd import encode
from syncd.model import Report, Status
from syncd.sources import files
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import KINDS, Rig, TestClock, new_place

KILLS = int(os.environ.get("SYNCD_KILLS", "4"))
LIVE = os.environ.get("SYNCD_LIVE")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def first_run(source: MemorySource) -> None:
    source.page = 3
    source.add("1", 6)


def later_run(source: MemorySource) -> None:
    """An edit, a new task, a deletion, a reused id and changed settings at once."""
    source.now += SECOND
    source.put("1", "2", {"id": 2, "edited": True})
    source.add("1", 1, first=20)
    del source.world["1"].tasks["3"]
    del source.world["1"].tasks["6"]
    source.put("1", "6", {"id": 6, "another": "task"})
    source.world["1"].settings["label_config"] = "<View><Choices/></View>"


def check(rig: Rig, source: MemorySource, report: Report) -> None:
    assert (Status.OK, "", []) == (report.status, report.error, report.failed)
    assert rig.tasks() == rig.expected(source.expected().items())
    litter = [key for key in rig.files() if key.startswith("_syncd/") and key != "_syncd/owner.json" and not key.startswith("_syncd/changes/")]
    assert litter == []
    told = {(line["project"], line["task"], line["digest"]) for line in rig.feeds() if line["op"] == "put"}
    assert told >= {
        ("1", key.removeprefix("1/").removesuffix(".json"), encode.digest(data).hex()) for key, data in rig.files().items() if key[2:3].isdigit()
    }


def old(rig: Rig, folder: str) -> list[bytes]:
    """What is kept there, each as often as it is."""
    return sorted(data for key, data in rig.files().items() if folder in key)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("change", [first_run, later_run])
def test_dying_at_every_side_effect(change: Callable[[MemorySource], None], after: bool, kind: str, url: str, tmp_path: Path) -> None:
    def prepare(name: str) -> tuple[Rig, MemorySource]:
        source = MemorySource()
        rig = Rig(source, new_place(kind, url, tmp_path).open, tmp_path / name, rules={"history": {"keep_last": 5}})
        first_run(source)
        if change is later_run:
            rig.run()
            later_run(source)
        return rig, source

    rig, source = prepare("whole")
    life = Life()
    check(rig, source, rig.run(life=life))
    assert life.effects > 10
    trash, history = old(rig, "/_trash/"), old(rig, "/_history/")
    assert len(history) == (2 if change is later_run else 0)
    step = 1 if kind == "local" or LIVE else 2
    for k in range(step - after * (step - 1), life.effects + 1, step):
        rig, source = prepare(f"{k}")
        with suppress(Died):
            rig.run(life=Life(k, after=after))
        check(rig, source, rig.run())
        assert (trash, history) == (old(rig, "/_trash/"), old(rig, "/_history/")), k
        again = rig.run()
        assert (0, 0, 0) == (again.written, again.trashed, again.target_requests), k


def _run_of_files(exports: Path, place: Path) -> tuple[Rig, Report]:
    """One Run, as a process of its own would do it."""
    clock = TestClock(time.time_ns() // 1000)
    source = files.open(files.Config(type="files", path=exports), {}, clock)
    rig = Rig(source, lambda: local.open(local.Config(type="local", path=place / "backup"), clock), place / "state", clock)
    return rig, rig.run()


def _killed_after(seconds: float, exports: Path, place: Path) -> bool:
    """Start a first Run in a process and kill it; False when it was over before."""
    process = multiprocessing.get_context("fork").Process(target=_run_of_files, args=(exports, place))
    process.start()
    process.join(seconds)
    killed = process.is_alive()
    if killed:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return killed


def test_real_sigkills_at_random_moments(tmp_path: Path) -> None:
    """SYNCD_KILLS processes die in a first Run of 3,000 tasks (100 in CI)."""
    exports = tmp_path / "exports"
    (exports / "p").mkdir(parents=True)
    bodies = {str(n): {"id": n, "data": {"text": "x" * 100}, "annotations": [{"id": n, "result": []}]} for n in range(1, 3001)}
    for id_, body in bodies.items():
        (exports / f"p/{id_}.json").write_bytes(encode.dumps(body))
    seed = random.randrange(10**9)
    print("seed", seed)
    moments = random.Random(seed)
    begun = time.monotonic()
    _run_of_files(exports, tmp_path / "whole")
    longest, died = time.monotonic() - begun, 0
    while died < KILLS:
        place, moment = tmp_path / "place", moments.uniform(0, longest)
        if not _killed_after(moment, exports, place):
            longest = moment  # it is faster than thought
            shutil.rmtree(place)
            continue
        died += 1
        backup = place / "backup"
        before = len(list((backup / "p").glob("[0-9]*.json")))
        rig, report = _run_of_files(exports, place)
        assert (Status.OK, "") == (report.status, report.error)
        assert rig.tasks() == {f"p/{id_}.json": body for id_, body in bodies.items()}
        assert list((backup / "_syncd/tmp").iterdir()) == []
        assert before + report.written <= 4500
        shutil.rmtree(place)
