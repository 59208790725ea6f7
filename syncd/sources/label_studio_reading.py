"""One pass over one Label Studio project, full or incremental (section 4).

Rules:
- A body comes once per reading, and only when its Revision or its counts are not those the Checkpoint holds.
- What no timestamp shows is found by counting ranges of ids (`reconcile`), after a full reading, too: tasks may be committed behind the reader.
  What no count shows either is left to the full Run.
- Absence from a listing makes a candidate for deletion, no more; a task that is listed and not handed over is an error, never an absence (I4).
- A page the server fails on is halved until the task that causes it is alone: that one fails, the others go on.
- Memory stays flat: what was told and is recorded is not remembered.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

from syncd.encode import dumps
from syncd.errors import SourceError, TaskError
from syncd.known import Known
from syncd.model import Counts, Failure, Task
from syncd.reconcile import Range, differing
from syncd.scratch import chunks
from syncd.sources import label_studio_api as api
from syncd.sources.base import Batch
from syncd.sources.label_studio_api import Api, Page, Row
from syncd.sources.label_studio_snapshot import Portion

LEAF = 100  # tasks; listing so many costs about as much as three count probes
PORTION = 1000  # ids looked up at a time
TOLD = 5000  # ids remembered before those that are recorded are forgotten
FIRST_PAGE, LARGEST_PAGE, LARGEST_LIST = 20, 500, 200  # tasks; a list of ids must fit into a URL of 8 kB
PAGE_BYTES = 3_000_000
_NOTHING = Counts()
Shortcut = Callable[[int], Iterator[Portion]]


class _Pace:
    """How many tasks to ask for at a time, so that a page has a few megabytes whatever its tasks weigh."""

    def __init__(self) -> None:
        self.size = FIRST_PAGE
        self._ceiling = LARGEST_PAGE

    def learn(self, page: Page) -> None:
        """Pages shrink at once and grow at most four times at a step, since the next tasks may be heavier."""
        if page.tasks:
            fitting = PAGE_BYTES * len(page.tasks) // max(page.size, 1)
            self.size = max(1, min(fitting, len(page.tasks) * 4, self._ceiling))
            self._ceiling = min(LARGEST_PAGE, self._ceiling + self._ceiling // 8 + 1)

    def shrink(self) -> None:
        """The server failed on a page, perhaps for its weight and after minutes: pages grow again slowly."""
        self.size = self._ceiling = max(1, self.size // 4)


class Reading:
    """One pass over one project, with as many requests under way at once as there are lanes (threads of the pool)."""

    def __init__(self, source: Api, project: str, known: Known, pool: Executor, lanes: int, shortcut: Shortcut | None = None) -> None:
        """shortcut: the tasks after an id, all or some, in another way than by the list."""
        self._api = source
        self._project = project
        self._known = known
        self._pool = pool
        self._lanes = lanes
        self._shortcut = shortcut
        self._pace = _Pace()
        self._told: dict[int, Counts] = {}  # what this reading yielded and the Checkpoint may not hold yet; nothing for what is missing
        self._limit = TOLD
        self._suspects = _ids(known.failing())  # they are asked for apart, and tried once: perhaps only a person will mend them
        self._cursor: int | None = None
        self._begun = False

    def full(self, position: str | None) -> Iterator[Batch]:
        """Every body, in order of id. What happened behind `position` is left to the incremental reading that follows."""
        last = int(position or 0)
        for ids, tasks, failed in self._pages(last):
            top = ids[-1] if ids else last
            if position is None:
                yield from self._lacking(last + 1, top, ids)
            yield Batch(tasks, failed, position=str(top), cursor=self._cursor)
            last = top
        if position is None:
            yield from self._lacking(last + 1, self._known.last_id(), ())
            yield from self._failing()
            yield from self._counters()

    def incremental(self, since: int, *, drafts: bool) -> Iterator[Batch]:
        """What changed: dated, failing, undated, counted."""
        for rows in self._rows([api.changed_since(since)]):
            yield from self._bodies(self._changed(rows))
        yield from self._failing()
        if drafts:
            yield from self._drafts()
        yield from self._counters()
        yield Batch(cursor=self._cursor)

    def _pages(self, last: int) -> Iterator[tuple[list[int], list[Task], list[Failure]]]:
        """Every task after `last`: ids in order, tasks, and those that could not be read."""
        complete = False
        while not complete:
            ids, complete, tasks, failed = self._next(last)
            yield ids, tasks, failed
            last = ids[-1] if ids else last
            if self._shortcut and not complete:
                for portion in self._shortcut(last):
                    for some in chunks(portion.odd, LARGEST_LIST):
                        yield [], *self._read(some)
                    yield portion.ids, self._tell(portion.bodies), []
                    last = portion.ids[-1] if portion.ids else last
                self._shortcut = None

    def _next(self, last: int) -> tuple[list[int], bool, list[Task], list[Failure]]:
        """The page after `last`: its ids, whether it is the last one, its tasks and those that could not be read."""
        if self._lanes == 1:
            try:
                page = self._api.bodies(self._project, (), self._pace.size, last)
            except TaskError:
                self._pace.shrink()  # listed without bodies below, then halved
            else:
                self._begin(page)
                self._pace.learn(page)
                return [api.integer(body, "id") for body in page.tasks], page.complete, self._tell(page.tasks), []
        page, rows = self._api.rows(self._project, (), self._share(), last)
        self._begin(page)
        ids = [row.id for row in rows]
        return ids, page.complete, *self._read(ids)

    def _share(self) -> int:
        """How many bodies to ask for by their ids, in all lanes together."""
        return min(self._pace.size, LARGEST_LIST) * self._lanes

    def _begin(self, page: Page) -> None:
        """The first answer of a reading dates it (I2)."""
        if not self._begun:
            self._begun, self._cursor = True, page.asked_at

    def _rows(self, filters: Sequence[api.Filter]) -> Iterator[list[Row]]:
        """A flat listing, page by page, complete or SourceError."""
        last, complete = 0, False
        while not complete:
            page, rows = self._api.rows(self._project, filters, api.FLAT_PAGE, last)
            self._begin(page)
            yield rows
            last, complete = (rows[-1].id if rows else last), page.complete

    def _changed(self, rows: Sequence[Row]) -> list[int]:
        """Those whose body is not the one the Checkpoint holds, as far as numbers show."""
        entries = self._known.entries([str(row.id) for row in rows])

        def held(row: Row) -> bool:
            entry = entries.get(str(row.id))
            return entry is not None and not entry.kept and entry.revision == row.revision and entry.counts == row.counts

        return [row.id for row in rows if not self._told.get(row.id, _NOTHING).tasks and not held(row)]

    def _failing(self) -> Iterator[Batch]:
        """Tasks that failed in an earlier Run: once more, or gone, so that their failure ends and no longer holds the Cursor."""
        for ids in chunks(sorted(self._suspects - self._told.keys()), LARGEST_LIST):
            listed = {row.id for rows in self._rows([api.among(ids)]) for row in rows}
            yield from self._bodies(sorted(listed))
            yield from self._missing([task for task in ids if task not in listed])

    def _drafts(self) -> Iterator[Batch]:
        """A draft moves nothing that can be listed: every task that holds one, or did."""
        ids = {row.id for rows in self._rows([api.HAS_DRAFTS]) for row in rows}
        ids |= _ids(self._known.with_drafts())
        yield from self._bodies(sorted(ids - self._told.keys()))

    def _counters(self) -> Iterator[Batch]:
        """What no timestamp shows, found by counting."""
        whole = self._api.whole(self._project)
        told = sorted(self._told)
        whole = whole._replace(high=max(whole.high, self._known.last_id(), *told[-1:]))
        for part in differing(whole, partial(self._api.counts, self._project), partial(self._held, told), leaf=LEAF):
            yield from self._leaf(part)

    def _held(self, told: Sequence[int], low: int, high: int) -> Counts:
        """What the Checkpoint will count once it holds all this reading told; it may be committing right now."""
        ids = told[bisect_left(told, low) : bisect_right(told, high)]
        for _ in range(5):  # a commit in between would be counted once too often or not at all
            before = expected = self._known.counts(low, high)
            for some in chunks(ids, PORTION):
                entries = self._known.entries([str(task) for task in some])
                for task in some:
                    entry = entries.get(str(task))
                    live = _NOTHING if entry is None or entry.kept else entry.counts
                    expected = expected.plus(self._told.get(task, live)).minus(live)
            if not ids or self._known.counts(low, high) == before:
                break
        return expected

    def _leaf(self, part: Range) -> Iterator[Batch]:
        """List a range whose sums differ: fetch what is new or changed, name what is missing; all of it when that explains nothing."""
        listed, unchanged, low = Counts(0, 0, 0), list[int](), part.low
        for rows in self._rows(api.between(part.low, part.high)):
            ids = [row.id for row in rows]
            yield from self._lacking(low, ids[-1] if ids else low - 1, ids)
            low = ids[-1] + 1 if ids else low
            changed = self._changed(rows)
            unchanged += sorted(set(ids) - set(changed) - self._told.keys())
            for row in rows:
                listed = listed.plus(row.counts)
            yield from self._bodies(changed)
        yield from self._lacking(low, part.high, ())
        now = listed if listed == part.counts else self._api.counts(self._project, part.low, part.high)
        if now.tasks > listed.tasks:
            raise SourceError(f"project {self._project} counts {now.tasks} tasks and lists {listed.tasks}: its list is cut; nothing is deleted")
        if now != listed:
            # This server's totals are not the sums of its fields (or it is changing now): bodies decide, and count what they hold.
            yield from self._bodies(unchanged, counted=True)

    def _lacking(self, low: int, high: int, listed: Iterable[int]) -> Iterator[Batch]:
        """What the Checkpoint holds of a range and a complete listing of it lacks; in memory, as is whatever is missing from a Collection."""
        there = set(listed)
        yield from self._missing([task for task in map(int, self._known.ids(low, high)) if task not in there])

    def _missing(self, ids: Iterable[int]) -> Iterator[Batch]:
        new = [task for task in ids if task not in self._told]
        self._told.update(dict.fromkeys(new, _NOTHING))
        if new:
            yield Batch(missing=[str(task) for task in new], cursor=self._cursor)

    def _bodies(self, ids: Sequence[int], *, counted: bool = False) -> Iterator[Batch]:
        """Fetch exactly these; those that vanished meanwhile are left out. counted: see `task_of`."""
        rest = list(ids)
        while rest:
            some, rest = rest[: self._share()], rest[self._share() :]
            tasks, failed = self._read(some, counted=counted)
            yield Batch(tasks, failed, cursor=self._cursor)

    def _read(self, ids: Sequence[int], *, counted: bool = False) -> tuple[list[Task], list[Failure]]:
        """The bodies of these and what could not be read; over as many connections as there are lanes."""
        bodies: list[dict[str, object]] = []
        failed: list[Failure] = []
        apart = [[task for task in ids if (task in self._suspects) is suspect] for suspect in (False, True)]
        shares = [share for some in apart for share in chunks(some, max(1, -(-len(some) // self._lanes)))]
        for some, bad in self._pool.map(self._split, shares):
            bodies += some
            failed += bad
        if not bodies and len(failed) > 1:
            self._assure_healthy(set(ids))
        return self._tell(bodies, counted=counted), failed

    def _split(self, ids: Sequence[int]) -> tuple[list[dict[str, object]], list[Failure]]:
        """Halve what can't be read until the task that causes it is alone. Runs in any lane."""
        if len(ids) == 1:
            return self._one(ids[0])
        try:
            return self._together(ids), []
        except TaskError:
            self._pace.shrink()
            middle = len(ids) // 2
            (bodies, failed), (more_bodies, more_failed) = self._split(ids[:middle]), self._split(ids[middle:])
            return bodies + more_bodies, failed + more_failed

    def _together(self, ids: Sequence[int]) -> list[dict[str, object]]:
        """The bodies of these tasks; those that vanished meanwhile are left out. TaskError when the server keeps failing on them."""
        bodies: list[dict[str, object]] = []
        last, complete, tries = 0, False, 1 if ids[0] in self._suspects else api.TRIES
        while not complete:  # the server may limit its pages
            page = self._api.bodies(self._project, [api.among(ids)], len(ids), last, tries=tries)
            self._pace.learn(page)
            bodies += page.tasks
            last, complete = (api.integer(bodies[-1], "id") if bodies else last), page.complete
        lacking = set(ids) - {api.integer(body, "id") for body in bodies}
        if len(bodies) + len(lacking) != len(ids):
            raise SourceError(f"project {self._project} answered with other tasks than those asked for; nothing can be concluded from it")
        if lacking and self._api.rows(self._project, [api.among(sorted(lacking))], 1)[1]:
            raise SourceError(f"project {self._project} lists tasks that it does not hand over; nothing can be concluded from it")
        return bodies

    def _one(self, task: int) -> tuple[list[dict[str, object]], list[Failure]]:
        """A task that can be listed and, even then, not read is a Failure. SourceError when it can't be listed: the server is down."""
        for _ in range(1 if task in self._suspects else 2):
            try:
                return self._together([task]), []
            except TaskError as error:
                advice = "Label Studio can't hand this task over, perhaps for text that is no valid Unicode: correct or delete it there"
                failure = f"{advice} ({error})"
                _, rows = self._api.rows(self._project, [api.among([task])], 1)  # waits for a server that is down for a moment
        self._told.update((row.id, row.counts) for row in rows)
        return [], [Failure(self._project, str(row.id), failure, row.revision.last_activity) for row in rows]

    def _assure_healthy(self, failed: set[int]) -> None:
        """Several tasks failed and none was read: only a task beyond them tells bad tasks from a bad server; without one they are believed bad."""
        suspects = failed | _ids(self._known.failing())
        _, rows = self._api.rows(self._project, [], min(len(suspects) + 1, api.FLAT_PAGE))
        other = next((row.id for row in rows if row.id not in suspects), None)
        if other is not None and not self._one(other)[0]:
            raise SourceError(f"project {self._project}: none of its tasks can be read although they can be listed; look into Label Studio's log")

    def _tell(self, bodies: Sequence[dict[str, object]], *, counted: bool = False) -> list[Task]:
        """The tasks of these bodies, from now on told; forgets what is recorded once that is worth a look."""
        tasks = [_written(api.task_of(body, counted=counted)) for body in bodies]
        self._told.update((int(task.id), task.counts) for task in tasks)
        if len(self._told) > self._limit:
            for some in chunks(list(self._told), PORTION):
                entries = self._known.entries([str(task) for task in some])
                for entry in entries.values():
                    if not entry.kept and entry.counts == self._told[int(entry.task)]:
                        del self._told[int(entry.task)]
            self._limit = 2 * len(self._told) + TOLD
        return tasks


def _written(task: Task) -> Task:
    """With its body as bytes, while it is at hand: values take several times their memory, and would be fetched from it once more."""
    try:
        return task._replace(body=dumps(task.body))
    except TaskError:  # the Run meets it again, and says which task and why
        return task


def _ids(tasks: Iterable[str]) -> set[int]:
    """As numbers. Label Studio has no other ids; anything else came from another kind of Source."""
    return {int(task) for task in tasks if task.isdecimal()}
