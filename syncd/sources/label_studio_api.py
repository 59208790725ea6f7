"""Label Studio's wire: its tokens, its listings, and the checks that make an answer believable.

Knows nothing of Checkpoints. Observed on Label Studio 1.23.2. Rules:
- Paging is by id with `page=1` always, so that nothing shifts between pages; never by offset or by time.
- Each page must hold as many tasks as its own total promises, in order: one that does not is asked for again, then refused (I4).
- `include=` only in flat listings: it silently cuts annotations down when bodies are read.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, TypeGuard

import orjson

from syncd.clock import Clock, format_time, parse_time
from syncd.errors import SourceError
from syncd.model import Collection, Counts, Revision
from syncd.reconcile import Range
from syncd.sources.http import Answer, Http

FLAT_PAGE = 1000  # rows of a flat listing: 0.5 ms of the server's time each
RECHECKS = 3  # a page can be torn by a change between its count and its rows; a wrong one stays wrong
ACCESS_MARGIN = 60.0  # seconds; access tokens live 300
_FLAT = "id,created_at,updated_at,total_annotations,cancelled_annotations,total_predictions"
_OMIT = "annotations_results,predictions_results,created_ago,created_username"  # 14 % of the bytes and more; they change by themselves

Filter = dict[str, object]


class Row(NamedTuple):
    """One task in a flat listing. counts: what the server's totals sum for it; they are sums of these very fields (1.23.2)."""

    id: int
    revision: Revision
    counts: Counts


@dataclass(frozen=True, slots=True)
class Page:
    """One believable page. `total`: how many tasks the filters select; `counts`: their sums."""

    tasks: list[dict[str, object]]
    counts: Counts
    size: int
    asked_at: int | None

    @property
    def complete(self) -> bool:
        """Whether nothing was left for another page."""
        return len(self.tasks) == self.counts.tasks


class LegacyToken:
    """`Authorization: Token <40 hex>`."""

    def __init__(self, token: str) -> None:
        self._token = token

    def header(self) -> str:
        return f"Token {self._token}"

    def renew(self) -> bool:
        return False

    def explain(self, detail: str) -> str:
        if "disabled" in detail:
            return "legacy tokens are switched off for this organization: create a personal access token (Account & Settings) and use it as token"
        return _explain(detail)


class PersonalToken:
    """A personal access token: a JWT that only buys access tokens of 300 s, which are what requests carry."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        self._lock = threading.Lock()
        self._access = ""
        self._until = 0.0
        self.http: Http

    def header(self) -> str:
        with self._lock:
            if self._clock.monotonic() >= self._until:
                body = self.http.post_anonymously("/api/token/refresh/", {"refresh": self._token}).body
                access = body.get("access") if isinstance(body, dict) else None
                if not isinstance(access, str):
                    raise SourceError("POST /api/token/refresh/ gave no access token: check url")
                self._access, self._until = access, self._clock.monotonic() + 300 - ACCESS_MARGIN
            return f"Bearer {self._access}"

    def renew(self) -> bool:
        with self._lock:
            self._until = 0.0
        return True

    def explain(self, detail: str) -> str:
        if "blacklisted" in detail:
            return "this personal access token was revoked: create a new one (Account & Settings)"
        return _explain(detail)


def _explain(detail: str) -> str:
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


def other_than(ids: Sequence[int]) -> Filter:
    return condition("id", "not_in_list", list(ids), "List")


def changed_since(since: int) -> Filter:
    return condition("updated_at", "greater_or_equal", format_time(since), "Datetime")


HAS_DRAFTS = condition("draft_exists", "equal", True, "Boolean")  # noqa: FBT003 - a value on the wire
LABELED = condition("total_annotations", "greater", 0)
"""What `labeled_only` means: at least one annotation that was not skipped. `is_labeled` would follow the project's overlap setting, undated."""


