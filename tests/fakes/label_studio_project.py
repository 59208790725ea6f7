"""The projects of the stand-in for Label Studio, and the events that change them.

Each event does to dates, counters and drafts what the real server does (verified live by `tests/live/events.py`);
`row`, `silent`, `lie` and `poison` do what only trouble does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

from tests.fakes.label_studio_rows import NOTHING, Rejected, Row, Span, Virtual, annotation, column_name, dated, prediction, show_time, test_of

EMAIL = "ann@example.com"
LABEL_CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="mood" toName="text"><Choice value="good"/><Choice value="bad"/></Choices></View>'
)


class Owner(Protocol):
    """What a project needs of its server."""

    clock: Callable[[], int]
    next_task: int
    projects: dict[int, Project]

    def user(self, user_id: int) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a query selects, in order, and the columns it names; `rows` makes no more of it than asked for."""

    columns: frozenset[str]
    total: int
    annotations: int
    predictions: int
    stream: Callable[[], Iterator[Row]]

    def rows(self, start: int, end: int) -> list[Row]:
        return list(islice(self.stream(), start, end))


class Project:
    """One project: rows that are stored, and so many `virtual` ones, of the next ids, that are made from their id until an event touches them."""

    def __init__(self, owner: Owner, project_id: int, title: str, *, virtual: int = 0, **fields: Any) -> None:
        self.id = project_id
        self.title = title
        self.created_at = owner.clock()
        self.fields: dict[str, Any] = {"label_config": LABEL_CONFIG, "maximum_annotations": 1, "description": ""} | fields
        self.stored: dict[int, Row] = {}
        self.untouched = Virtual(virtual, owner.next_task, project_id)
        owner.next_task += virtual
        self._owner = owner
        self._part = 0
        self._inner = virtual

    # --- reading -------------------------------------------------------------------------------------------------

    def find(self, task_id: int) -> Row | None:
        return self.stored.get(task_id) or self.untouched.find(task_id)

    def shape(self) -> dict[str, Any]:
        """As GET /api/projects/{id}/ answers, in the fields that matter."""
        rows, virtual = self.stored.values(), self.untouched.sums(self.untouched.all())
        counts = {
            "task_number": len(self.stored) + virtual[0],
            "total_annotations_number": sum(sum(not a["was_cancelled"] for a in row.annotations) for row in rows) + virtual[1],
            "total_predictions_number": sum(len(row.predictions) for row in rows) + virtual[2],
            "skipped_annotations_number": sum(sum(a["was_cancelled"] for a in row.annotations) for row in rows),
            "ground_truth_number": sum(sum(a["ground_truth"] for a in row.annotations) for row in rows),
            "finished_task_number": sum(row.is_labeled for row in rows) + virtual[0],
        }
        creator = {"id": 1, "first_name": "", "last_name": "", "email": EMAIL, "avatar": None}
        own = {"id": self.id, "title": self.title, "created_by": creator, "created_at": show_time(self.created_at)}
        return own | {"state": None, "pinned_at": None, "queue_total": counts["task_number"], "queue_done": 0} | self.fields | counts

    def select(self, query: Mapping[str, Any]) -> Found:
        """Rows by filters, selectedItems and the first key of ordering (id alone, up or down)."""
        filters = query.get("filters") or {"conjunction": "and", "items": []}
        if "items" not in filters:
            raise Rejected(500, "1 validation error for PrepareParams\nfilters.items\n  Field required")
        tests = [test_of(item) for item in filters["items"]]
        joined = any if filters["conjunction"] == "or" else all

        def matches(row: Row) -> bool:
            return joined(test(row) for test in tests) if tests else True

        named = _named(query, filters)
        candidates = self.stored.values() if named is None else filter(None, map(self.find, named))
        stored = sorted((row for row in candidates if matches(row)), key=lambda row: row.id)
        span = self.untouched.narrow(filters["items"], matches) if self.untouched.size and named is None else NOTHING
        count, annotations, predictions = self.untouched.sums(span)
        down = (query.get("ordering") or ["id"])[0].startswith("-")
        return Found(
            frozenset(column_name(item) for item in filters["items"]),
            len(stored) + count,
            sum(row.total_annotations for row in stored) + annotations,
            sum(row.total_predictions for row in stored) + predictions,
            partial(self._stream, stored, span, down=down),
        )

    def _stream(self, stored: list[Row], span: Span, *, down: bool) -> Iterator[Row]:
        return heapq.merge(stored[::-1] if down else stored, self.untouched.rows(span, down=down), key=lambda row: row.id, reverse=down)

    def render(self, row: Row, *, everything: bool, asked: Collection[str] = ()) -> dict[str, Any]:
        """The task as the list shows it, with fields=all or task_only; a flat task shows the computed columns that its query `asked` for."""
        now = self._owner.clock()
        results = {"annotations": row.annotations, "predictions": row.predictions}
        shape: dict[str, Any] = {
            "id": row.id,
            "drafts": [],
            "annotators": [],
            "inner_id": row.inner_id,
            "cancelled_annotations": row.cancelled_annotations,
            "total_annotations": row.total_annotations,
            "total_predictions": row.total_predictions,
            "annotations_results": "",
            "predictions_results": "",
            "file_upload": None,
            "storage_filename": None,
            "annotations_ids": "",
            "predictions_model_versions": "",
            "updated_by": [{"user_id": row.updated_by}] if row.updated_by else [],
            "data": row.data,
            "meta": row.meta,
            "created_at": show_time(row.created_at),
            "updated_at": show_time(row.updated_at),
            "is_labeled": row.is_labeled,
            "overlap": self.fields["maximum_annotations"],
            "comment_count": 0,
            "unresolved_comment_count": 0,
            "last_comment_updated_at": None,
            "project": self.id,
            "comment_authors": [],
        }
        computed = {"completed_at": show_time(row.completed_at()), "draft_exists": bool(row.drafts)}
        if not everything:
            return shape | {name: value for name, value in computed.items() if name in asked}
        leads = [annotation["lead_time"] for annotation in row.annotations if annotation["lead_time"] is not None]
        scores = [prediction["score"] for prediction in row.predictions if prediction["score"] is not None]
        return shape | {
            "predictions": [dated(prediction, now) for prediction in row.predictions],
            "annotations": [dated(annotation, now) | {"created_username": self._name(annotation["completed_by"])} for annotation in row.annotations],
            "drafts": [draft for draft in self.drafts(row) if draft["user"] == EMAIL],  # the token's own user's alone
            "annotators": sorted({annotation["completed_by"] for annotation in row.annotations}),
            **computed,
            **{f"{name}_results": _loose(parts) for name, parts in results.items()},
            "annotations_ids": ",".join(str(annotation["id"]) for annotation in row.annotations),
            "predictions_model_versions": ",".join(sorted({prediction["model_version"] for prediction in row.predictions})),
            "predictions_score": sum(scores) / len(scores) if scores else None,
            "avg_lead_time": sum(leads) / len(leads) if leads else None,
        }

    def _name(self, user_id: int) -> str:
        user = self._owner.user(user_id)
        return f"{user['first_name']} {user['last_name']}".rstrip() + f" {user['email']}, {user_id}"

    # --- events --------------------------------------------------------------------------------------------------

    def add(self, tasks: Sequence[Mapping[str, Any]], *, at: int | None = None, ids: Sequence[int] | None = None) -> list[int]:
        """Import tasks. `at` below the present is a late commit: rows that become visible after their own updated_at;
        `ids` names them (a reused id).
        """
        first = self._owner.next_task
        taken = list(ids) if ids is not None else list(range(first, first + len(tasks)))
        for task_id, task in zip(taken, tasks, strict=True):
            now = self._owner.clock() if at is None else at
            self._inner += 1
            row = Row(task_id, self._inner, task["data"], now, now, meta=task.get("meta", {}))
            row.annotations = [self._annotation(row, now, **fields) for fields in task.get("annotations", ())]
            row.predictions = [self._prediction(row, now, **fields) for fields in task.get("predictions", ())]
            row.recount()
            self.stored[task_id] = row
        self._owner.next_task = max(self._owner.next_task, *(task_id + 1 for task_id in taken)) if taken else first
        return taken

    def row(self, task_id: int) -> Row:
        """The task's row, to read or to change behind everybody's back (which moves nothing else)."""
        if task_id not in self.stored:
            found = self.untouched.take(task_id)
            if found is None:
                raise KeyError(task_id)
            self.stored[task_id] = found
        return self.stored[task_id]

    def edit(self, task_id: int, *, at: int | None = None, **fields: Any) -> None:
        """PATCH data or meta: moves updated_at."""
        row = self.row(task_id)
        for name, value in fields.items():
            setattr(row, name, value)
        self._touch(row, at, by=row.updated_by)

    def annotate(self, task_id: int, **fields: Any) -> int:
        row = self.row(task_id)
        row.annotations.append(self._annotation(row, self._owner.clock(), updated_by=1, **fields))
        self._touch(row)
        return int(row.annotations[-1]["id"])

    def skip(self, task_id: int) -> int:
        return self.annotate(task_id, was_cancelled=True)

    def delete(self, *tasks: int) -> None:
        """As a database with sequences does it: ids are not used again. `reuse_ids` is what SQLite does."""
        for task_id in tasks:
            self.row(task_id)
            del self.stored[task_id]

    def reuse_ids(self) -> None:
        """From here on the next import gets the lowest ids above those still there."""
        self._owner.next_task = max([*self.stored, self.untouched.last]) + 1

    def predict_in_bulk(self, *tasks: int, **fields: Any) -> None:
        """/import/predictions: counters move, updated_at does not."""
        for task_id in tasks:
            row = self.row(task_id)
            row.predictions.append(self._prediction(row, self._owner.clock(), **fields))
            row.recount()

    def delete_predictions(self, *tasks: int) -> None:
        """Action delete_tasks_predictions: counters move, updated_at does not."""
        for task_id in tasks:
            self.row(task_id).predictions.clear()
            self.row(task_id).recount()

    def drafts(self, row: Row) -> list[dict[str, Any]]:
        """Everybody's, as the list of a task's drafts shows them."""
        now = self._owner.clock()
        return [dated(draft, now) | {"created_username": f"{draft['user']}, 1"} for draft in row.drafts]

    def draft(self, task_id: int, **fields: Any) -> int:
        """Moves draft_exists alone."""
        now, row = self._owner.clock(), self.row(task_id)
        own = {"id": self._next(), "user": EMAIL, "created_ago": "", "created_username": "", "result": [], "lead_time": 1.5, "was_postponed": False}
        row.drafts.append(own | {"import_id": None, "created_at": now, "updated_at": now, "task": task_id, "annotation": None} | fields)
        return int(row.drafts[-1]["id"])

    def edit_draft(self, task_id: int, **fields: Any) -> None:
        """PATCH of the task's last draft: nothing else moves."""
        self.row(task_id).drafts[-1].update(fields, updated_at=self._owner.clock())

    def delete_drafts(self, task_id: int) -> None:
        self.row(task_id).drafts.clear()

    def silent(self, task_id: int, **fields: Any) -> None:
        """Action add_data_field and the like: no date, no counter moves."""
        self.row(task_id).data |= fields

    def lie(self, task_id: int, **counters: int) -> None:
        """PATCH of the counters themselves, which the server accepts."""
        for name, value in counters.items():
            setattr(self.row(task_id), name, value)
        self.row(task_id).updated_at = self._owner.clock()

    def poison(self, task_id: int) -> None:
        """A lone surrogate: each page with this task's data answers 500."""
        self.row(task_id).poison = True

    def mend(self) -> None:
        """No task is poisoned any more."""
        for row in self.stored.values():
            row.poison = False

    def remove(self) -> None:
        """DELETE of the whole project."""
        self._owner.projects.pop(self.id, None)

    def _touch(self, row: Row, at: int | None = None, by: int | None = 1) -> None:
        row.updated_at, row.updated_by = self._owner.clock() if at is None else at, by
        row.recount()

    def _next(self) -> int:
        self._part += 1
        return self._part

    def _annotation(self, row: Row, now: int, **fields: Any) -> dict[str, Any]:
        return annotation(self._next(), row.id, self.id, now) | fields

    def _prediction(self, row: Row, now: int, **fields: Any) -> dict[str, Any]:
        return prediction(self._next(), row.id, self.id, now) | fields


def _named(query: Mapping[str, Any], filters: Mapping[str, Any]) -> set[int] | None:
    """The ids a query names one by one; None when it names none."""
    chosen = query.get("selectedItems") or {}
    lists = [chosen["included"]] if chosen.get("all") is False and chosen.get("included") else []
    if filters["conjunction"] == "and":
        lists += [item["value"] for item in filters["items"] if column_name(item) == "id" and item["operator"] == "in_list"]
    return set.intersection(*map(set, lists)) if lists else None


def _loose(parts: Sequence[Mapping[str, Any]]) -> str:
    return ",".join(str(part["result"]).replace("'", "") for part in parts)
