"""Labelbox's wire: one question at a time, its errors sorted, its budget kept, and the few listings a backup needs.

Knows nothing of Checkpoints. No live Labelbox was ever asked: what is said here comes from its SDK, 7.17.0, and its documents. Rules:
- An answer that has another shape than the SDK expects is an error, never an absence (I4).
- Errors are told by `extensions.code`, not by status. Only RESOURCE_NOT_FOUND says that something is not there; a refusal never does.
- Every try takes its turn in the line, which all Sources of one key share. Signed URLs belong to another server and cost nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple, TypeVar

from syncd import __version__, encode
from syncd.clock import parse_time
from syncd.errors import AccessError, SourceError, TransientError, discreet
from syncd.model import Collection
from syncd.retry import Retry
from syncd.sources import labelbox_queries as queries
from syncd.sources.http import Answer, Http

LOG = logging.getLogger("syncd.labelbox")
T = TypeVar("T")
Object = Mapping[str, object]

PAGE = 100  # things in a listing; a shorter page is the last one, as in the SDK
KINDS = ("projects", "datasets", "slices", "model_runs")
_SINGLE = {"projects": queries.PROJECT, "datasets": queries.DATASET, "slices": queries.SLICE, "model_runs": queries.MODEL_RUN}
_REFUSED = frozenset({"AUTHENTICATION_ERROR", "AUTHORIZATION_ERROR"})
_FINAL = frozenset({"GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED", "MALFORMED_REQUEST", "RESOURCE_CONFLICT"})
_FINAL_STATUSES = frozenset({"400", "422", "426"})  # inside INTERNAL_SERVER_ERROR; 426: the plan is used up
_LIMIT = re.compile(r"limit|exceed|too many|concurren", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,18}")
_SHOWN = 300  # characters of a server's own words in a message


class LimitError(TransientError):
    """Too many at a time: not now, and later all the same."""


class NotFoundError(SourceError):
    """The server itself says that there is no such thing."""


def explain(detail: str) -> str:
    """What a person should do about a refusal."""
    if "permission" in detail.lower() or "authoriz" in detail.lower():
        return "the key's user may not read this: use the key of a user who may"
    return "the key is refused: create one in Labelbox (Workspace settings, API), and check that url is the server it belongs to"


class Probe(NamedTuple):
    """What one look shows of a Collection; None where it does not say. rows, labels: how many it has; activity: when somebody last worked on it,
    microseconds; mark: changes with what else it shows; asked_at: a moment of the server's clock before the look.
    """

    rows: int | None
    activity: int | None
    labels: int | None
    mark: str
    asked_at: int | None


class Api:
    """The questions a backup asks, all of them reading but for exports (see `labelbox_export`)."""

    def __init__(self, http: Http, retry: Retry, path: str) -> None:
        self._http, self._retry, self._path = http, retry, path
        self._user = ""

    def retried(self, attempt: Callable[[], T]) -> T:
        """Tried again while it raises TransientError, then SourceError."""
        return self._retry.call(attempt)

    def once(self, query: str, **variables: object) -> tuple[Object, Answer]:
        """One try of a question: its data. Raises TransientError, NotFoundError, SourceError, AccessError."""
        path = self._path.replace("/graphql", "/_gql") if query in queries.EXPERIMENTAL else self._path
        answer = self._http.ask(path, {"query": query, "variables": variables}, {"X-User-Agent": f"syncd {__version__}"}, _fault)
        return part(mapping(answer.body, "the answer"), "data"), answer

    def ask(self, query: str, **variables: object) -> Object:
        """The data of an answer."""
        return self.retried(lambda: self.once(query, **variables))[0]

    def signed(self, url: str) -> Iterator[bytes]:
        """One try of a file that Labelbox gave an address of; see `Http.download`."""
        return self._http.download(url)

    def file(self, url: str) -> bytes:
        """A file that belongs to a row, with the key if it is Labelbox' own; empty when there is none. Raises TaskError, SourceError."""
        return self.retried(lambda: b"".join(self._http.download(url, authorized=True)))

    def user(self) -> str:
        """The id of the key's owner: what it started is listed there."""
        self._user = self._user or text(part(self.ask(queries.USER), "user"), "id")
        return self._user

    def collections(self, kind: str) -> list[Collection]:
        """Every Collection of a kind that the key can see."""
        if kind == "projects":
            rows = self._pages(queries.PROJECTS, "projects", param_0=False)
        elif kind == "datasets":
            rows = self._pages(queries.DATASETS, "datasets", param_0=False)
        elif kind == "slices":
            rows = objects(self.ask(queries.SLICES), "catalogSavedQueries")
        else:
            models = self._pages(queries.MODELS, "models")
            rows = [run for model in models for run in self._pages(queries.MODEL_RUNS, "model", "modelRuns", param_0=text(model, "id"))]
        return list({found.id: found for found in (_collection(kind, row) for row in rows)}.values())  # a page may repeat what moved

    def one(self, kind: str, id_: str) -> Object:
        """One Collection's own fields. Raises NotFoundError when the server itself says that there is none."""
        found = self.ask(_SINGLE[kind], param_0=id_)
        (value,) = found.values() if len(found) == 1 else (None,)
        own = mapping(value, f"{kind} {id_}")
        if own.get("id") != id_:
            raise SourceError(f"Labelbox answered with something else than {id_}")
        return own

    def row_is_gone(self, row: str) -> bool:
        """Whether the server says that there is no such data row, in either way it has."""
        try:
            found = self.ask(queries.DATA_ROW, param_0=row)
        except NotFoundError:
            return True
        return "dataRow" in found and found["dataRow"] is None

    def probe(self, kind: str, id_: str) -> Probe:
        """One look. Only projects say when somebody worked on them; the others' rows were worked on in some project, so the latest of all counts."""
        if kind == "projects":
            data, answer = self.retried(lambda: self.once(queries.PROBE, param_0=id_))
            own = part(data, "project")
            rows = integer(own, "dataRowCount")
            activity = moment(own, "lastActivityTime")
            return Probe(rows, activity if rows else activity or 0, integer(own, "labelCount"), "", answer.asked_at)
        data, answer = self.retried(lambda: self.once(_SINGLE[kind], param_0=id_))
        own = mapping(next(iter(data.values()), None), f"{kind} {id_}")
        count = integer(own, "rowCount") if kind == "datasets" else self._slice_rows(id_) if kind == "slices" else None
        latest = max((moment(row, "lastActivityTime") or 0 for row in self._pages(queries.PROJECTS, "projects", param_0=False)), default=0)
        return Probe(count, latest, None, sha256(encode.dumps(own)).hexdigest()[:16], answer.asked_at)

    def project(self, id_: str) -> Object:
        """A project with what belongs to it: its ontology with all feature schemas, its workflow, queues and batches."""
        try:
            found = self.ask(queries.SETTINGS, id=id_, workflow=True)
        except NotFoundError:  # an old project has no workflow
            found = self.ask(queries.SETTINGS, id=id_, workflow=False)
        batches: list[Object] = []
        cursor: object = None
        while True:
            work = part(self.ask(queries.WORK, **{"id": id_, "from": cursor, "first": PAGE}), "project")
            batches += objects(part(work, "batches"), "nodes")
            following = part(part(work, "batches"), "pageInfo").get("endCursor")
            if not following or following == cursor:
                own, workflow = part(found, "project"), found.get("projectWorkflow")
                return {**own, "workflow": workflow, "taskQueues": objects(work, "taskQueues"), "batches": batches}
            cursor = following

    def _slice_rows(self, id_: str) -> int:
        found = self.ask(queries.COUNT, **{"id": id_, "from": None, "first": 1})
        return integer(part(found, "getDataRowIdentifiersBySavedQuery"), "totalCount")

    def _pages(self, query: str, *path: str, **variables: object) -> list[Object]:
        """All of a listing by skip and first."""
        rows: list[Object] = []
        while True:
            found = self.ask(query % (len(rows), PAGE), **variables)
            for step in path[:-1]:
                found = part(found, step)
            page = objects(found, path[-1])
            rows += page
            if len(page) < PAGE:
                return rows

    def task(self, id_: str) -> Object | None:
        """A task as the server tells it; None when it tells of none."""
        try:
            return next(iter(self._pages(queries.TASK, "user", "createdTasks", param_0=id_, param_1=self.user())), None)
        except NotFoundError:
            return None

    def named(self, name: str) -> str:
        """The id of the task of that name; empty when none can be found. The SDK can ask so and never does: a refusal counts as none."""
        try:
            found = self._pages(queries.NAMED, "user", "createdTasks", param_0=name, param_1=self.user())
        except SourceError as error:
            LOG.info("tasks can't be looked for by name: %s", error)
            found = []
        return next((text(task, "id") for task in found if task.get("name") == name), "")


