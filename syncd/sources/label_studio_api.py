"""Label Studio's wire: its tokens, its listings, and the checks that make an answer believable.

Knows nothing of Checkpoints. Observed on Label Studio 1.23.2. Rules:
- Paging is by id with `page=1`, so that nothing shifts between pages; never by offset or by time.
- Each page must hold as many tasks as its own total promises, in order: one that does not is asked for again, then refused (I4).
- `include=` only in flat listings: it silently cuts annotations down when bodies are read.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import NamedTuple, TypeGuard, cast

import orjson

from syncd.clock import Clock, format_time, parse_time
from syncd.errors import SourceError, TaskError
from syncd.model import Collection, Counts, Revision, Task
from syncd.reconcile import Range
from syncd.sources.base import Who
from syncd.sources.http import Answer, Http, Post

FLAT_PAGE = 1000  # rows of a flat listing: 0.5 ms of the server's time each
HEAVIEST_PAGE = 32_000_000  # bytes; a heavier one is asked for again in parts, unless it is a single task
MOST_PROJECTS = 1000  # asked for; 1.23.2 lists 100 at a time all the same
SMALLEST_LIMIT = 20  # tasks; a server's own limit for pages (TASK_API_PAGE_SIZE_MAX) is believed from here on
TRIES = 3  # of a request that a single task may spoil
RECHECKS = 3  # a page can be torn by a change between its count and its rows; a wrong one stays wrong
ACCESS_MARGIN = 60.0  # seconds; access tokens live 300
_FLAT = "id,created_at,updated_at,total_annotations,cancelled_annotations,total_predictions"
_PERSON = ("id", "email", "first_name", "last_name")  # what a restore needs to find a person
_COUNTERS = (
    "task_number", "finished_task_number", "total_annotations_number", "total_predictions_number", "skipped_annotations_number",
    "ground_truth_number",
)  # fmt: skip
_PROJECT = ",".join(("id", "title", "created_at", *_COUNTERS))
_BODIES = {
    "fields": "all",
    "resolve_uri": "false",
    "omit": "annotations_results,predictions_results",  # 14 % of the bytes; they change by themselves
    "expand": "annotations.completed_by",  # people in full, as in a single task and in the server's own storage
}
_SELF_CHANGING = frozenset({
    "created_ago", "created_username", "annotations_ids", "annotations_results", "predictions_results", "annotators", "avg_lead_time", "completed_at",
    "draft_exists", "predictions_score", "predictions_model_versions", "updated_by",
})  # fmt: skip

Filter = dict[str, object]


class Row(NamedTuple):
    """One task in a flat listing. counts: what the server's totals sum for it; they are sums of these very fields (1.23.2)."""

    id: int
    revision: Revision
    counts: Counts


@dataclass(frozen=True, slots=True)
class Page:
    """One believable page. `counts`: the sums over all that the filters select."""

    tasks: list[dict[str, object]]
    counts: Counts
    size: int
    asked_at: int | None

    @property
    def complete(self) -> bool:
        """Whether nothing was left for another page."""
        return len(self.tasks) == self.counts.tasks


class PersonalToken:
    """A personal access token: a JWT that only buys access tokens of 300 s, which are what requests carry."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        self._lock = threading.Lock()
        self._access = ""
        self._until = 0.0

    def header(self, post: Post) -> str:
        with self._lock:
            if self._clock.monotonic() >= self._until:
                body = post("/api/token/refresh/", {"refresh": self._token}).body
                access = body.get("access") if isinstance(body, dict) else None
                if not isinstance(access, str):
                    raise SourceError("POST /api/token/refresh/ gave no access token: check url")
                self._access, self._until = access, self._clock.monotonic() + 300 - ACCESS_MARGIN
            return f"Bearer {self._access}"

    def renew(self) -> bool:
        with self._lock:
            self._until = 0.0
        return True


def explain(detail: str) -> str:
    """What a person should do about a refusal, given the server's own words."""
    if "disabled" in detail:
        return "legacy tokens are switched off for this organization: create a personal access token (Account & Settings) and use it as token"
    if "blacklisted" in detail:
        return "this personal access token was revoked: create a new one (Account & Settings)"
    if "reserved network" in detail:
        return "Label Studio calls no private address unless it is started with LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false"
    if "permission" in detail:
        return "the token's user may not read this: use the token of an administrator or manager"
    return "the token is refused: copy it again from Account & Settings in Label Studio, and check that url is the server it belongs to"


