"""The rows behind the stand-in for Label Studio: tasks, the shapes of their parts, and the filters of the task list.

Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

VIRTUAL_EPOCH = 1_600_000_000_000_123  # dates with a fraction, as a busy server has them
VIRTUAL_STEP = 1_000_000  # microseconds between two virtual tasks

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_TIMES = ("created_at", "updated_at")


class Rejected(Exception):  # noqa: N818 - an answer, not a fault
    """The server refuses the query with this status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def show_time(at: int | None) -> str | None:
    """As the server prints it: without a fraction when the microsecond is 0."""
    return None if at is None else (_EPOCH + timedelta(microseconds=at)).replace(tzinfo=None).isoformat() + "Z"


def read_time(text: str) -> int:
    try:
        found = datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise Rejected(500, str(error)) from None
    return (found - _EPOCH) // timedelta(microseconds=1)


@dataclass(slots=True)
class Row:
    """One task. Counters are stored, as on the server, so that they can lie."""

    id: int
    inner_id: int
    data: Any
    created_at: int
    updated_at: int
    meta: Any = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    drafts: list[dict[str, Any]] = field(default_factory=list)
    total_annotations: int = 0
    cancelled_annotations: int = 0
    total_predictions: int = 0
    is_labeled: bool = False
    updated_by: int | None = None
    poison: bool = False

    def recount(self) -> None:
        self.cancelled_annotations = sum(annotation["was_cancelled"] for annotation in self.annotations)
        self.total_annotations = len(self.annotations) - self.cancelled_annotations
        self.total_predictions = len(self.predictions)
        self.is_labeled = self.total_annotations > 0

    def completed_at(self) -> int | None:
        return max((annotation["created_at"] for annotation in self.annotations), default=None) if self.is_labeled else None

    def column(self, name: str) -> Any:
        if name == "draft_exists":
            return bool(self.drafts)
        if name == "completed_at":
            return self.completed_at()
        if name in {"overlap", "storage_filename"}:
            return {"overlap": 1}.get(name)
        if name in {"id", "inner_id", "total_annotations", "cancelled_annotations", "total_predictions", "is_labeled", *_TIMES}:
            return getattr(self, name)
        raise Rejected(500, f"Cannot resolve keyword '{name}' into field.")


def _span(item: Mapping[str, Any], *, time: bool) -> tuple[float, float]:
    """The least and the greatest whole number a filter lets through."""
    value, endless = item["value"], float("inf")
    least, most = (value["min"], value["max"]) if item["operator"] == "in" else (value, value)
    low, high = (read_time(least), read_time(most)) if time else (int(float(least)), int(float(most)))
    match item["operator"]:
        case "greater":
            return low + 1, endless
        case "greater_or_equal":
            return low, endless
        case "less":
            return -endless, high - 1
        case "less_or_equal":
            return -endless, high
        case "equal" | "in":
            return low, high
    raise Rejected(500, f"the stand-in has no {item['operator']} over virtual tasks")


def column_name(item: Mapping[str, Any]) -> str:
    name = str(item["filter"]).removeprefix("filter:tasks:")
    if "__" in name:
        allow = f'"__" is not generally allowed in filters. Consider asking your administrator to add "{name}" to DATA_MANAGER_FILTER_ALLOWLIST'
        raise Rejected(400, f"{allow}, but note that some filter expressions may pose a security risk")
    return name


def _cast(kind: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _cast(kind, part) for name, part in value.items()}
    if kind == "Datetime":
        return read_time(value)
    if kind == "Boolean":
        return str(value).lower() in {"true", "1", "yes"}
    if kind == "Number":
        try:
            return float(value)
        except ValueError as error:
            raise Rejected(500, str(error)) from None
    return value


def test_of(item: Mapping[str, Any]) -> Callable[[Row], bool]:
    """One filter as a question to a row; refuses what the server refuses."""
    name, operator = column_name(item), item["operator"]
    Row(0, 0, None, 0, 0).column(name)
    if operator in {"in_list", "not_in_list"}:
        listed = frozenset(item["value"])
        return lambda row: (row.column(name) in listed) == (operator == "in_list")
    if operator == "empty":
        empty = str(item["value"]).lower() == "true"
        nothing = (None, 0) if name.endswith(("annotations", "predictions")) else (None,)
        return lambda row: (row.column(name) in nothing) == empty
    value = _cast(item["type"], item["value"])
    compare: dict[str, Callable[[Any], bool]] = {
        "equal": lambda found: found == value,
        "greater": lambda found: found > value,
        "greater_or_equal": lambda found: found >= value,
        "less": lambda found: found < value,
        "less_or_equal": lambda found: found <= value,
        "not_equal": lambda found: found != value,
        "in": lambda found: value["min"] <= found <= value["max"],
        "not_in": lambda found: not value["min"] <= found <= value["max"],
    }
    chosen = compare.get(operator, compare["equal"])  # the server takes an unknown operator for equality

    def test(row: Row) -> bool:
        found = row.column(name)
        return found is not None and chosen(found)

    return test


def annotation(part_id: int, task: int, project: int, now: int) -> dict[str, Any]:
    return {
        "id": part_id,
        "result": [],
        "created_username": "",
        "created_ago": "",
        "completed_by": 1,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": now,
        "updated_at": now,
        "draft_created_at": None,
        "lead_time": None,
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": task,
        "project": project,
        "updated_by": None,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    }


