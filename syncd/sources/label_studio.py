"""Label Studio as a Source: every task of every project, missing nothing, at the cost of the change (section 4).

Reads only. Observed on Label Studio Community 1.23.2; the wire is in `label_studio_api`. Rules:
- The Cursor is the server's own clock (`Date` of the first answer, less the time it took): updated_at is stamped before commit, so the greatest one seen
  may not become it, nor may the local clock (I2). Without a `Date` the Cursor stays.
- A body comes once per reading, and never because a number looked odd: only when its Revision or its counts are not those the Checkpoint holds.
- What no timestamp shows is found by counting ranges of ids (`reconcile`); what no count shows either is left to the full Run.
- Absence from a listing makes a candidate; `confirm` asks for the id itself (I4).
- A project's id may be used again after it was deleted: `created_at` of the Collection tells them apart.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, TypeVar, cast
from urllib.parse import urlsplit

import httpx
from pydantic import Field, field_validator

from syncd.clock import Clock
from syncd.errors import SourceError, TaskError
from syncd.fields import Duration, Fields, Secret
from syncd.model import Collection, Counts, Failure, Gone, Task
from syncd.reconcile import Range, differing, portions
from syncd.retry import Retry
from syncd.sources import label_studio_api as api
from syncd.sources.base import Batch, Known, Selection, selected
from syncd.sources.http import Http
from syncd.sources.label_studio_api import Api, Page, Row

T = TypeVar("T")

LEAF = 100  # tasks; listing so many costs about as much as three count probes
PORTION = 1000  # ids held in memory at a time
FIRST_PAGE, LARGEST_PAGE, LARGEST_LIST = 20, 500, 200  # tasks; a list of ids must fit into a URL of 8 kB
PAGE_BYTES = 3_000_000
_SELF_CHANGING = frozenset({
    "created_ago", "created_username", "annotations_results", "predictions_results", "annotators", "avg_lead_time", "completed_at", "draft_exists",
    "predictions_score", "predictions_model_versions", "updated_by",
})  # fmt: skip
_SETTINGS_CHANGING = frozenset({
    "task_number", "num_tasks_with_annotations", "useful_annotation_number", "ground_truth_number", "skipped_annotations_number",
    "total_annotations_number", "total_predictions_number", "finished_task_number", "queue_total", "queue_done", "queue_left", "state", "created_by",
})  # fmt: skip


class Config(Fields):
    """A Label Studio server. Start with `type: label_studio`."""

    type: Literal["label_studio"]
    url: str
    """Address of the server, as in the browser: https://studio.example.com"""
    token: Secret
    """A legacy token or a personal access token (Account & Settings)."""
    labeled_only: bool = False
    """Only tasks with at least one annotation that was not skipped."""
    concurrency: int = Field(default=1, ge=1, le=32)
    """Connections to the server. More than one helps only where several server processes run."""
    retry_for: Duration = 60.0
    """How long a failing request is tried again."""
    timeout: Duration = 180.0
    """How long a busy server may stay silent."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("not the address of a server: write it like https://studio.example.com, without user, ? or #")
        return value.rstrip("/")


def open(config: Config, select: Selection, clock: Clock, *, transport: httpx.BaseTransport | None = None) -> LabelStudio:  # noqa: A001 - the name every edge shares
    """A Source for what `select["projects"]` names: ids or title patterns; all when absent."""
    secret = config.token.get_secret_value().strip()
    auth = api.PersonalToken(secret, clock) if secret.count(".") == 2 else api.LegacyToken(secret)  # noqa: PLR2004 - a JWT has three parts
    retry = Retry(clock, retry_for=config.retry_for, exhausted=SourceError)
    http = Http(config.url, retry, auth, timeout=config.timeout, concurrency=config.concurrency, transport=transport)
    if isinstance(auth, api.PersonalToken):
        auth.http = http
    return LabelStudio(http, select.get("projects"), labeled_only=config.labeled_only)


class LabelStudio:
    """The Source. See `sources.base.Source` for what each method promises."""

    def __init__(self, http: Http, projects: Sequence[str] | None, *, labeled_only: bool) -> None:
        self._http = http
        self._projects = projects
        self._labeled_only = labeled_only
        self._api = Api(http, labeled_only=labeled_only)

    @property
    def requests(self) -> int:
        return self._http.requests

    def collections(self) -> list[Collection]:
        return [c for c in self._api.projects() if selected(self._projects, c.id, c.title)]

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True
    ) -> Iterator[Batch]:
        reading = _Reading(self._api, collection.id, known)
        return reading.full(position) if since is None else reading.incremental(since, drafts=drafts)

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        gone: dict[str, Gone] = {}
        for task in tasks:
            body = self._api.task(task)
            if body is None:
                gone[task] = Gone.DELETED
            elif str(body.get("project")) != collection.id or (self._labeled_only and api.integer(body, "total_annotations") == 0):
                gone[task] = Gone.REMOVED
        return gone

    def confirm_collection(self, collection: Collection) -> bool:
        return self._api.project(collection.id) is None and all(c.id != collection.id for c in self._api.projects())

    def settings(self, collection: Collection) -> Mapping[str, object]:
        project = self._api.project(collection.id)
        if project is None:
            raise SourceError(f"project {collection.id} ({collection.title}) vanished while it was being read")
        return {name: value for name, value in project.items() if name not in _SETTINGS_CHANGING}

    def close(self) -> None:
        self._http.close()


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


class _Reading:
    """One pass over one project."""

    def __init__(self, source: Api, project: str, known: Known) -> None:
        self._api = source
        self._project = project
        self._known = known
        self._people = _People(source)
        self._pace = _Pace()
        self._seen: dict[int, Counts] = {}  # incremental: what this reading has yielded, which the Checkpoint may not hold yet
        self._cursor: int | None = None
        self._begun = False

    def full(self, position: str | None) -> Iterator[Batch]:
        """Every body, in order of id."""
        start = last = int(position or 0)
        read, more = 0, True
        while more:
            ids, complete, tasks, failed = self._next(last)
            top = ids[-1] if ids else last
            if position is None:
                yield from self._lacking(last + 1, top, ids, str(last))
            yield Batch(tasks, failed, position=str(top), cursor=self._cursor)
            read, last = read + len(ids), top
            more = not complete or self._more(start, last, read, empty=not ids)
        if position is None:
            yield from self._lacking(last + 1, self._known.last_id(), (), str(last))
            yield from self._forgotten(str(last))

    def incremental(self, since: int, *, drafts: bool) -> Iterator[Batch]:
        """What changed: dated, failing, undated, counted."""
        for rows in self._rows([api.changed_since(since)]):
            yield from self._bodies(self._changed(rows))
        yield from self._failing()
        if drafts:
            yield from self._drafts()
        yield from self._counters()
        yield Batch(cursor=self._cursor)

    def _next(self, last: int) -> tuple[list[int], bool, list[Task], list[Failure]]:
        """The page after `last`: its ids, whether it is the last one, its tasks and those that could not be read."""
        try:
            page = self._api.bodies(self._project, (), self._pace.size, last)
        except TaskError:
            page, rows = self._api.rows(self._project, (), self._pace.size, last)
            ids = [row.id for row in rows]
            self._begin(page)
            return ids, page.complete, *self._read(ids)
        self._begin(page)
        self._pace.learn(page)
        tasks = [self._task(body) for body in page.tasks]
        return [int(task.id) for task in tasks], page.complete, tasks, []

    def _more(self, start: int, last: int, read: int, *, empty: bool) -> bool:
        """After what looks like the last page: whether there are later ids. SourceError when earlier ones were kept from us (I4)."""
        whole = self._api.whole(self._project, start)
        if whole.high > last and not empty:
            return True
        if whole.high > last or whole.counts.tasks > read:
            raise SourceError(
                f"project {self._project} counts {whole.counts.tasks} tasks after id {start} and listed {read}: some came late, or the list is cut; "
                "nothing is deleted, the next Run reads again"
            )
        return False

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

    def _failing(self) -> Iterator[Batch]:
        """Tasks that failed in an earlier Run: again, or gone."""
        failing = sorted({int(task) for task in self._known.failing()} - self._seen.keys())
        for ids in _chunks(failing, LARGEST_LIST):
            listed = [row.id for rows in self._rows([api.among(ids)]) for row in rows]
            yield from self._bodies(listed)
            if missing := sorted(set(ids) - set(listed)):
                yield Batch(missing=[str(task) for task in missing], cursor=self._cursor)

    def _forgotten(self, position: str) -> Iterator[Batch]:
        """Failing tasks that never had an Entry and are gone."""
        for names in _chunks(self._known.failing(), LARGEST_LIST):
            entries = self._known.entries(names)
            ids = [int(task) for task in names if task not in entries]
            listed = {row.id for rows in self._rows([api.among(ids)]) for row in rows} if ids else set()
            if missing := [str(task) for task in ids if task not in listed]:
                yield Batch(missing=missing, position=position, cursor=self._cursor)

    def _drafts(self) -> Iterator[Batch]:
        """A draft moves nothing that can be listed: every task that holds one, or did."""
        ids = {row.id for rows in self._rows([api.HAS_DRAFTS]) for row in rows}
        ids.update(int(task) for task in self._known.with_drafts())
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

    def _lacking(self, low: int, high: int, listed: Iterable[int], position: str | None = None) -> Iterator[Batch]:
        """What the Checkpoint holds of a range and a complete listing of it lacks."""
        there = set(listed)
        for first, last in portions(low, high, self._known.counts, limit=PORTION):
            if missing := [task for task in self._known.ids(first, last) if int(task) not in there]:
                yield Batch(missing=missing, position=position, cursor=self._cursor)

    def _bodies(self, ids: Sequence[int], *, counted: bool = False) -> Iterator[Batch]:
        """Fetch exactly these; those that vanished meanwhile are left out. counted: see `_task`."""
        done = 0
        while done < len(ids):
            some = ids[done : done + min(self._pace.size, LARGEST_LIST)]
            tasks, failed = self._read(some, counted=counted)
            self._seen.update((int(task.id), task.counts) for task in tasks)
            done += len(some)
            yield Batch(tasks, failed, cursor=self._cursor)

    def _read(self, ids: Sequence[int], *, counted: bool = False) -> tuple[list[Task], list[Failure]]:
        tasks, failed = self._split(ids, counted=counted)
        if not tasks and len(failed) > 1:
            self._assure_healthy(ids)
        return tasks, failed

    def _split(self, ids: Sequence[int], *, counted: bool) -> tuple[list[Task], list[Failure]]:
        """Halve what can't be read until the task that causes it is alone."""
        try:
            page = self._api.bodies(self._project, [api.among(ids)], len(ids))
        except TaskError as error:
            if len(ids) == 1:
                return [], self._failure(ids[0], error)
            middle = len(ids) // 2
            halves = [self._split(half, counted=counted) for half in (ids[:middle], ids[middle:])]
            return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]
        self._pace.learn(page)
        tasks = [self._task(body, counted=counted) for body in page.tasks]
        if not {int(task.id) for task in tasks} <= set(ids):
            raise SourceError(f"project {self._project} answered with other tasks than those asked for; nothing can be concluded from it")
        return tasks, []

    def _failure(self, task: int, error: TaskError) -> list[Failure]:
        """A task that can be listed and not read; none when it vanished. SourceError when it can't even be listed: the server is down."""
        _, rows = self._api.rows(self._project, [api.among([task])], 1)
        self._seen.update((row.id, row.counts) for row in rows)
        advice = "Label Studio can't hand this task over, perhaps for text that is no valid Unicode: correct or delete it there"
        return [Failure(self._project, str(row.id), f"{advice} ({error})", row.revision.last_activity) for row in rows]

    def _assure_healthy(self, failed: Sequence[int]) -> None:
        """Several tasks failed and none was read: only a task beyond them tells bad tasks from a bad server."""
        avoid = sorted({*failed, *(int(task) for task in self._known.failing())})
        _, others = self._api.rows(self._project, [api.other_than(avoid)], 1)
        try:
            if others and self._api.bodies(self._project, [api.among([others[0].id])], 1).tasks:
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


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
