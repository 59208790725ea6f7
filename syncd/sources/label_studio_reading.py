"""One pass over one Label Studio project, full or incremental (section 4).

Rules:
- A body comes once per reading, and only when its Revision or its counts are not those the Checkpoint holds.
- What no timestamp shows is found by counting ranges of ids (`reconcile`); what no count shows either is left to the full Run.
- Absence from a listing makes a candidate for deletion, no more (I4).
- A page the server fails on is halved until the task that causes it is alone: that one fails, the others go on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, cast

from syncd.errors import SourceError, TaskError
from syncd.known import Known
from syncd.model import Counts, Failure, Task
from syncd.reconcile import Range, differing, portions
from syncd.sources import label_studio_api as api
from syncd.sources.base import Batch
from syncd.sources.label_studio_api import Api, Page, Row

T = TypeVar("T")
R = TypeVar("R")

LEAF = 100  # tasks; listing so many costs about as much as three count probes
PORTION = 1000  # ids held in memory at a time
FIRST_PAGE, LARGEST_PAGE, LARGEST_LIST = 20, 500, 200  # tasks; a list of ids must fit into a URL of 8 kB
PAGE_BYTES = 3_000_000
_SELF_CHANGING = frozenset({
    "created_ago", "created_username", "annotations_results", "predictions_results", "annotators", "avg_lead_time", "completed_at", "draft_exists",
    "predictions_score", "predictions_model_versions", "updated_by",
})  # fmt: skip


class _Pace:
    """How many tasks to ask for at a time, so that a page has a few megabytes whatever its tasks weigh."""

    def __init__(self) -> None:
        self.size = FIRST_PAGE

    def learn(self, page: Page) -> None:
        """Pages shrink at once and grow at most four times at a step, since the next tasks may be heavier."""
        if page.tasks:
            fitting = PAGE_BYTES * len(page.tasks) // max(page.size, 1)
            self.size = max(1, min(fitting, len(page.tasks) * 4, LARGEST_PAGE))


class _People:
    """Who completed annotations, as {id,email,first_name,last_name}; listed when first needed, and once more for an unknown id."""

    def __init__(self, source: Api) -> None:
        self._api = source
        self._found: dict[int, dict[str, object]] = {}
        self._listings = 0

    def expand(self, person: object) -> object:
        if not isinstance(person, int):
            return person
        if person not in self._found and self._listings < 2:  # noqa: PLR2004 - somebody may have joined since the first
            self._listings += 1
            self._found = self._api.users()
        return self._found.get(person, person)


class Lanes:
    """How many requests may be under way at once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="syncd-read")

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The results in order; in the caller's own thread when there is one lane."""
        return map(work, items) if self.count == 1 else self._pool.map(work, items)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Reading:
    """One pass over one project."""

    def __init__(self, source: Api, project: str, known: Known, lanes: Lanes) -> None:
        self._api = source
        self._project = project
        self._known = known
        self._lanes = lanes.count
        self._map = lanes.map
        self._people = _People(source)
        self._pace = _Pace()
        self._seen: dict[int, Counts] = {}  # incremental: what this reading has yielded, which the Checkpoint may not hold yet
        self._cursor: int | None = None
        self._begun = False

    def full(self, position: str | None) -> Iterator[Batch]:
        """Every body, in order of id."""
        start = last = int(position or 0)
        tops, reads = [start], [0]  # of each page: its last id, and how many tasks were read up to there
        more = True
        while more:
            ids, complete, tasks, failed = self._next(last)
            top = ids[-1] if ids else last
            if position is None:
                yield from self._lacking(last + 1, top, ids)
            yield Batch(tasks, failed, position=str(top), cursor=self._cursor)
            last = top
            tops.append(top)
            reads.append(reads[-1] + len(ids))
            if complete:
                whole = self._api.whole(self._project, start)
                more = whole.high > last
                if more and not ids:
                    raise self._contradicted(whole.counts.tasks, reads[-1])
        yield from self._overlooked(tops, reads, whole.counts.tasks)
        if position is None:
            yield from self._lacking(last + 1, self._known.last_id(), ())
            yield from self._failing(again=False)

    def incremental(self, since: int, *, drafts: bool) -> Iterator[Batch]:
        """What changed: dated, failing, undated, counted."""
        for rows in self._rows([api.changed_since(since)]):
            yield from self._bodies(self._changed(rows))
        yield from self._failing(again=True)
        if drafts:
            yield from self._drafts()
        yield from self._counters()
        yield Batch(cursor=self._cursor)

    def _next(self, last: int) -> tuple[list[int], bool, list[Task], list[Failure]]:
        """The page after `last`: its ids, whether it is the last one, its tasks and those that could not be read."""
        size = self._pace.size
        if self._lanes == 1:
            try:
                page = self._api.bodies(self._project, (), size, last)
            except TaskError:
                pass  # listed without bodies below, then halved
            else:
                self._begin(page)
                self._pace.learn(page)
                tasks = [self._task(body) for body in page.tasks]
                return [int(task.id) for task in tasks], page.complete, tasks, []
        page, rows = self._api.rows(self._project, (), min(size, LARGEST_LIST) * self._lanes, last)
        self._begin(page)
        ids = [row.id for row in rows]
        return ids, page.complete, *self._read(ids)

    def _overlooked(self, tops: Sequence[int], reads: Sequence[int], counted: int) -> Iterator[Batch]:
        """Tasks that were committed behind the reader: their pages are found by counting and listed again. SourceError when it lacks them (I4)."""

        def ask(low: int, high: int) -> Counts:
            return Counts(self._api.counts(self._project, tops[low - 1] + 1, tops[high]).tasks, 0, 0)

        def held(low: int, high: int) -> Counts:
            return Counts(reads[high] - reads[low - 1], 0, 0)

        if counted <= reads[-1]:
            return  # those that vanished meanwhile are left to the next reading
        for pages in differing(Range(1, len(tops) - 1, Counts(counted, 0, 0)), ask, held, leaf=0):
            listed = 0
            for rows in self._rows(api.between(tops[pages.low - 1] + 1, tops[pages.high])):
                listed += len(rows)
                yield from self._bodies(self._changed(rows))
            if listed < pages.counts.tasks:
                raise self._contradicted(pages.counts.tasks, listed)

    def _contradicted(self, counted: int, listed: int) -> SourceError:
        return SourceError(f"project {self._project} counts {counted} tasks and lists {listed}: its list is cut; nothing is deleted, run again")

    def _rows(self, filters: Sequence[api.Filter]) -> Iterator[list[Row]]:
        """A flat listing, page by page, complete or SourceError."""
        last, complete = 0, False
        while not complete:
            page, rows = self._api.rows(self._project, filters, api.FLAT_PAGE, last)
            self._begin(page)
            yield rows
            last, complete = (rows[-1].id if rows else last), page.complete

    def _begin(self, page: Page) -> None:
        """The first answer of a reading dates it (I2)."""
        if not self._begun:
            self._begun, self._cursor = True, page.asked_at

    def _changed(self, rows: Sequence[Row]) -> list[int]:
        """Those whose body is not the one the Checkpoint holds, as far as numbers show."""
        entries = self._known.entries([str(row.id) for row in rows])

        def held(row: Row) -> bool:
            entry = entries.get(str(row.id))
            return entry is not None and not entry.kept and entry.revision == row.revision and entry.counts == row.counts

        return [row.id for row in rows if row.id not in self._seen and not held(row)]

    def _failing(self, *, again: bool) -> Iterator[Batch]:
        """Tasks that failed in an earlier Run: once more, or gone. One that has an Entry is missed by counting."""
        for ids in _chunks(sorted(_ids(self._known.failing()) - self._seen.keys()), LARGEST_LIST):
            listed = {row.id for rows in self._rows([api.among(ids)]) for row in rows}
            if again:
                yield from self._bodies(sorted(listed))
            names = [str(task) for task in ids if task not in listed]
            entries = self._known.entries(names)
            if missing := [task for task in names if task not in entries]:
                yield Batch(missing=missing, cursor=self._cursor)

    def _drafts(self) -> Iterator[Batch]:
        """A draft moves nothing that can be listed: every task that holds one, or did."""
        ids = {row.id for rows in self._rows([api.HAS_DRAFTS]) for row in rows}
        ids |= _ids(self._known.with_drafts())
        yield from self._bodies(sorted(ids - self._seen.keys()))

    def _counters(self) -> Iterator[Batch]:
        """What no timestamp shows, found by counting."""
        whole = self._api.whole(self._project)
        high = max(whole.high, self._known.last_id(), max(self._seen, default=0))
        held = _Held(self._known, self._seen)
        for part in differing(Range(1, high, whole.counts), partial(self._api.counts, self._project), held.counts, leaf=LEAF):
            yield from self._leaf(part)

    def _leaf(self, part: Range) -> Iterator[Batch]:
        """List a range whose sums differ: fetch what is new or changed, name what is missing; all of it when that explains nothing."""
        listed, unchanged, low = Counts(0, 0, 0), [], part.low
        for rows in self._rows(api.between(part.low, part.high)):
            ids = [row.id for row in rows]
            yield from self._lacking(low, ids[-1] if ids else low - 1, ids)
            low = ids[-1] + 1 if ids else low
            changed = self._changed(rows)
            unchanged += sorted(set(ids) - set(changed) - self._seen.keys())
            for row in rows:
                listed = listed.plus(row.counts)
            yield from self._bodies(changed)
        yield from self._lacking(low, part.high, ())
        if listed != part.counts:
            # This server's totals are not the sums of its fields (or it is changing now): bodies decide, and count what they hold.
            yield from self._bodies(unchanged, counted=True)

    def _lacking(self, low: int, high: int, listed: Iterable[int]) -> Iterator[Batch]:
        """What the Checkpoint holds of a range and a complete listing of it lacks."""
        there = set(listed)
        for first, last in portions(low, high, self._known.counts, limit=PORTION):
            if missing := [task for task in self._known.ids(first, last) if int(task) not in there]:
                yield Batch(missing=missing, cursor=self._cursor)

    def _bodies(self, ids: Sequence[int], *, counted: bool = False) -> Iterator[Batch]:
        """Fetch exactly these; those that vanished meanwhile are left out. counted: see `_task`."""
        done = 0
        while done < len(ids):
            some = ids[done : done + min(self._pace.size, LARGEST_LIST) * self._lanes]
            tasks, failed = self._read(some, counted=counted)
            self._seen.update((int(task.id), task.counts) for task in tasks)
            done += len(some)
            yield Batch(tasks, failed, cursor=self._cursor)

    def _read(self, ids: Sequence[int], *, counted: bool = False) -> tuple[list[Task], list[Failure]]:
        """The bodies of these and what could not be read; over as many connections as there are lanes."""
        bodies: list[dict[str, object]] = []
        failed: list[Failure] = []
        for some, bad in self._map(self._split, _chunks(ids, max(1, -(-len(ids) // self._lanes)))):
            bodies += some
            failed += bad
        if not bodies and len(failed) > 1:
            self._assure_healthy(ids)
        return [self._task(body, counted=counted) for body in bodies], failed

    def _split(self, ids: Sequence[int]) -> tuple[list[dict[str, object]], list[Failure]]:
        """Halve what can't be read until the task that causes it is alone. Runs in any lane."""
        try:
            page = self._api.bodies(self._project, [api.among(ids)], len(ids))
        except TaskError as error:
            if len(ids) == 1:
                return [], self._failure(ids[0], error)
            middle = len(ids) // 2
            (bodies, failed), (more_bodies, more_failed) = self._split(ids[:middle]), self._split(ids[middle:])
            return bodies + more_bodies, failed + more_failed
        self._pace.learn(page)
        if not {body["id"] for body in page.tasks} <= set(ids):
            raise SourceError(f"project {self._project} answered with other tasks than those asked for; nothing can be concluded from it")
        return page.tasks, []

    def _failure(self, task: int, error: TaskError) -> list[Failure]:
        """A task that can be listed and not read; none when it vanished. SourceError when it can't even be listed: the server is down."""
        _, rows = self._api.rows(self._project, [api.among([task])], 1)
        self._seen.update((row.id, row.counts) for row in rows)
        advice = "Label Studio can't hand this task over, perhaps for text that is no valid Unicode: correct or delete it there"
        return [Failure(self._project, str(row.id), f"{advice} ({error})", row.revision.last_activity) for row in rows]

    def _assure_healthy(self, failed: Sequence[int]) -> None:
        """Several tasks failed and none was read: only a task beyond them tells bad tasks from a bad server."""
        suspects = _ids(self._known.failing())
        _, rows = self._api.rows(self._project, [api.other_than(failed)], min(len(suspects) + 1, api.FLAT_PAGE))
        others = [row.id for row in rows if row.id not in suspects]
        try:
            if others and self._api.bodies(self._project, [api.among(others[:1])], 1).tasks:
                return
        except TaskError as error:
            raise SourceError(f"project {self._project}: no task can be read although they can be listed ({error})") from error
        raise SourceError(f"project {self._project}: none of its tasks can be read although they can be listed; look into Label Studio's log")

    def _task(self, body: dict[str, object], *, counted: bool = False) -> Task:
        """The body less what changes by itself, with people a restore can find. counted: count its parts, since the fields were found to lie."""
        row = api.row_of(body)
        drafts = bool(body["drafts"]) or body.get("draft_exists") is True
        annotations, predictions = (cast("list[dict[str, object]]", body[name]) for name in ("annotations", "predictions"))
        for part in (*annotations, *predictions, *cast("list[dict[str, object]]", body["drafts"])):
            part.pop("created_ago", None)
            part.pop("created_username", None)
        for annotation in annotations:
            annotation["completed_by"] = self._people.expand(annotation.get("completed_by"))
        kept = {name: value for name, value in body.items() if name not in _SELF_CHANGING}
        counts = Counts(1, sum(a.get("was_cancelled") is not True for a in annotations), len(predictions)) if counted else row.counts
        return Task(str(row.id), row.revision, kept, counts, drafts)


class _Held:
    """What the Checkpoint will hold once it has committed all this reading yielded; it may be doing so right now."""

    def __init__(self, known: Known, seen: Mapping[int, Counts]) -> None:
        self._known = known
        self._seen = seen
        self._ids = sorted(seen)

    def counts(self, low: int, high: int) -> Counts:
        ids = self._ids[bisect_left(self._ids, low) : bisect_right(self._ids, high)]
        for _ in range(5):  # a commit in between would be counted once too often or not at all
            before = self._known.counts(low, high)
            expected = before
            for some in _chunks(ids, PORTION):
                entries = self._known.entries([str(task) for task in some])
                for task in some:
                    entry = entries.get(str(task))
                    expected = expected.plus(self._seen[task])
                    expected = expected.minus(entry.counts) if entry is not None and not entry.kept else expected
            if self._known.counts(low, high) == before:
                break
        return expected


def _ids(tasks: Iterable[str]) -> set[int]:
    """As numbers. Label Studio has no other ids; anything else came from another kind of Source."""
    return {int(task) for task in tasks if task.isdecimal()}


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
