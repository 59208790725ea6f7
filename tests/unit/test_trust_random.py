"""The same stories, and a person in them who verifies, repairs, restores what is and what was, and makes a lost Checkpoint anew; and bits that flip,
files that are nobody's and clocks that jump.
"""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from random import Random
from typing import cast

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from syncd import encode
from syncd.checkpoint import sqlite
from syncd.checkpoint.sqlite_file import UnusableError
from syncd.keys import Layout
from syncd.model import Kind, Report, Status
from syncd.targets import local
from syncd.upkeep.asof import Question, find
from syncd.upkeep.restore import to_folder
from tests.fakes.flips import AT
from tests.fakes.mortal import Died, Life
from tests.fakes.tamper import EVERYTHING, Desk
from tests.soak.places import flip
from tests.unit.test_run_random import NUMBERS, PROJECTS, SETTINGS, Story, _tasks


class TrustStory(Story):
    """untold: files whose put no feed tells of, since the Checkpoint that knew of it was lost; orphans: files whose task only that one knew."""

    desk = Desk

    @initialize()
    def trust(self) -> None:
        self.moments: list[tuple[int, dict[str, bytes]]] = []
        self.untold: set[tuple[str, bytes]] = set()
        self.orphans: set[str] = set()
        self.foreign: dict[str, bytes] = {}
        self.garbage = {b"{}", b"garbage\n"}  # what a file was made to hold by others
        self.lossy = False  # bytes were lost behind syncd's back, or by a rule: not all that was can be had
        self.orphan_plan = ""
        self.straight = True  # the clock never went back

    # what goes wrong

    @rule(number=NUMBERS, at=st.integers(0, 200), bit=st.integers(0, 7))
    def flip_a_bit(self, number: int, at: int, bit: int) -> None:
        if files := _tasks(self.files()).keys() - self.foreign.keys():
            key = sorted(files)[number % len(files)]
            spoilt = bytearray(self.files()[key] or b"{")
            spoilt[at % len(spoilt)] ^= 1 << bit
            self.desk_path(key, bytes(spoilt))
            self.silent.add(key)
            self.versions.setdefault(key, set()).add(bytes(spoilt))
            self.garbage.add(bytes(spoilt))
            self.lossy = True

    @rule(number=NUMBERS, data=st.sampled_from([None, b"{}", b"garbage\n"]))
    def meddle(self, number: int, data: bytes | None) -> None:
        super().meddle(number, data)
        self.lossy = True

    @rule(project=PROJECTS)
    def leave_a_foreign_file(self, project: str) -> None:
        self.count += 1
        key = f"{project}/notes of {self.count}.txt"
        self.foreign[key] = f"somebody's {self.count}".encode()
        self.desk_path(key, self.foreign[key])

    @rule(seconds=st.sampled_from([-7200, -61, 61, 7200]))
    def step_the_clock(self, seconds: int) -> None:
        self.rig.clock.micros += seconds * 1_000_000
        self.straight &= seconds > 0  # the order of moments is all that tells what was when

    @rule(lost=st.booleans(), seed=st.integers(0, 10**6))
    def spoil_the_checkpoint(self, lost: bool, seed: int) -> None:
        path = self.folder / "state/checkpoint.sqlite"
        if not path.exists():
            return
        if lost:
            shutil.rmtree(self.rig.state)
        else:
            flip(path, Random(seed))
        before = self.files()
        self.forget(before)
        self.rebuild()
        self.nothing_lost(before, self.files())
        self.forget(self.files())

    # what a person does

    @rule(source=st.booleans())
    def verify(self, source: bool) -> None:
        before = self.files()
        lines = self.person.verify(read=EVERYTHING, source=source)
        assert before == self.files(), "verifying changed something"
        if source and not lines:
            expected = self.expected()
            kept = {line["key"] for line in self.rig.feeds() if line["op"] == "keep"}
            assert {key: data for key, data in _tasks(before).items() if key not in kept - expected.keys()} == expected, "verify found nothing wrong"

    @rule(confirm=st.booleans())
    def repair(self, confirm: bool) -> None:
        before = self.files()
        lines = self.person.verify(read=EVERYTHING, source=True)
        done = self.person.repair(lines, self.orphan_plan if confirm else "")
        now = self.files()
        self.repaired(before, now)
        self.orphan_plan = done.guard.plan_id if done.guard else ""
        self.plan = done.report.plan_id or self.plan
        self.unclean = done.report.status is Status.FAILED
        self.doubtful = {(failure.project, failure.task) for failure in done.report.failed}
        if done.report.status is Status.OK and not done.guard:
            self.silent.clear()
            left = [line for line in self.person.verify(read=EVERYTHING, source=True) if line.key not in self.foreign]
            kept = self.rig.rules["on_delete"] == "keep"  # what is gone and was kept, spoilt as it may be, is all there is
            assert all(kept and line.key not in self.expected() for line in left), f"repaired, and yet: {left}"

    @rule(k=st.integers(1, 30), after=st.booleans())
    def die_while_repairing(self, k: int, after: bool) -> None:
        before = self.files()
        lines = self.person.verify(read=EVERYTHING, source=True)
        with suppress(Died):
            self.person.repair(lines, life=Life(k, after=after))
        self.repaired(before, self.files(), died=True)
        self.unclean = True

    @rule()
    def restore(self) -> None:
        present, again = self.files(), self.folder / "again"
        whole = {key: data for key, data in _tasks(present).items() if data.startswith(b"{") and data.endswith(b"}\n")}
        if not whole:
            return
        shutil.rmtree(again, ignore_errors=True)
        folder = local.open(local.Config(type="local", path=again), self.rig.clock)
        with closing(self.open_target()) as target, closing(folder):
            to_folder(find(target, Layout(), self.rig.clock, Question()), folder, Layout(), {}, force=False, on_progress=None)
        restored = {str(path.relative_to(again)): path.read_bytes() for path in again.rglob("[0-9]*.json")}
        assert restored.items() <= _tasks(present).items()
        assert whole.items() <= restored.items() | {(key, data) for key, data in whole.items() if key in self.silent}
        assert self.files() == present

    @rule(number=NUMBERS)
    def restore_what_was(self, number: int) -> None:
        if not self.moments or not self.straight:
            return
        at, then = self.moments[number % len(self.moments)]
        with closing(self.open_target()) as target:
            found = [each for each in find(target, Layout(), self.rig.clock, Question(at=at)) if each.task is not None] if then else []
        for each in found:
            tampered = each.key in self.taken or then.get(each.key) in self.garbage  # what syncd put is better than what stood there
            assert each.data is None or tampered or then.get(each.key) == each.data, f"{each.key} is taken for what it was, and is another version"
        if "history" in self.rig.rules and not self.lossy:
            put = {line["key"] for line in self.rig.feeds() if line["op"] == "put"}  # a put of a Run that died may be told by none: see `told`
            assert {each.key for each in found if each.data is not None} >= then.keys() & put, [each for each in found if each.data is None]

    # what must hold

    def after(self, kind: Kind | None, life: Life | None = None, **options: object) -> None:
        self.lossy |= self.rig.rules["on_delete"] == "delete" or bool(self.taken)
        super().after(kind, life, **options)
        if not self.unclean and not self.doubtful:
            self.moments.append((self.rig.clock.now(), _tasks(self.files())))

    def nothing_lost(self, before: dict[str, bytes], now: dict[str, bytes]) -> None:
        super().nothing_lost(before, now)
        assert self.foreign.items() <= now.items(), "a foreign file was touched"

    def repaired(self, before: dict[str, bytes], now: dict[str, bytes], *, died: bool = False) -> None:
        """What stood in a task's place and was not known to be right may be out of the way when a repair dies: then it is in the trash."""
        moved = {key for key, data in _tasks(before).items() if now.get(key) != data and (data in self.garbage or (died and key not in now))}
        self.nothing_lost({key: data for key, data in before.items() if key not in moved}, now)
        trash = {data for key, data in now.items() if "/_trash/" in key}
        for key in moved:
            deleted = self.rig.rules["on_delete"] == "delete" and key not in self.expected()
            assert before[key] in trash or deleted, f"{key} held bytes that are lost"
        self.untold |= set(_tasks(now).items())  # a repair is told like a Run, but for files that it only records anew
        self.orphans -= self.orphans - now.keys()

    def told(self, now: dict[str, bytes]) -> None:
        held, self.silent = self.silent, self.silent | {key for key, data in _tasks(now).items() if (key, data) in self.untold}
        super().told(now)
        self.silent = held

    def equal(self, report: Report, now: dict[str, bytes], names: list[tuple[str, str | None]]) -> None:
        super().equal(report, {key: data for key, data in now.items() if key not in self.orphans or key in self.expected()}, names)

    def forget(self, files: dict[str, bytes]) -> None:
        """Nobody knows any more what only the Checkpoint knew."""
        self.untold |= set(_tasks(files).items())
        self.orphans |= _tasks(files).keys() - self.expected().keys()
        self.taken |= self.versions.keys() - files.keys()
        self.replaced.clear()
        self.moments.clear()
        self.unclean, self.lossy, self.plan = True, True, ""

    def rebuild(self) -> None:
        """As a person does it: keep the old one aside when it will not do, and run in full; the place is ours whatever its name is now."""
        for _ in range(3):
            with suppress(UnusableError):
                report = self.rig.run(Kind.FULL, take_over=True)
                poisoned = any(task.poison for home in self.source.world.values() for task in home.tasks.values())
                assert report.status in {Status.OK, Status.GUARDED} or (poisoned and report.status is Status.PARTIAL), report
                return
            sqlite.set_aside(self.rig.state, AT, force=True)
        raise AssertionError("no new Checkpoint can be made")

    @property
    def person(self) -> Desk:
        return cast("Desk", self.rig)

    def expected(self) -> dict[str, bytes]:
        return {Layout().task(project, task): encode.dumps(body) for (project, task), body in self.source.expected().items()}

    def desk_path(self, key: str, data: bytes) -> None:
        path = self.person.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


TestTrustStory = TrustStory.TestCase
TestTrustStory.settings = SETTINGS
