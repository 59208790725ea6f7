"""Labelbox as a Source: data rows with their labels, of projects, datasets, slices and model runs, by streamed exports.

Reads only, but for starting and cancelling exports. A pass is in `labelbox_reading`, what a Collection holds in `labelbox_scope`, an export in
`labelbox_export`, the wire in `labelbox_api`. Rules:
- Only what the config names is read; all projects when it names nothing.
- A row is believed to be absent when an export that asks for exactly its id lacks it; gone from Labelbox, when the whole catalog lacks it, too, and
  Labelbox itself says that there is no such row (I4). A file is absent with its row, or when that does not refer to it.
- A Collection is believed to be gone when Labelbox itself says so by its id, and lists it no more; a refusal proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from syncd.clock import Clock
from syncd.errors import SourceError, TaskError
from syncd.fields import Duration, Fields, Secret
from syncd.keys import SIDE
from syncd.known import Known
from syncd.model import Collection, Gone
from syncd.retry import Retry
from syncd.scratch import chunks
from syncd.sources import labelbox_api as api
from syncd.sources import labelbox_queries as queries
from syncd.sources.base import Batch, Selection, Who, selected
from syncd.sources.http import Http, Limits, Token
from syncd.sources.labelbox_export import Exports, Order, name_for
from syncd.sources.labelbox_reading import Reading
from syncd.sources.labelbox_rows import refused, rows_of
from syncd.sources.labelbox_scope import MOST_IDS, Export, Filters, Scope

_CONNECTIONS = 4
_CHANGING = frozenset({"updatedAt", "lastActivityTime", "dataRowCount", "rowCount", "size"})


class Config(Fields):
    """Labelbox. Start with `type: labelbox` and `api_key`."""

    kinds: ClassVar[tuple[str, ...]] = api.KINDS

    type: Literal["labelbox"]
    api_key: Secret
    """An API key (Workspace settings, API)."""
    url: str = "https://api.labelbox.com/graphql"
    """Its GraphQL address, should it be another."""
    export: Export = Export()
    """What is backed up of each data row."""
    filters: Filters = Filters()
    """Only some data rows."""
    masks: bool = False
    """Keep the pictures of masks, too, beside their data row."""
    requests_per_minute: int = Field(default=1000, ge=1, le=100_000)
    """Labelbox allows 1,500 on its free plan, for all that use the key."""
    export_timeout: Duration = 7200.0
    """How long an export may run, or wait for others to end."""
    retry_for: Duration = 120.0
    """How long a failing request is tried again."""
    timeout: Duration = 300.0
    """How long Labelbox may stay silent: starting a large export takes minutes."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not parts.path.endswith("/graphql") or parts.query or "@" in parts.netloc:
            raise ValueError("not the address of a GraphQL server: write it like https://api.labelbox.com/graphql, without user, ? or #")
        return value


def open(config: Config, select: Selection, clock: Clock) -> Labelbox:  # noqa: A001 - the name every edge shares
    """A Source for what `select` names of each kind; all projects when it names nothing."""
    key, parts = config.api_key.get_secret_value().strip(), urlsplit(config.url)
    retry = Retry(clock, retry_for=config.retry_for, exhausted=SourceError)
    origin = f"{parts.scheme}://{parts.netloc}"
    limits = Limits(_CONNECTIONS, config.requests_per_minute / 60, burst=6.0)  # evenly, but for a tenth of a minute's at once
    account = sha256(key.encode()).hexdigest()
    http = Http(origin, retry, Token(f"Bearer {key}"), api.explain, clock, limits, timeout=config.timeout, account=account)
    talk = api.Api(http, retry, parts.path)
    return Labelbox(config, http, talk, Exports(talk, clock, config.export_timeout), select or {"projects": ("*",)})


class _Row(NamedTuple):
    """What is there of a row that was asked for by its id. sides: names of its files; inside: whether it says that it is in the Collection."""

    sides: frozenset[str]
    inside: bool