def _fault(body: object, retry_after: float | None) -> Exception | None:
    """The error that a GraphQL answer stands for."""
    if not isinstance(body, dict):
        return SourceError("Labelbox answered with something else than an object: check url")
    errors = body.get("errors")
    if isinstance(errors, list) and errors:
        return _first(errors[0] if isinstance(errors[0], dict) else {}, retry_after)
    said = body.get("message")
    if isinstance(said, str) and said.startswith("You have exceeded"):  # no status, no code
        return TransientError(f"Labelbox: {discreet(said)[:_SHOWN]}", retry_after)
    return None


def _first(error: Object, retry_after: float | None) -> Exception:
    extensions = _dict(error.get("extensions"))
    code, said = str(extensions.get("code") or "no code"), discreet(str(error.get("message") or ""))[:_SHOWN]
    status = str(_dict(extensions.get("exception")).get("status") or "")
    words = f"Labelbox: {code}: {said}"
    if code in _REFUSED:
        return AccessError(f"{words}; {explain(code)}")
    if code == "RESOURCE_NOT_FOUND":
        return NotFoundError(words)
    if code in _FINAL or status in _FINAL_STATUSES:
        return SourceError(words)
    if _LIMIT.search(said):
        return LimitError(words, retry_after)
    return TransientError(words, retry_after) if code == "INTERNAL_SERVER_ERROR" else SourceError(words)


