"""Exports of the stand-in for Labelbox: what a mutation selects, the task it makes, and the files that hold its lines.

A file ends where its size says, in the middle of a line or of a character. What an export holds is decided when it is started, as the index sees it
then.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.fakes.labelbox_graphql import Refused
from tests.fakes.labelbox_rows import Wanted, encode, render, virtual_id, virtual_number, virtual_state, virtual_template
from tests.fakes.labelbox_world import State, World, read_time

MOST_IDS, MOST_SCOPES = 2000, 30
PER_PROJECT, PER_ORGANIZATION = 10, 20
MUTATIONS = {
    "exportDataRowsInProject": "projectId",
    "exportDataRowsInCatalog": "",
    "exportDataRowsInSlice": "sliceId",
    "exportDataRowsInModelRun": "modelRunId",
}
_DATA_ROW = {"mediaTypeOverride", "includeAttachments", "includeEmbeddings", "includeMetadata", "includeDataRowDetails"}
_LABELS = {"includeProjectDetails", "includePerformanceDetails", "includeLabelDetails", "includeInterpolatedFrames"}
_CATALOG = _DATA_ROW | _LABELS | {"includePredictions", "projectIds", "modelRunIds", "allProjects", "allModelRuns"}
_PARAMS = {
    "exportDataRowsInProject": _DATA_ROW | _LABELS,
    "exportDataRowsInCatalog": _CATALOG,
    "exportDataRowsInSlice": _CATALOG,
    "exportDataRowsInModelRun": _DATA_ROW | {"includePredictions", "includeModelRunDetails"},
}
_STATUSES = {"InReview": "IN_REVIEW", "InRework": "IN_REWORK", "Done": "DONE"}
_TIMES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")

Test = Callable[[str, State], bool]


@dataclass(slots=True)
class Content:
    """The bytes of one stream, addressed by offset: `count` lines made from `template`, then `tail`."""

    tail: bytes = b""
    template: bytes = b""
    count: int = 0

    @property
    def width(self) -> int:
        return len(self.template % {b"n": 0}) if self.count else 0

    @property
    def size(self) -> int:
        return self.width * self.count + len(self.tail)

    @property
    def lines(self) -> int:
        return self.count + self.tail.count(b"\n")

    def read(self, start: int, end: int) -> bytes:
        """Bytes start..end, end exclusive."""
        made, width = self.width * self.count, self.width
        if start >= made:
            return self.tail[start - made : end - made]
        first, last = start // width, min(-(-end // width), self.count)
        block = b"".join(self.template % {b"n": number} for number in range(first, last))
        return block[start - first * width : end - first * width] + (self.tail[: end - made] if end > made else b"")

    def line(self, offset: int) -> int:
        """The number of the line this byte is in."""
        made = self.width * self.count
        return offset // self.width if offset < made else self.count + self.tail.count(b"\n", 0, offset - made)


@dataclass(slots=True)
class Export:
    """One export task. `polls`: how often it still answers IN_PROGRESS; `ready_at`: not before this moment."""

    id: str
    mutation: str
    project: str
    name: str
    user: str
    created_at: int
    updated_at: int
    ready_at: int
    polls: int
    result: Content = field(default_factory=Content)
    errors: Content = field(default_factory=Content)
    ending: str = "COMPLETE"
    status: str = "IN_PROGRESS"

    def look(self, now: int, *, poll: bool = False) -> str:
        """The status; each poll brings a running export nearer to its end."""
        if self.status == "IN_PROGRESS" and self.ready_at <= now and self.polls <= 0:
            self.status, self.updated_at = self.ending, now
        elif self.status == "CANCELLING":
            self.status = "CANCELED"
        elif poll:
            self.polls -= 1
        return self.status


class Exports:
    """All export tasks of the organization. `seconds`, `polls`: how long those to come will run, by the clock and by how often they are asked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: dict[str, Export] = {}
        self.seconds = 0.0
        self.polls = 0
        self.frames_as_url = False
        self._states: dict[str, State] = {}
        self._numbers = itertools.count(1)

    def running(self) -> list[Export]:
        return [task for task in self.tasks.values() if task.look(self.world.clock()) in {"IN_PROGRESS", "CANCELLING"}]

    def occupy(self, project: str, count: int) -> list[Export]:
        """Exports that somebody else has running; end one by `task.polls = 0`."""
        found = [self._task("exportDataRowsInProject", project, "", "somebody else") for _ in range(count)]
        for task in found:
            task.polls = 1 << 30
        return found

    def start(self, mutation: str, given: Mapping[str, Any], user: str, api: str) -> Export:
        """The task of a new export. Raises Refused for what the server would not take."""
        filters, params = given.get("filters") or {}, given.get("params") or {}
        unknown = params.keys() - _PARAMS[mutation]
        if unknown or not given.get("isStreamableReady") or given.keys() - {"taskName", "filters", "isStreamableReady", "params", "streamable"}:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f'Variable "$input" got invalid value: {sorted(unknown) or sorted(given)}', 400)
        scope = filters.get(MUTATIONS[mutation], "") if MUTATIONS[mutation] else ""
        project = scope if mutation == "exportDataRowsInProject" else ""
        tests = [self._scope(mutation, scope, filters), *self._tests(mutation, project, filters)]
        projects, runs = self._parts(mutation, scope, params)
        self._refuse_too_many(project)
        task = self._task(mutation, project, given.get("taskName") or "", user)
        self._fill(task, tests, Wanted(params, task.id, api, projects, runs, bool(params.get("includePredictions")), self.frames_as_url), filters)
        return task

    def _task(self, mutation: str, project: str, name: str, user: str) -> Export:
        now = self.world.clock()
        made = Export(f"ctask{next(self._numbers):020d}", mutation, project, name, user, now, now, now + int(self.seconds * 1e6), self.polls)
        self.tasks[made.id] = made
        return made

    def _refuse_too_many(self, project: str) -> None:
        running = self.running()
        if len(running) >= PER_ORGANIZATION or (project and sum(task.project == project for task in running) >= PER_PROJECT):
            raise Refused("OPERATION_NOT_ALLOWED", "The limit of running exports has been reached, try again when one of them has ended")

    def _scope(self, mutation: str, scope: str, filters: Mapping[str, Any]) -> Test:
        """The rows an export is about before any filter."""
        world = self.world
        homes: dict[str, Mapping[str, Any]] = {"projectId": world.projects, "sliceId": world.slices, "modelRunId": world.runs}
        key = MUTATIONS[mutation]
        if filters.keys() - {key, "searchQuery"} or ("searchQuery" in filters and mutation.endswith(("Slice", "ModelRun"))):
            raise Refused("GRAPHQL_VALIDATION_FAILED", f'Variable "$input" got invalid value at "input.filters": {sorted(filters)}', 400)
        if key and (scope not in homes[key] or getattr(homes[key][scope], "deleted", False)):
            raise Refused("RESOURCE_NOT_FOUND", f"Resource {scope!r} not found")
        if key == "projectId":
            return lambda _, state: scope in state.members
        if key == "sliceId":
            return lambda _, state: world.slices[scope].where(state)
        return (lambda _, state: scope in state.runs) if key else (lambda *_: True)

    def _parts(self, mutation: str, scope: str, params: Mapping[str, Any]) -> tuple[Sequence[str] | None, Sequence[str] | None]:
        """Of which projects and of which model runs it tells."""
        if mutation == "exportDataRowsInProject":
            return [scope], None
        if mutation == "exportDataRowsInModelRun":
            return None, [scope]
        projects, runs = params.get("projectIds"), params.get("modelRunIds")
        if len(projects or ()) > MOST_SCOPES or len(runs or ()) > MOST_SCOPES:
            raise Refused("MALFORMED_REQUEST", f"projectIds and modelRunIds cannot exceed {MOST_SCOPES} items")
        return list(self.world.projects) if params.get("allProjects") else projects, list(self.world.runs) if params.get("allModelRuns") else runs

    def _tests(self, mutation: str, project: str, filters: Mapping[str, Any]) -> list[Test]:
        query = (filters.get("searchQuery") or {}).get("query") or []
        return [_test(item, project, catalog=mutation == "exportDataRowsInCatalog") for item in query]

    def _fill(self, task: Export, tests: Sequence[Test], wanted: Wanted, filters: Mapping[str, Any]) -> None:
        chosen = [(row, state) for row, state in self.world.indexed() if all(test(row, state) for test in tests)]
        random.Random(task.id).shuffle(chosen)  # no order is promised
        lines = [encode(render(self.world, row, state, wanted)) for row, state in chosen if row not in self.world.broken]
        broken = [encode({"data_row_id": row, "message": "Failed to export data row"}) for row, _ in chosen if row in self.world.broken]
        task.result, task.errors = Content(b"".join(lines)), Content(b"".join(broken))
        if task.project and self.world.projects[task.project].virtual:
            self._fill_virtual(task, tests, wanted, filters)

    def _fill_virtual(self, task: Export, tests: Sequence[Test], wanted: Wanted, filters: Mapping[str, Any]) -> None:
        """The rows that are made from their number: those asked for by id, or all of them, or none."""
        count = self.world.projects[task.project].virtual
        state = self._states.setdefault(task.project, virtual_state(self.world, task.project))
        template = virtual_template(self.world, state, wanted)
        by_id = [item["ids"] for item in (filters.get("searchQuery") or {}).get("query") or () if item["type"] == "data_row_id"]
        if by_id:
            numbers = [number for number in map(virtual_number, set(by_id[0])) if number is not None and number < count]
            found = [template % {b"n": number} for number in numbers if all(test(virtual_id(number), state) for test in tests)]
            task.result.tail = b"".join(found) + task.result.tail
        elif all(test(virtual_id(0), state) for test in tests):
            task.result.template, task.result.count = template, count


