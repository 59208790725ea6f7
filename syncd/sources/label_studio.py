"""Label Studio as a Source: every task of every project, missing nothing, at the cost of the change (section 4).

Reads only, but for snapshots where the config asks for them (`label_studio_snapshot`). Observed on Label Studio Community 1.23.2; a pass over one
project is in `label_studio_reading`, the wire in `label_studio_api`. Rules:
- The Cursor is the server's own clock (`Date` of a reading's first answer, less the time it took): updated_at is stamped before commit, so the
  greatest one seen may not become it, nor may the local clock (I2). Without a `Date` the Cursor stays.
- A deletion is believed when the API itself says 404 to exactly that id (I4).
- A project's id may be used again after it was deleted: `created_at` of the Collection tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from syncd.clock import Clock
from syncd.errors import SourceError
from syncd.fields import Duration, Fields, Secret
from syncd.known import Known
from syncd.model import Collection, Gone
from syncd.retry import Retry
from syncd.sources import label_studio_api as api
from syncd.sources.base import Batch, Selection, Who, selected
from syncd.sources.http import Http, Limits, Token
from syncd.sources.label_studio_hooks import LabelStudioHooks
from syncd.sources.label_studio_reading import Reading
from syncd.sources.label_studio_snapshot import Snapshots

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
    """Requests to the server at a time, of all Syncs together. More than one helps only where several server processes run."""
    max_requests_per_second: float | None = Field(default=None, gt=0, le=1000)
    """Requests to the server a second, of all Syncs together. Default: as many as one after the other makes."""
    bulk: Literal["auto", "list"] = "list"
    """How a first Run reads large projects: by the task list; or `auto`, by snapshots where they work, for half of the server's work. Those need a
    user who may change projects, show a tab for moments, and Label Studio Community keeps their files: see media/export in its data folder."""
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


def open(config: Config, select: Selection, clock: Clock) -> LabelStudio:  # noqa: A001 - the name every edge shares
    """A Source for what `select["projects"]` names: ids or title patterns; all when absent."""
    return LabelStudio(config, http_of(config, clock), select.get("projects"), clock)


def http_of(config: Config, clock: Clock) -> Http:
    """Requests to that server, with its token of either kind."""
    secret = config.token.get_secret_value().strip()
    auth = api.PersonalToken(secret, clock) if secret.count(".") == 2 else Token(f"Token {secret}")  # noqa: PLR2004 - a JWT has three parts
    retry = Retry(clock, retry_for=config.retry_for, exhausted=SourceError)
    return Http(config.url, retry, auth, api.explain, clock, Limits(config.concurrency, config.max_requests_per_second), timeout=config.timeout)


class LabelStudio:
    """The Source. See `sources.base.Source` for what each method promises."""

    waits = True

    def __init__(self, config: Config, http: Http, projects: Sequence[str] | None, clock: Clock) -> None:
        self._config, self._http, self.failed, self._clock = config, http, http.failed, clock
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="syncd-read")
        self._projects, self._listed = projects, list[Collection]()
        self._api = api.Api(http, labeled_only=config.labeled_only)

    @property
    def requests(self) -> int:
        return self._http.requests

    def collections(self) -> list[Collection]:
        self._listed = self._api.projects()
        return [c for c in self._listed if selected(self._projects, c.id, c.title)]

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True, plan: bool = False
    ) -> Iterator[Batch]:
        config, shortcut = self._config, None
        if config.bulk == "auto" and not (config.labeled_only or plan) and since is None:
            first = position is not None or not known.last_id()
            shortcut = Snapshots(self._api, self._http, config.url, collection.id, self._clock, config.timeout, making=first).after
        reading = Reading(self._api, collection.id, known, self._pool, config.concurrency, shortcut)
        return reading.full(position) if since is None else reading.incremental(since, drafts=drafts)

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        gone: dict[str, Gone] = {}
        ids = [task for task in tasks if task.isdecimal()]  # a foreign id would make another address
        for task, body in zip(ids, self._pool.map(self._api.task, ids), strict=True):
            if body is None:
                gone[task] = Gone.DELETED
            elif str(body.get("project")) != collection.id or (self._config.labeled_only and api.integer(body, "total_annotations") == 0):
                gone[task] = Gone.REMOVED
        return gone

    def confirm_collection(self, collection: Collection) -> bool:
        if not (collection.id.isascii() and collection.id.isdigit()):  # no id of Label Studio's, which answers with a page of HTML
            return False
        if self._api.project(collection.id) is not None:
            return False
        if not self._listed or any(c.id == collection.id for c in self._listed):
            self._listed = self._api.projects()
        return all(c.id != collection.id for c in self._listed)

    def settings(self, collection: Collection) -> Mapping[str, object]:
        project = self._api.project(collection.id)
        if project is None:
            raise SourceError(f"project {collection.id} ({collection.title}) vanished while it was being read")
        return {name: value for name, value in project.items() if name not in _SETTINGS_CHANGING}

    def whoami(self) -> Who:
        return self._api.whoami()

    def hooks(self) -> LabelStudioHooks:
        return LabelStudioHooks(self._http)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()