def _collection(kind: str, row: Object) -> Collection:
    id_, count = text(row, "id"), row.get("dataRowCount", row.get("rowCount"))
    shown = id_ if kind == "projects" else f"{kind}/{id_}"
    return Collection(shown, str(row.get("name") or ""), moment(row, "createdAt") or 0, count if isinstance(count, int) else None)


def _dict(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _odd(what: str) -> SourceError:
    return SourceError(f"Labelbox answered without {what}: is this a version that syncd knows (that of SDK {queries.SDK})?")


def mapping(value: object, what: str) -> Object:
    if not isinstance(value, dict):
        raise _odd(what)
    return value


def part(found: Object, name: str) -> Object:
    """An object in an object."""
    return mapping(found.get(name), name)


def objects(found: Object, name: str) -> list[Object]:
    """A list of objects in an object."""
    value = found.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _odd(f"a list of {name}")
    return value


def text(found: Object, name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise _odd(name)
    return value


def integer(found: Object, name: str) -> int:
    """A whole number, which may be written as a text."""
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str) or not _NUMBER.fullmatch(str(value)):
        raise _odd(f"a number as {name}")
    return int(value)


def moment(found: Object, name: str) -> int | None:
    """Microseconds; None when there is none."""
    value = found.get(name)
    if value is None:
        return None
    try:
        return parse_time(str(value))
    except ValueError:
        raise _odd(f"a time as {name}") from None