class Labelbox:
    """The Source. See `sources.base.Source` for what each method promises."""

    waits = True

    def __init__(self, config: Config, http: Http, talk: api.Api, exports: Exports, select: Selection) -> None:
        self._config, self._http, self._api, self._exports, self._select, self.failed = config, http, talk, exports, select, http.failed

    @property
    def requests(self) -> int:
        return self._http.requests

    def collections(self) -> list[Collection]:
        named = ((kind, self._select[kind]) for kind in api.KINDS if kind in self._select)
        return [found for kind, names in named for found in self._api.collections(kind) if selected(names, found.id.rpartition("/")[2], found.title)]

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True, plan: bool = False
    ) -> Iterator[Batch]:
        del drafts, plan  # there are none; an export is but a way to read
        reading = Reading(self._api, self._exports, self._scope(collection), collection.id, known, masks=self._config.masks)
        return reading.incremental(since) if since else reading.full(position)

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        scope, gone = self._scope(collection), dict[str, Gone]()
        rows = dict.fromkeys(row for task in tasks if (row := task.partition(SIDE)[0]).isascii())  # others are no ids of Labelbox
        for some in chunks(rows, MOST_IDS):
            asked = self._ask(scope, scope.among(some), some)
            if asked is None:
                continue
            lost = self._lost(scope, [row for row in some if row not in asked])
            for task in tasks:
                row, side, name = task.partition(SIDE)
                if row in lost:
                    gone[task] = lost[row]
                elif side and (there := asked.get(row)) and name not in there.sides:
                    gone[task] = Gone.DELETED
        return gone

    def confirm_collection(self, collection: Collection) -> bool:
        scope = self._scope(collection)
        try:
            self._api.one(scope.kind, scope.id)
        except api.NotFoundError:
            return all(found.id != collection.id for found in self._api.collections(scope.kind))
        return False

    def settings(self, collection: Collection) -> Mapping[str, object]:
        scope = self._scope(collection)
        if scope.kind != "projects":
            return _lasting(self._api.one(scope.kind, scope.id))
        try:
            return {name: _stable(value) for name, value in _lasting(self._api.project(scope.id)).items()}
        except SourceError as error:
            self._api.one(scope.kind, scope.id)  # raises, too, when more than this is wrong
            raise TaskError(str(error)) from None  # the tasks matter more, and parts of it are experimental: they may change any day

    def whoami(self) -> Who:
        found, answer = self._api.retried(lambda: self._api.once(queries.USER))
        return Who(api.text(api.part(found, "user"), "email"), answer.asked_at)

    def close(self) -> None:
        self._http.close()

    def _scope(self, collection: Collection) -> Scope:
        kind, inner, id_ = collection.id.rpartition("/")
        return Scope(kind if inner else "projects", id_, self._config.export, self._config.filters)

    def _lost(self, scope: Scope, rows: Sequence[str]) -> dict[str, Gone]:
        """How these are absent, which the Collection does not show."""
        anywhere = self._ask(scope, scope.anywhere(rows), rows) if rows else None
        if anywhere is None:
            return {}
        # one that is in the Collection after all is odd, unless the config filters it out
        lost = {row: Gone.REMOVED for row, there in anywhere.items() if there is not None and (scope.filtered or not there.inside)}
        return lost | {row: Gone.DELETED for row in rows if row not in anywhere and self._api.row_is_gone(row)}

    def _ask(self, scope: Scope, order: Order, rows: Iterable[str]) -> dict[str, _Row | None] | None:
        """Which of these rows an export shows; None for one that could not be read; None at all when the export proves nothing."""
        wanted, found, failed, count = frozenset(rows), dict[str, _Row | None](), list[str | None](), 0
        task = self._exports.start(order, name_for(scope.id))
        self._exports.wait(task)
        promised, pages = self._exports.stream(task, "RESULT")
        for page in pages:
            shown, bad = rows_of(page.lines, masks=self._config.masks)
            count += len(page.lines)
            found |= {row.task.id: _Row(frozenset(row.sides), scope.id in row.homes) for row in shown if row.task.id in wanted}
            failed += (id_ for id_, _ in bad)
        failed += (refused(line)[0] for page in self._exports.stream(task, "ERRORS").pages for line in page.lines)
        return None if count != promised or None in failed else found | dict.fromkeys(id_ for id_ in failed if id_ is not None)


def _lasting(value: object) -> dict[str, object]:
    """What does not change by work."""
    return {name: part for name, part in value.items() if name not in _CHANGING} if isinstance(value, Mapping) else {}


def _stable(value: object) -> object:
    if isinstance(value, list):
        return sorted(map(_lasting, value), key=lambda item: str(item.get("id")))
    return _lasting(value) if isinstance(value, Mapping) else value