class Api:
    """The requests a backup needs, all of them reading."""

    def __init__(self, http: Http, *, labeled_only: bool) -> None:
        self._http = http
        self._always = [LABELED] if labeled_only else []

    def projects(self) -> list[Collection]:
        """Every project the token's user can see, complete or SourceError."""
        for _ in range(RECHECKS):
            found, count = self._projects()
            if len({c.id for c in found}) == len(found) == count:
                return found
        raise SourceError(f"GET /api/projects/: the list says {count} projects and holds {len(found)}; nothing can be concluded from it")

    def _projects(self) -> tuple[list[Collection], int]:
        found: list[Collection] = []
        number, count, more = 1, 0, True
        while more:
            params: dict[str, str | int] = {"include": "id,title,created_at,task_number", "ordering": "id", "page_size": 100, "page": number}
            answer = self._http.get("/api/projects/", params, absent=number > 1)
            if answer.status != HTTPStatus.OK:  # projects vanished while paging
                break
            body = mapping(answer.body, "/api/projects/")
            rows = body.get("results")
            if not _is_rows(rows):
                raise SourceError("GET /api/projects/: not a list of projects: check url")
            found += [_project(row) for row in rows]
            count, more, number = integer(body, "count"), body.get("next") is not None, number + 1
        return found, count

    def project(self, project: str) -> Mapping[str, object] | None:
        """One project whole; None when the server itself says there is none, in its own form of 404 (a gateway's is another)."""
        return self._object(f"/api/projects/{project}/", project)

    def task(self, task: str) -> Mapping[str, object] | None:
        """One task whole; None likewise."""
        return self._object(f"/api/tasks/{task}/", task)

    def _object(self, path: str, name: str) -> Mapping[str, object] | None:
        answer = self._http.get(path, {"resolve_uri": "false"}, absent=True)
        body = mapping(answer.body, path)
        if answer.status == body.get("status_code") == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK or str(body.get("id")) != name:
            raise SourceError(f"GET {path}: answered with something else than {name}")
        return body

    def users(self) -> dict[int, dict[str, object]]:
        """What a restore needs to find a person, by id."""
        rows = self._http.get("/api/users/").body
        if not _is_rows(rows):
            raise SourceError("GET /api/users/: not a list of users: check url")
        return {integer(row, "id"): {name: row.get(name) for name in ("id", "email", "first_name", "last_name")} for row in rows}

    def bodies(self, project: str, filters: Sequence[Filter], size: int, last: int = 0) -> Page:
        """The next whole bodies with id > last. TaskError when the server keeps failing on them."""
        page = self._page(project, filters, size, {"fields": "all", "resolve_uri": "false", "omit": _OMIT}, last=last, brittle=True)
        for task in page.tasks:
            _check_body(task, project)
        return page

    def rows(self, project: str, filters: Sequence[Filter], size: int, last: int = 0) -> tuple[Page, list[Row]]:
        """The next rows of a flat listing with id > last."""
        page = self._page(project, filters, size, {"include": _FLAT}, last=last)
        return page, [row_of(task) for task in page.tasks]

    def whole(self, project: str, start: int = 0) -> Range:
        """The sums over all tasks with id > start, from there to the greatest id there is."""
        page = self._page(project, [], 1, {"include": "id"}, last=start, ordering="-tasks:id")
        return Range(start + 1, integer(page.tasks[0], "id") if page.tasks else start, page.counts)

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
        ordering: str = "tasks:id",
        brittle: bool = False,
    ) -> Page:
        items = [*filters, *self._always, condition("id", "greater", last)]
        query = orjson.dumps({"filters": {"conjunction": "and", "items": items}, "ordering": [ordering]}).decode()
        params: dict[str, str | int] = {**view, "project": project, "page": 1, "page_size": size, "query": query}
        wrong = ""
        for _ in range(RECHECKS):
            answer = self._http.get("/api/tasks", params, brittle=brittle)
            page, ids = _read(answer)
            wrong = _doubt(page, ids if ordering == "tasks:id" else ids[::-1], size, last)
            if not wrong:
                return page
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


def _check_body(task: Mapping[str, object], project: str) -> None:
    """Refuse a body of another project, or one without its annotations: it would replace a true one."""
    where = f"GET /api/tasks of project {project}: task {task.get('id')}"
    if str(task.get("project")) != project:
        raise SourceError(f"{where} belongs to project {task.get('project')}")
    if not isinstance(task.get("data"), dict):
        raise SourceError(f"{where} has no data")
    for name in ("annotations", "predictions", "drafts"):
        parts = task.get(name)
        if not _is_rows(parts) or not all("result" in part for part in parts):
            raise SourceError(f"{where} has no whole {name}: is this a Label Studio that syncd knows?")


def row_of(task: Mapping[str, object]) -> Row:
    """What a flat listing, or a body, says of a task: the same fields in both."""
    annotations, cancelled, predictions = (integer(task, name) for name in ("total_annotations", "cancelled_annotations", "total_predictions"))
    revision = Revision(moment(task, "created_at"), moment(task, "updated_at"), (annotations, cancelled, predictions))
    return Row(integer(task, "id"), revision, Counts(1, annotations, predictions))


def _project(row: Mapping[str, object]) -> Collection:
    return Collection(str(integer(row, "id")), str(row.get("title") or ""), moment(row, "created_at"), integer(row, "task_number"))


def mapping(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise SourceError(f"GET {where}: the answer is no JSON object: check url")
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