def condition(name: str, operator: str, value: object, kind: str = "Number") -> Filter:
    """One item of the Data Manager's filters."""
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}


def between(low: int, high: int) -> list[Filter]:
    return [condition("id", "greater_or_equal", low), condition("id", "less_or_equal", high)]


def among(ids: Sequence[int]) -> Filter:
    return condition("id", "in_list", list(ids), "List")


def changed_since(since: int) -> Filter:
    return condition("updated_at", "greater_or_equal", format_time(since), "Datetime")


HAS_DRAFTS = condition("draft_exists", "equal", True, "Boolean")  # noqa: FBT003 - a value on the wire
LABELED = condition("total_annotations", "greater", 0)
"""What `labeled_only` means: at least one annotation that was not skipped. `is_labeled` would follow the project's overlap setting, undated."""
PREDICTED = condition("total_predictions", "greater", 0)


def beyond_snapshots(overlap: int) -> list[list[Filter]]:
    """Filters that select, each alone, tasks whose body does not follow from a snapshot where the overlap is this one."""
    labeled, unlabeled = (condition("is_labeled", "equal", value, "Boolean") for value in (True, False))
    return [
        [HAS_DRAFTS],
        [condition("storage_filename", "regex", "[^;]", "String")],  # the names of all kinds of storage, with semicolons between
        [condition("overlap", "not_equal", overlap)],
        [labeled, condition("total_annotations", "less", overlap)],
        [unlabeled, condition("total_annotations", "greater_or_equal", overlap)],
    ]