def prediction(part_id: int, task: int, project: int, now: int) -> dict[str, Any]:
    return {
        "id": part_id,
        "result": [],
        "model_version": "m1",
        "created_ago": "",
        "score": None,
        "cluster": None,
        "neighbors": None,
        "mislabeling": 0.0,
        "created_at": now,
        "updated_at": now,
        "model": None,
        "model_run": None,
        "task": task,
        "project": project,
    }


def dated(part: Mapping[str, Any], now: int) -> dict[str, Any]:
    minutes = max(0, now - part["created_at"]) // 60_000_000
    return {**part, "created_at": show_time(part["created_at"]), "updated_at": show_time(part["updated_at"]), "created_ago": f"{minutes}\xa0minutes"}


_TEXT = "Two cats are asleep on a wall, late in the day; a third one looks at the camera and seems to be about to jump. "


def _choice(mood: str, at: float) -> dict[str, Any]:
    place = {"from_name": "mood", "to_name": "text", "type": "choices", "origin": "manual"}
    return {"id": f"r{at}", **place, "value": {"choices": [mood], "confidence": at}}


_MOODS = [
    {"result": [_choice("good", 0.25), _choice("bad", 1 / 3)], "lead_time": 12.5, "ground_truth": False},
    {"result": [_choice("bad", 2 / 3)], "lead_time": 7.25, "ground_truth": False},
]
_GUESS = {"result": [_choice("good", 0.875)], "score": 0.875, "model_version": "m1"}


def content_of(number: int) -> dict[str, Any]:
    """The virtual task of that number as a file to import: its data, annotations and predictions."""
    odd = number % 2
    return {"data": {"text": f"text {number}. {_TEXT * 3}", "n": number}, "annotations": _MOODS[: 1 + odd], "predictions": [_GUESS] * odd}


class Span(NamedTuple):
    """Virtual tasks: ids from low to high of these parities, less some."""

    low: int
    high: int
    parities: frozenset[int]
    without: frozenset[int]


NOTHING = Span(1, 0, frozenset(), frozenset())


class Virtual:
    """Tasks first..last of 2 KB as functions of their id, less those taken: one annotation, and when the id is odd another and one prediction."""

    def __init__(self, size: int, first: int = 1, project: int = 1) -> None:
        self.size, self.first, self.last = size, first, first + size - 1
        self.taken: set[int] = set()
        self._project = project

    def make(self, task_id: int) -> Row:
        at = VIRTUAL_EPOCH + task_id * VIRTUAL_STEP
        odd = task_id % 2
        content = content_of(task_id)
        row = Row(task_id, task_id - self.first + 1, content["data"], at, at)
        row.annotations = [annotation(task_id * 2 + n, task_id, self._project, at) | fields for n, fields in enumerate(content["annotations"])]
        row.predictions = [prediction(task_id, task_id, self._project, at) | fields for fields in content["predictions"]]
        row.total_annotations, row.total_predictions, row.is_labeled = 1 + odd, odd, True
        return row

    def find(self, task_id: int) -> Row | None:
        return self.make(task_id) if self.first <= task_id <= self.last and task_id not in self.taken else None

    def take(self, task_id: int) -> Row | None:
        """The task, which is virtual no longer."""
        found = self.find(task_id)
        self.taken.add(task_id)
        return found

    def narrow(self, items: Sequence[Mapping[str, Any]], matches: Callable[[Row], bool]) -> Span:
        """What a query selects. Filters on id, inner_id and times bound the ids; what the others say, one task of each parity tells for all."""
        low, high, without = self.first, self.last, set(self.taken)
        for item in items:
            name = column_name(item)
            if name == "id" and item["operator"] in {"not_in_list", "not_equal"}:
                without.update(item["value"] if item["operator"] == "not_in_list" else [item["value"]])
            elif name in {"id", "inner_id", *_TIMES}:
                low, high = self._bound(low, high, item, name)
        without = {number for number in without if low <= number <= high}
        examples = (next((n for n in range(low + (low % 2 != parity), high + 1, 2) if n not in without), None) for parity in (0, 1))
        return Span(low, high, frozenset(n % 2 for n in examples if n is not None and matches(self.make(n))), frozenset(without))

    def _bound(self, low: int, high: int, item: Mapping[str, Any], name: str) -> tuple[int, int]:
        least, most = _span(item, time=name in _TIMES)
        if name == "inner_id":
            least, most = least + self.first - 1, most + self.first - 1
        if name in _TIMES:
            least, most = -((VIRTUAL_EPOCH - least) // VIRTUAL_STEP), (most - VIRTUAL_EPOCH) // VIRTUAL_STEP
        return int(max(low, least)), int(min(high, most))

    def all(self) -> Span:
        return self.narrow((), lambda _: True)

    @staticmethod
    def sums(span: Span) -> tuple[int, int, int]:
        """Tasks, annotations, predictions."""
        even, odd = (
            len(range(span.low + (span.low % 2 != parity), span.high + 1, 2)) - sum(number % 2 == parity for number in span.without)
            if parity in span.parities
            else 0
            for parity in (0, 1)
        )
        return odd + even, odd * 2 + even, odd

    def rows(self, span: Span, *, down: bool = False) -> Iterator[Row]:
        numbers = range(span.low, span.high + 1)
        return (self.make(n) for n in (reversed(numbers) if down else numbers) if n % 2 in span.parities and n not in span.without)
