"""An in-memory Source for Runs whose world must be exact: a few hundred tasks, edits, deletions, late commits, and faults on command.

It keeps the Source Protocol's promises (the contract suite runs against it). Faults are planned by name with `fail`; `assert_all_failed` shows that
each planned one really happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncd.keys import is_side
from syncd.known import Known
from syncd.model import Collection, Counts, Failure, Gone, Revision, Task
from syncd.retry import Failed
from syncd.sources.base import Batch

SECOND = 1_000_000


@dataclass
class MemoryTask:
    created_at: int
    last_activity: int
    body: dict[str, object] | bytes
    poison: str = ""


@dataclass
class MemoryCollection:
    title: str
    created_at: int = 1
    tasks: dict[str, MemoryTask] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=lambda: {"label_config": "<View/>"})


class MemorySource:
    """One world. `now` is the Source's own clock, moved by the test."""

    waits = True

    def __init__(self, page: int = 50) -> None:
        self.page = page
        self.now = 1_000 * SECOND
        self.world: dict[str, MemoryCollection] = {}
        self.requests, self.failed = 0, Failed()
        self.reads: list[str] = []  # ids of the bodies handed out
        self.counting: Callable[[MemoryCollection], tuple[int, ...]] = lambda _: ()  # the counters that the list of Collections shows
        self._faults: list[tuple[str, int, BaseException]] = []
        self._calls: dict[str, int] = {}

    # the world

    def add(self, project: str, count: int, *, first: int = 1) -> None:
        """Tasks first .. first+count-1."""
        home = self.world.setdefault(project, MemoryCollection(f"Project {project}"))
        for number in range(first, first + count):
            self.put(project, str(number), {"id": number, "data": {"text": f"task {number} of {project}"}, "annotations": []})
        assert home.tasks

    def put(self, project: str, task: str, body: dict[str, object] | bytes, *, silent: bool = False) -> None:
        home = self.world.setdefault(project, MemoryCollection(f"Project {project}"))
        old = home.tasks.get(task)
        if silent and old is not None:
            old.body = body
            return
        home.tasks[task] = MemoryTask(old.created_at if old else self.now, self.now, body)

    def expected(self) -> dict[tuple[str, str], Any]:
        return {(p, t): task.body for p, home in self.world.items() for t, task in home.tasks.items() if not task.poison}

    # faults

    def fail(self, call: str, nth: int, error: BaseException) -> None:
        """The nth (from 1) `collections`, `page`, `confirm`, `confirm_collection` or `settings` raises `error`."""
        self._faults.append((call, self._calls.get(call, 0) + nth, error))

    def assert_all_failed(self) -> None:
        assert not self._faults, f"planned but never raised: {self._faults}"

    def _enter(self, call: str) -> None:
        self.requests += 1
        self._calls[call] = self._calls.get(call, 0) + 1
        for fault in self._faults:
            if fault[:2] == (call, self._calls[call]):
                self._faults.remove(fault)
                raise fault[2]

    # the Protocol

    def collections(self) -> list[Collection]:
        self._enter("collections")
        return [Collection(id_, home.title, home.created_at, len(home.tasks), self.counting(home)) for id_, home in self.world.items()]

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True, plan: bool = False
    ) -> Iterator[Batch]:
        cursor = self.now
        tasks = self.world[collection.id].tasks
        again = set(known.failing())
        order = sorted(tasks, key=_order)
        wanted = [id_ for id_ in order if since is None or tasks[id_].last_activity >= since or id_ in again]
        if position is not None:
            wanted = [id_ for id_ in wanted if _order(id_) > _order(position)]
        if since is not None:
            held = known.entries(wanted)
            wanted = [
                id_ for id_ in wanted if id_ not in held or held[id_].kept or held[id_].revision != self._task(tasks, id_).revision or id_ in again
            ]
        for start in range(0, len(wanted), self.page):
            self._enter("page")
            ids = wanted[start : start + self.page]
            self.reads += ids
            whole = [self._task(tasks, id_) for id_ in ids if not tasks[id_].poison]
            bad = [Failure(collection.id, id_, tasks[id_].poison, tasks[id_].last_activity) for id_ in ids if tasks[id_].poison]
            yield Batch(tasks=whole, failed=bad, position=ids[-1] if since is None else None, cursor=cursor)
        self._enter("page")
        missing = [] if position is not None else [id_ for id_ in [*known.all_ids(), *again] if id_ not in tasks]
        yield Batch(missing=missing, cursor=cursor)

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        self._enter("confirm")
        return {id_: Gone.DELETED for id_ in tasks if id_ not in self.world[collection.id].tasks}

    def confirm_collection(self, collection: Collection) -> bool:
        self._enter("confirm_collection")
        return collection.id not in self.world

    def settings(self, collection: Collection) -> dict[str, object]:
        self._enter("settings")
        return {"id": collection.id, "title": collection.title, **self.world[collection.id].settings}

    def close(self) -> None:
        pass

    @staticmethod
    def _task(tasks: dict[str, MemoryTask], id_: str) -> Task:
        task = tasks[id_]
        revision, counts = Revision(task.created_at, task.last_activity), Counts() if is_side(id_) else Counts(1, 0, 0)
        return Task(id_, revision, task.body, counts, volatile=isinstance(task.body, dict) and "mask" in task.body)


def _order(id_: str) -> tuple[int, int, str]:
    return (0, int(id_), "") if id_.isascii() and id_.isdigit() else (1, 0, id_)