class Api:
    """The requests a backup needs, all of them reading."""

    def __init__(self, http: Http, *, labeled_only: bool) -> None:
        self._http = http
        self._always = [LABELED] if labeled_only else []
        self._largest = sys.maxsize  # tasks in a page, as the server limits it

    def whoami(self) -> Who:
        """The token's user."""
        path = "/api/current-user/whoami"
        answer = self._http.get(path)
        return Who(str(mapping(answer.body, path).get("email") or "somebody without an e-mail"), answer.asked_at)

    def projects(self) -> list[Collection]:
        """Every project the token's user can see with its counters, complete or SourceError.

        The counters are counted anew for each list, project by project (1.23.2), not stored fields that a client may set. Nothing of this moves
        one: annotations, predictions and task data that are changed; drafts; settings; people; and whatever takes away as many as it adds, such as
        a task deleted and another one created, or predictions of one task for another's.
        """
        for _ in range(RECHECKS):
            found, counts = self._projects()
            if {len(found), len({c.id for c in found})} == counts:
                return found
        raise SourceError(f"GET /api/projects/: the list says {max(counts)} projects and holds {len(found)}; nothing can be concluded from it")

    def _projects(self) -> tuple[list[Collection], set[int]]:
        """What the pages hold, and how many projects there are as each of them says: pages shift when a project vanishes between two."""
        found: list[Collection] = []
        counts: set[int] = set()
        number, more = 1, True
        while more:
            params: dict[str, str | int] = {"include": _PROJECT, "ordering": "id", "page_size": MOST_PROJECTS, "page": number}
            answer = self._http.get("/api/projects/", params, absent=number > 1)
            if answer.status != HTTPStatus.OK:  # projects vanished while paging
                break
            body = mapping(answer.body, "/api/projects/")
            rows = body.get("results")
            if not _is_rows(rows):
                raise SourceError("GET /api/projects/: not a list of projects: check url")
            found += [_project(row) for row in rows]
            counts.add(integer(body, "count"))
            more, number = body.get("next") is not None, number + 1
        return found, counts

    def project(self, project: str) -> Mapping[str, object] | None:
        """One project whole; None when the server itself says there is none, in its own form of 404 (a gateway's is another)."""
        return self._object(f"/api/projects/{project}/", project, resolve_uri="false")

    def task(self, task: str) -> Mapping[str, object] | None:
        """Whose one task is and whether it is labeled, even if its body can't be read; None likewise."""
        return self._object(f"/api/tasks/{task}/", task, include="id,project,total_annotations")

    def _object(self, path: str, name: str, **view: str) -> Mapping[str, object] | None:
        answer = self._http.get(path, view, absent=True)
        body = mapping(answer.body, path)
        if answer.status == body.get("status_code") == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK or str(body.get("id")) != name:
            raise SourceError(f"GET {path}: answered with something else than {name}")
        return body

    def bodies(self, project: str, filters: Sequence[Filter], size: int, last: int = 0, *, tries: int = TRIES) -> Page:
        """The next whole bodies with id > last. TaskError when the server keeps failing on them, or they are too heavy together."""
        page = self._page(project, filters, size, _BODIES, last=last, brittle=tries, limit=HEAVIEST_PAGE if size > 1 else None)
        weight = page.size
        for task in page.tasks:
            if task.get("draft_exists") is True:
                weight += self._add_drafts(task)
            if weight > HEAVIEST_PAGE and len(page.tasks) > 1:
                raise TaskError(f"GET /api/tasks of project {project}: an answer of more than {HEAVIEST_PAGE} bytes with its drafts")
            check_body(task, project)
        return replace(page, size=weight)

    def _add_drafts(self, task: dict[str, object]) -> int:
        """Give a task everybody's drafts, and tell their bytes: a list of tasks holds those of the token's own user alone."""
        answer = self._http.get(f"/api/tasks/{task['id']}/drafts", absent=True, brittle=TRIES)
        if answer.status == HTTPStatus.OK:  # not found: the task is gone since, and soon missed
            task["drafts"] = answer.body
        return answer.size

    def rows(self, project: str, filters: Sequence[Filter], size: int, last: int = 0) -> tuple[Page, list[Row]]:
        """The next rows of a flat listing with id > last."""
        page = self._page(project, filters, size, {"include": _FLAT}, last=last)
        return page, [row_of(task) for task in page.tasks]

    def whole(self, project: str) -> Range:
        """The sums over all tasks, up to the greatest id there is."""
        page = self._page(project, [], 1, {"include": "id"}, ordering="-tasks:id")
        return Range(1, integer(page.tasks[0], "id") if page.tasks else 0, page.counts)

    def nth(self, project: str, last: int, number: int) -> int:
        """The id of the task that is so many tasks after id `last`."""
        return integer(self._page(project, [], 1, {"include": "id"}, last=last, number=number).tasks[0], "id")

    def counts(self, project: str, low: int, high: int) -> Counts:
        """The sums over low <= id <= high."""
        return self._page(project, between(low, high), 1, {"include": "id"}).counts

    def _page(
        self,
        project: str,
        filters: Sequence[Filter],
        size: int,
        view: Mapping[str, str],
        *,
        last: int = 0,
        number: int = 1,
        ordering: str = "tasks:id",
        brittle: int = 0,
        limit: int | None = None,
    ) -> Page:
        items = [*filters, *self._always, condition("id", "greater", last)]
        query = orjson.dumps({"filters": {"conjunction": "and", "items": items}, "ordering": [ordering]}).decode()
        held = []
        for _ in range(RECHECKS):
            asked = min(size, self._largest)
            params: dict[str, str | int] = {**view, "project": project, "page": number, "page_size": asked, "query": query}
            page, ids = _read(self._http.get("/api/tasks", params, brittle=brittle, limit=limit))
            wrong = _doubt(page, ids if ordering == "tasks:id" else ids[::-1], asked, last)
            if not wrong:
                return page
            if SMALLEST_LIMIT <= len(ids) < asked and len(ids) in held:  # twice the same: the server's own limit, unless the next try belies it
                self._largest = len(ids)
            held.append(len(ids))
        raise SourceError(f"GET /api/tasks of project {project}: {wrong}; nothing can be concluded from it")


