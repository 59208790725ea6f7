"""Any story a Source, a Target and a dying process can tell, and what must hold after each Run of it.

SYNCD_STORIES=1000 tells that many instead of the same few, and looks for the shortest one that fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from syncd import encode
from syncd.errors import SourceError, SyncdError, TargetError, TaskError
from syncd.keys import Layout
from syncd.model import Kind, Report, Status
from syncd.targets import local
from syncd.targets.base import Target
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.mortal import TARGET_EFFECTS, Died, Life, Mortal
from tests.fakes.rig import Rig, TestClock

STORIES = int(os.environ.get("SYNCD_STORIES", "60"))
LONG = "SYNCD_STORIES" in os.environ
PROJECTS = st.sampled_from(["1", "2"])
NUMBERS = st.integers(0, 30)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no story asks whether a disk keeps its word


class Trouble(Life):
    """One effect goes wrong, before or after it happened; the process lives on."""

    def __init__(self, k: int, error: SyncdError, *, after: bool) -> None:
        super().__init__(k, after=after)
        self._error = error

    def effect(self, act: Callable[[], Any]) -> Any:
        with self._lock:
            self.effects += 1
            now = self.effects == self._k
        if now and not self._after:
            raise self._error
        result = act()
        if now:
            raise self._error
        return result


class Story(RuleBasedStateMachine):
    """The world as the test knows it: every version each task ever had, which edits no Run but a full one can see, and what must be somewhere."""

    desk: type[Rig] = Rig

    @initialize(
        on_delete=st.sampled_from(["trash", "trash", "delete", "keep"]), size=st.integers(1, 12), page=st.integers(1, 5), history=st.booleans()
    )
    def begin(self, on_delete: str, size: int, page: int, history: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="syncd-story-", dir=MEMORY))
        self.source = MemorySource(page)
        clock = TestClock()
        self.rig = self.desk(self.source, self.open_target, self.folder / "state", clock, {"on_delete": on_delete, "max_delete": {"at_least": 2}})
        self.rig.rules |= {"history": {"keep_last": 1000}} if history else {}
        self.versions: dict[str, set[bytes]] = {}
        self.silent: set[str] = set()  # keys that only a full Run can make right
        self.replaced: set[tuple[str, bytes]] = set()  # files of tasks whose id another one has now
        self.taken: set[str] = set()  # keys whose file somebody removed
        self.unclean = False  # the last Run was killed or failed
        self.doubtful: set[tuple[str, str | None]] = set()  # what failed in the last Run
        self.plan = ""
        self.count = 0
        self.trouble: Trouble | None = None
        for _ in range(size):
            self.add("1", 0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def open_target(self) -> Target:
        target = local.open(local.Config(type="local", path=self.folder / "backup"), self.rig.clock)
        return target if self.trouble is None else cast("Target", Mortal(target, self.trouble, TARGET_EFFECTS))

    def body(self, task: str) -> dict[str, object]:
        self.count += 1
        return {"id": int(task), "version": self.count}

    def version(self, project: str, task: str) -> None:
        key = Layout().task(project, task)
        self.versions.setdefault(key, set()).add(encode.dumps(self.source.world[project].tasks[task].body))

    def some(self, project: str, number: int) -> str | None:
        tasks = self.source.world[project].tasks if project in self.source.world else {}
        return sorted(tasks)[number % len(tasks)] if tasks else None

    # what happens in the Source

    @rule(project=PROJECTS, late=st.sampled_from([0, 0, 300]))
    def add(self, project: str, late: int) -> None:
        self.source.now += SECOND
        self.count += 1
        task = str(self.count)
        self.source.put(project, task, self.body(task))
        self.source.world[project].tasks[task].last_activity -= late * SECOND  # committed only now
        self.version(project, task)

    @rule(project=PROJECTS, number=NUMBERS, silent=st.booleans())
    def edit(self, project: str, number: int, silent: bool) -> None:
        if task := self.some(project, number):
            self.source.now += SECOND
            self.source.put(project, task, self.body(task), silent=silent)
            self.version(project, task)
            if silent:
                self.silent.add(Layout().task(project, task))

    @rule(project=PROJECTS, number=NUMBERS)
    def edit_back(self, project: str, number: int) -> None:
        if task := self.some(project, number):
            self.source.now += SECOND
            oldest = min(self.versions[Layout().task(project, task)], key=_version)
            self.source.put(project, task, {"id": int(task), "version": _version(oldest)})

    @rule(project=PROJECTS, number=NUMBERS, again=st.booleans())
    def delete(self, project: str, number: int, again: bool) -> None:
        if task := self.some(project, number):
            self.source.now += SECOND
            del self.source.world[project].tasks[task]
            key = Layout().task(project, task)
            if again and not self.unclean and key not in self.silent and (project, task) not in self.doubtful:
                self.replaced.add((key, self.files().get(key, b"")))
            if again:
                self.source.put(project, task, self.body(task))
                self.version(project, task)

    @rule(project=PROJECTS, number=NUMBERS)
    def poison_or_heal(self, project: str, number: int) -> None:
        if task := self.some(project, number):
            self.source.now += SECOND
            found = self.source.world[project].tasks[task]
            found.poison, found.last_activity = ("" if found.poison else "unreadable"), self.source.now

    @rule(project=PROJECTS, again=st.booleans())
    def vanish(self, project: str, again: bool) -> None:
        if project in self.source.world:
            self.source.now += SECOND
            old = self.source.world.pop(project)
            if again:
                self.add(project, 0)
                self.source.world[project].created_at = old.created_at + 1

    @rule(seconds=st.integers(1, 2000))
    def pass_time(self, seconds: int) -> None:
        self.source.now += seconds * SECOND

    # what happens to the Target and the config

    @rule(number=NUMBERS, data=st.sampled_from([None, b"{}", b"garbage\n"]))
    def meddle(self, number: int, data: bytes | None) -> None:
        files = sorted(_tasks(self.files()))
        if files:
            key = files[number % len(files)]
            self.silent.add(key)
            path = self.folder / "backup" / key
            path.unlink() if data is None else path.write_bytes(data)
            self.taken |= {key} if data is None else set()
            self.versions.setdefault(key, set()).add(data or b"")

    @rule(on_delete=st.sampled_from(["trash", "delete", "keep"]))
    def decide_otherwise(self, on_delete: str) -> None:
        self.rig.rules["on_delete"] = on_delete

    # Runs

    @rule(kind=st.sampled_from([None, None, Kind.FULL]))
    def run(self, kind: Kind | None) -> None:
        self.after(kind)

    @rule()
    def confirm(self) -> None:
        self.after(None, confirm_deletes=self.plan)

    @rule(k=st.integers(1, 40), after=st.booleans(), kind=st.sampled_from([None, Kind.FULL]))
    def die(self, k: int, after: bool, kind: Kind | None) -> None:
        self.after(kind, life=Life(k, after=after))

    @rule(call=st.sampled_from(["collections", "page", "confirm", "confirm_collection", "settings"]), nth=st.integers(1, 4))
    def source_trouble(self, call: str, nth: int) -> None:
        self.source.fail(call, nth, SourceError("500"))
        self.after(None)
        self.source._faults.clear()

    @rule(k=st.integers(1, 20), task=st.booleans(), after=st.booleans(), kind=st.sampled_from([None, Kind.FULL]))
    def target_trouble(self, k: int, task: bool, after: bool, kind: Kind | None) -> None:
        self.trouble = Trouble(k, TaskError("not this one") if task else TargetError("503"), after=after and not task)
        self.after(kind)

    # what must hold

    def after(self, kind: Kind | None, life: Life | None = None, **options: Any) -> None:
        trouble, before = self.trouble, self.files()
        self.source.reads.clear()
        report: Report | None = None
        with suppress(Died):
            report = self.rig.run(kind, life, **options)
        self.trouble = None
        now = self.files()
        self.nothing_lost(before, now)
        if report is not None:
            self.true(report, before, now, trouble)
        self.unclean = report is None or report.status is Status.FAILED

    def files(self) -> dict[str, bytes]:
        return self.rig.files()

    def nothing_lost(self, before: dict[str, bytes], now: dict[str, bytes]) -> None:
        """Whole files only, each a version the Source had; what left its key is gone from the Source, and in the trash."""
        trash = {data for key, data in now.items() if "/_trash/" in key}
        kept = {Layout().named(key): data for key, data in now.items()}
        history = {(found.home, data) for found, data in kept.items() if found and found.where == "history"}
        world = {Layout().task(p, t): task for p, home in self.source.world.items() for t, task in home.tasks.items()}
        for key, data in _tasks(now).items():
            assert data in self.versions[key], f"{key} holds {data!r}, which the Source never had"
        for key, data in _tasks(before).items():
            if key not in now:
                assert key not in world, f"{key} was deleted without proof"
                assert data in trash or self.rig.rules["on_delete"] == "delete", f"{key} left no copy in the trash"
            elif now[key] != data and (key, data) in self.replaced:
                assert data in trash, f"{key} was another task's, and left no copy in the trash"
            if now.get(key, data) != data and "history" in self.rig.rules and key not in self.silent:
                assert (key, data) in history, f"{data!r} of {key} is not in the history"
        for key, data in history:
            assert data in self.versions[key], f"the history of {key} holds {data!r}, which the Source never had"

    def true(self, report: Report, before: dict[str, bytes], now: dict[str, bytes], trouble: Trouble | None) -> None:
        names = [(failure.project, failure.task) for failure in report.failed]
        assert len(names) == len(set(names)), f"one failure told twice: {names}"
        bad = {(p, t) for p, home in self.source.world.items() for t, task in home.tasks.items() if task.poison}
        changed = {key for key, data in _tasks(now).items() if before.get(key) != data}
        if report.status is not Status.FAILED:
            assert report.written + report.healed >= len(changed), report
        doubtful, self.doubtful = self.doubtful, set(names)
        if not self.unclean and not doubtful and report.status in {Status.OK, Status.GUARDED}:
            assert report.written + report.healed == len(changed), report
            assert report.trashed == len({key for key in now if "/_trash/" in key and "_project." not in key} - before.keys()), report
            assert report.trashed + report.deleted >= len(_tasks(before).keys() - now.keys()), report
        if report.guard:
            self.plan = report.plan_id
        if report.error:
            assert report.status is Status.FAILED
            return
        for project, (_, cursor) in report.cursors.items():
            held = [failure.last_activity or 0 for failure in report.failed if failure.project == project and failure.task]
            assert (cursor or 0) <= min(held, default=cursor or 0), f"the Cursor passed a failed task: {report}"
        if trouble is None:
            assert set(names) == bad, (names, bad)
        assert (report.status is Status.PARTIAL) == bool(report.failed and not report.guard), report
        if report.kind is Kind.FULL:  # all is read, unless a first pass was resumed
            self.silent -= {Layout().task(p, t) for p, t in self.source.expected() if t in self.source.reads and (p, t) not in names}
        self.equal(report, now, names)
        self.told(now)

    def failing(self, key: str, names: list[tuple[str, str | None]]) -> bool:
        return key in {Layout().task(project, task or "") for project, task in names}

    def equal(self, report: Report, now: dict[str, bytes], names: list[tuple[str, str | None]]) -> None:
        """Target == Source, but for what failed, what only a full Run can see, what the Guard holds back and what is kept."""
        expected = {Layout().task(p, t): encode.dumps(body) for (p, t), body in self.source.expected().items()}
        for key, data in expected.items():
            if key not in self.silent and not self.failing(key, names):
                assert now.get(key) == data, f"{key} is {now.get(key)!r}, should be {data!r}"
        kept = {line["key"] for line in self.rig.feeds() if line["op"] == "keep"}
        # what a killed Run put and could not record, and lost its task before the next Run, is known to nobody
        known = {line["key"] for line in self.rig.feeds() if line["op"] == "put"}
        extra = {key for key in (_tasks(now).keys() & known) - expected.keys() - kept if not self.failing(key, names)}
        assert report.guard or not extra, f"{extra} should be gone"

    def told(self, now: dict[str, bytes]) -> None:
        """Every put and deletion stands in some feed, but for a put that a dying Run could not record of a task that is gone since."""
        lines = self.rig.feeds()
        put = {(line["key"], line["digest"]) for line in lines if line["op"] == "put"}
        world = {Layout().task(project, task) for project, task in self.source.expected()}
        for key, data in _tasks(now).items():
            assert key in self.silent or key not in world or (key, encode.digest(data).hex()) in put, f"no feed tells the put of {key}"
        gone = {line["key"] for line in lines if line["op"] in {"trash", "delete"}}
        for key in self.versions.keys() - now.keys() - self.taken:
            assert key in gone or not any(line["key"] == key for line in lines), f"no feed tells the deletion of {key}"


def _tasks(files: dict[str, bytes]) -> dict[str, bytes]:
    return {key: data for key, data in files.items() if "/_" not in f"/{key}" and key.endswith(".json")}


def _version(data: bytes) -> int:
    try:
        return int(data.rpartition(b":")[2].strip(b"}\n"))
    except ValueError:
        return 10**9


SETTINGS = settings(
    max_examples=STORIES,
    stateful_step_count=25,
    deadline=None,
    derandomize=not LONG,
    phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)

TestStory = Story.TestCase
TestStory.settings = SETTINGS