def _test(item: Mapping[str, Any], project: str, *, catalog: bool) -> Test:
    """One filter as a question to a data row; refuses what the server has no filter for."""
    kind, parts = item.get("type"), item.keys()
    if kind in {"data_row_last_activity_at", "labeled_at"} and parts == {"type", "value"}:
        return _time_test(kind, item["value"], project)
    if kind == "task_queue_not_exist" and parts == {"type"} and not catalog:
        return lambda _, state: state.members[project].status == "TO_LABEL"
    if kind == "task_queue_status" and parts == {"type", "status"} and item["status"] in _STATUSES and not catalog:
        return lambda _, state: state.members[project].status == _STATUSES[item["status"]]
    if (
        kind not in {"data_row_id", "global_key", "dataset" if catalog else "batch"}
        or parts != {"type", "ids", "operator"}
        or item["operator"] != "is"
    ):
        raise Refused("MALFORMED_REQUEST", f"Unknown filter: {dict(item)!r}")
    return _id_test(kind, item["ids"], project)


def _id_test(kind: str, given: Sequence[str], project: str) -> Test:
    if not 1 <= len(given) <= MOST_IDS:
        raise Refused("MALFORMED_REQUEST", f"{kind} filter takes 1 to {MOST_IDS} items")
    ids = frozenset(given)
    tests: dict[str, Test] = {
        "data_row_id": lambda row, _: row in ids,
        "global_key": lambda _, state: state.global_key in ids,
        "dataset": lambda _, state: state.dataset in ids,
        "batch": lambda _, state: state.members[project].batch in ids,
    }
    return tests[kind]