def _read(answer: Answer) -> tuple[Page, list[int]]:
    body = mapping(answer.body, "/api/tasks")
    tasks = body.get("tasks")
    if not _is_rows(tasks):
        raise SourceError("GET /api/tasks: no list of tasks in the answer: check url")
    counts = Counts(integer(body, "total"), integer(body, "total_annotations"), integer(body, "total_predictions"))
    return Page(tasks, counts, answer.size, answer.asked_at), [integer(task, "id") for task in tasks]


def _doubt(page: Page, ids: list[int], size: int, last: int) -> str:
    """Why a page can't be believed; empty when it can."""
    if len(ids) != min(size, page.counts.tasks):
        return f"a page of {size} holds {len(ids)} tasks although {page.counts.tasks} are promised"
    if any(low >= high for low, high in zip([last, *ids], ids, strict=False)):
        return f"a page asked for after id {last} is not in order of id"
    return ""


def check_body(task: Mapping[str, object], project: str) -> None:
    """Refuse a body of another project, or one without its annotations: it would replace a true one."""
    where = f"GET /api/tasks of project {project}: task {task.get('id')}"
    if str(task.get("project")) != project:
        raise SourceError(f"{where} belongs to project {task.get('project')}")
    if "data" not in task:
        raise SourceError(f"{where} has no data")
    for name in ("annotations", "predictions", "drafts"):
        parts = task.get(name)
        if not _is_rows(parts) or not all("result" in part for part in parts):
            raise SourceError(f"{where} has no whole {name}: is this a Label Studio that syncd knows?")


def task_of(body: dict[str, object], *, counted: bool = False) -> Task:
    """A body less what changes by itself, with people a restore can find. counted: count its parts, since its fields were found to lie.

    Its parts are put in order of id: on PostgreSQL they come as the database finds them, which changes with edits and with its plans.
    """
    row = row_of(body)
    annotations, predictions, drafts = (cast("list[dict[str, object]]", body[name]) for name in ("annotations", "predictions", "drafts"))
    for parts in (annotations, predictions, drafts):
        if len(parts) > 1:
            parts.sort(key=lambda part: integer(part, "id"))
    for part in (*annotations, *predictions, *drafts):
        part.pop("created_ago", None)
        part.pop("created_username", None)
    for annotation in annotations:
        person = annotation.get("completed_by")
        if isinstance(person, dict):
            annotation["completed_by"] = {name: person.get(name) for name in _PERSON}
    kept = {name: value for name, value in body.items() if name not in _SELF_CHANGING}
    counts = Counts(1, sum(a.get("was_cancelled") is not True for a in annotations), len(predictions)) if counted else row.counts
    return Task(str(row.id), row.revision, kept, counts, bool(drafts) or body.get("draft_exists") is True)


def row_of(task: Mapping[str, object]) -> Row:
    """What a flat listing, or a body, says of a task: the same fields in both."""
    annotations, cancelled, predictions = (integer(task, name) for name in ("total_annotations", "cancelled_annotations", "total_predictions"))
    revision = Revision(moment(task, "created_at"), moment(task, "updated_at"), (annotations, cancelled, predictions))
    return Row(integer(task, "id"), revision, Counts(1, annotations, predictions))


def _project(row: Mapping[str, object]) -> Collection:
    counters = tuple(value for name in _COUNTERS if isinstance(value := row.get(name), int))
    shown = counters if len(counters) == len(_COUNTERS) else ()  # by another version, perhaps
    return Collection(str(integer(row, "id")), str(row.get("title") or ""), moment(row, "created_at"), integer(row, "task_number"), shown)


def mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise SourceError(f"GET {where}: the answer is no JSON object: check url")
    return value


def objects(value: object, where: str) -> list[dict[str, object]]:
    if not _is_rows(value):
        raise SourceError(f"GET {where}: not a list of objects: check url")
    return value


def integer(row: Mapping[str, object], name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int):
        raise SourceError(f"Label Studio answered without a whole number as {name}: is this a version that syncd knows?")
    return value


def moment(row: Mapping[str, object], name: str) -> int:
    """A timestamp as microseconds."""
    try:
        return parse_time(str(row.get(name)))
    except ValueError:
        raise SourceError(f"Label Studio answered without a time as {name}: is this a version that syncd knows?") from None


def _is_rows(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)