def _time_test(kind: str, value: Mapping[str, Any], project: str) -> Test:
    """Whole seconds, both ends inclusive."""
    operator, zone = value.get("operator"), value.get("timezone") or ""
    bounds = value["value"] if operator == "BETWEEN" else {"min" if operator == "GREATER_THAN_OR_EQUAL" else "max": value["value"]}
    if operator not in {"BETWEEN", "GREATER_THAN_OR_EQUAL", "LESS_THAN_OR_EQUAL"} or not isinstance(bounds, Mapping):
        raise Refused("MALFORMED_REQUEST", f"Unknown operator {operator!r}")
    least = _second(bounds["min"], zone) if "min" in bounds else 0
    most = _second(bounds["max"], zone) if "max" in bounds else 1 << 60
    if kind == "data_row_last_activity_at":
        return lambda _, state: least <= state.last_activity // 1_000_000 <= most

    def labeled(_: str, state: State) -> bool:
        members = [state.members[project]] if project else state.members.values()
        times = (read_time(one["label_details"]["created_at"]) // 1_000_000 for member in members for one in member.labels)
        return any(least <= at <= most for at in times)

    return labeled


def _second(text: Any, zone: str) -> int:
    """Seconds since 1970 of a filter's time. One with an offset means that moment; one without means the timezone named beside it."""
    for form in _TIMES:
        try:
            found = datetime.strptime(text, form)  # noqa: DTZ007 - the zone is applied below
        except (TypeError, ValueError):
            continue
        if found.tzinfo is None:
            found = found.replace(tzinfo=ZoneInfo(zone) if zone not in {"", "UTC"} else UTC)
        return int(found.timestamp())
    raise Refused("MALFORMED_REQUEST", f"Invalid date: {text!r}")
