"""What the stand-in for Labelbox holds, and every way people change it. Times are microseconds since 1970 UTC, by the stand-in's own clock.

Each change of a data row is a new version of it, so that the index (what exports and the activity filter see) can lag behind what is true.
What moves `last_activity`: labels, reviews, statuses, metadata, issues. What does not: everything under "silent" below, as on the real one.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.labelbox_payloads import EMAIL, label, metadata_schema, ontology, workflow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def show_time(at: int, zone: str = "+00:00") -> str:
    """Milliseconds, as exports (`+00:00`) and GraphQL (`Z`) write them."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at // 1000 % 1000:03d}{zone}"


def read_time(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


@dataclass(slots=True)
class Member:
    """A data row's part in one project."""

    batch: str
    labels: list[dict[str, Any]] = field(default_factory=list)
    status: str = "TO_LABEL"
    priority: int = 5
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class InRun:
    """A data row's part in one model run."""

    id: str
    labels: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    split: str


@dataclass(slots=True)
class State:
    """One version of a data row."""

    dataset: str
    created_at: int
    updated_at: int
    last_activity: int
    row_data: Any = ""
    global_key: str | None = None
    external_id: str | None = None
    media_attributes: dict[str, Any] = field(default_factory=dict)
    attachments: list[dict[str, Any]] = field(default_factory=list)
    metadata_fields: list[dict[str, Any]] = field(default_factory=list)
    embeddings: list[dict[str, Any]] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    runs: dict[str, InRun] = field(default_factory=dict)


@dataclass(slots=True)
class Row:
    """`versions`: when each was made; None: deleted."""

    id: str
    versions: list[tuple[int, State | None]]

    @property
    def now(self) -> State | None:
        return self.versions[-1][1]

    def at(self, moment: int) -> State | None:
        return next((state for made, state in reversed(self.versions) if made <= moment), None)


@dataclass(slots=True)
class Batch:
    id: str
    name: str
    created_at: int
    updated_at: int


@dataclass(slots=True)
class Dataset:
    id: str
    name: str
    created_at: int
    updated_at: int
    description: str = ""


@dataclass(slots=True)
class Slice:
    """`where` says of a data row whether it belongs."""

    id: str
    name: str
    created_at: int
    updated_at: int
    where: Callable[[State], bool]


class World:
    """Everything, with one lock around it. Data rows share one id sequence; a deleted id never comes back."""

    def __init__(self) -> None:
        self.clock: Callable[[], int] = lambda: time.time_ns() // 1000
        self.lock = threading.RLock()
        self.timezone = "America/New_York"  # of the key's owner: what naive filter times mean
        self.index_lag = 0  # seconds until exports and filters see a change
        self.deleting_labels_is_activity = True  # the documents do not agree
        self.metadata_schemas: list[dict[str, Any]] = [metadata_schema("tag")]
        self.broken: set[str] = set()  # data rows that exports can't read
        self.rows: dict[str, Row] = {}
        self.projects: dict[str, Project] = {}
        self.datasets: dict[str, Dataset] = {}
        self.slices: dict[str, Slice] = {}
        self.runs: dict[str, ModelRun] = {}
        self._numbers = itertools.count(1)

    def new_id(self, kind: str) -> str:
        return f"c{kind}{next(self._numbers):0{24 - len(kind)}d}"

    def project(self, name: str, media_type: str = "IMAGE") -> Project:
        with self.lock:
            made = Project(self, self.new_id("proj"), name, media_type)
            self.projects[made.id] = made
            return made

    def dataset(self, name: str) -> Dataset:
        with self.lock:
            now = self.clock()
            made = Dataset(self.new_id("data"), name, now, now)
            self.datasets[made.id] = made
            return made

    def slice(self, name: str, where: Callable[[State], bool]) -> Slice:
        with self.lock:
            now = self.clock()
            made = Slice(self.new_id("slice"), name, now, now, where)
            self.slices[made.id] = made
            return made

    def model_run(self, name: str, model: str = "Detector") -> ModelRun:
        with self.lock:
            made = ModelRun(self, self.new_id("run"), name, self.new_id("model"), model)
            self.runs[made.id] = made
            return made

    def state(self, row: str) -> State:
        found = self.rows[row].now
        assert found is not None, f"{row} is deleted"
        return found

    def living(self) -> list[tuple[str, State]]:
        """What is true now."""
        return [(row.id, row.now) for row in self.rows.values() if row.now is not None]

    def indexed(self) -> list[tuple[str, State]]:
        """What exports and filters see now."""
        moment = self.clock() - self.index_lag * 1_000_000
        found = ((row.id, row.at(moment)) for row in self.rows.values())
        return [(row, state) for row, state in found if state is not None]

    def add(self, dataset: Dataset, *specs: Mapping[str, Any]) -> list[str]:
        """New data rows; a spec holds fields of State."""
        with self.lock:
            now, ids = self.clock(), []
            for spec in specs:
                row = Row(self.new_id("row"), [])
                media = {"asset_type": "image", "mime_type": "image/jpeg", "width": 640, "height": 480}
                fields = {"row_data": f"https://media.example.com/{row.id}.jpg", "media_attributes": media, **spec}
                row.versions.append((now, State(dataset.id, now, now, now, **copy.deepcopy(fields))))
                self.rows[row.id] = row
                ids.append(row.id)
            return ids

    def change(self, row: str, edit: Callable[[State], object], *, activity: bool = True, updated: bool = False, project: str = "") -> None:
        """A new version of a data row. Activity shows on `project`, or on each it is in."""
        with self.lock:
            now, state = self.clock(), copy.deepcopy(self.state(row))
            edit(state)
            state.last_activity = now if activity else state.last_activity
            state.updated_at = now if updated else state.updated_at
            self.rows[row].versions.append((now, state))
            for name in ([project] if project else state.members) if activity else ():
                self.projects[name].last_activity = now

    def edit_metadata(self, row: str, *fields: dict[str, Any]) -> None:
        self.change(row, lambda state: setattr(state, "metadata_fields", list(fields)))

    def silent(self, row: str, **fields: Any) -> None:
        """Attachments, embeddings, row_data, external_id, global_key: `updated_at` moves, `last_activity` does not."""

        def edit(state: State) -> None:
            for name, value in fields.items():
                setattr(state, name, value)

        self.change(row, edit, activity=False, updated=True)

    def delete(self, *rows: str) -> None:
        """Deleted everywhere; no export tells."""
        with self.lock:
            for row in rows:
                for project in self.state(row).members:
                    self.projects[project].last_activity = self.clock()
                self.rows[row].versions.append((self.clock(), None))


class Project:
    """A project: its settings, and what people do in it."""

    def __init__(self, world: World, project_id: str, name: str, media_type: str) -> None:
        self.world = world
        self.id = project_id
        self.name = name
        self.media_type = media_type
        self.description = ""
        self.created_at = self.updated_at = self.last_activity = world.clock()
        self.deleted = False
        self.virtual = 0  # data rows made from their number, beside the real ones
        self.ontology_id = world.new_id("onto")
        self.ontology: dict[str, Any] = ontology()
        self.workflow: dict[str, Any] = workflow()
        self.batches: list[Batch] = []

    def members(self) -> list[tuple[str, State]]:
        return [(row, state) for row, state in self.world.living() if self.id in state.members]

    def batch(self, name: str) -> Batch:
        with self.world.lock:
            now = self.world.clock()
            made = Batch(self.world.new_id("batch"), name, now, now)
            self.batches.append(made)
            return made

    def add(self, *specs: Mapping[str, Any], dataset: Dataset | None = None, batch: Batch | None = None) -> list[str]:
        """New data rows in this project; a spec may also hold `labels` (annotations, or whole labels) and `status`."""
        with self.world.lock:
            home = dataset or next(iter(self.world.datasets.values()), None) or self.world.dataset(f"{self.name} data")
            ids = self.world.add(home, *({k: v for k, v in spec.items() if k not in {"labels", "status"}} for spec in specs))
            for row, spec in zip(ids, specs, strict=True):
                labels = [self._label(one) for one in spec.get("labels", ())]
                self.join(row, batch=batch, labels=labels, status=spec.get("status", "DONE" if labels else "TO_LABEL"))
            return ids

    def _label(self, given: Mapping[str, Any]) -> dict[str, Any]:
        made = label(self.world.new_id("label"), show_time(self.world.clock()), given if "annotations" not in given else {})
        return made | copy.deepcopy(dict(given)) if "annotations" in given else made

    def join(self, row: str, *, batch: Batch | None = None, labels: Sequence[dict[str, Any]] = (), status: str = "TO_LABEL") -> None:
        """A data row that is there already is sent to this project."""
        chosen = batch or (self.batches[0] if self.batches else self.batch("batch 1"))
        member = Member(chosen.id, list(labels), status)
        self.world.change(row, lambda state: state.members.update({self.id: member}), project=self.id)

    def remove(self, *rows: str) -> None:
        """Out of this project, not out of its dataset; nothing about the data row is dated by it."""
        for row in rows:
            self.world.change(row, lambda state: state.members.pop(self.id), activity=False)
        self.last_activity = self.world.clock()

    def touch(self, row: str) -> None:
        """An issue or a comment: dated, and visible in no export."""
        self._member(row, lambda _: None)

    def label(self, row: str, annotations: Mapping[str, Any]) -> str:
        """One more label; its id."""
        made = self._label(annotations)
        self._member(row, lambda member: member.labels.append(made))
        return str(made["id"])

    def edit_label(self, row: str, annotations: Mapping[str, Any], place: int = 0) -> None:
        def edit(member: Member) -> None:
            found = member.labels[place]
            found["annotations"] = copy.deepcopy(dict(annotations))
            found["label_details"]["updated_at"] = found["label_details"]["content_last_updated_at"] = show_time(self.world.clock())

        self._member(row, edit)

    def review(self, row: str, place: int = 0) -> None:
        self._member(
            row,
            lambda member: member.labels[place]["label_details"]["reviews"].append(
                {"reviewed_at": show_time(self.world.clock()), "reviewed_by": EMAIL}
            ),
        )

    def delete_label(self, row: str, place: int = 0) -> None:
        activity = self.world.deleting_labels_is_activity
        self.world.change(row, lambda state: state.members[self.id].labels.pop(place), activity=activity, project=self.id)

    def set_status(self, row: str, status: str) -> None:
        """TO_LABEL, IN_REVIEW, IN_REWORK or DONE."""

        def edit(member: Member) -> None:
            at = show_time(self.world.clock())
            member.history.append({"action": "Move", "created_at": at, "created_by": EMAIL, "previous": member.status, "next": status})
            member.status = status

        self._member(row, edit)

    def set_priority(self, row: str, priority: int) -> None:
        """Silent."""
        self.world.change(row, lambda state: setattr(state.members[self.id], "priority", priority), activity=False)

    def rename_feature(self, old: str, new: str) -> None:
        """Silent: shows in the ontology and in every label that uses it, and dates none of them."""

        def edit(state: State) -> None:
            state.members[self.id].labels = _renamed(state.members[self.id].labels, old, new)

        self.ontology = _renamed(self.ontology, old, new)
        for row, _ in self.members():
            self.world.change(row, edit, activity=False)

    def _member(self, row: str, edit: Callable[[Member], object]) -> None:
        self.world.change(row, lambda state: edit(state.members[self.id]), project=self.id)


class ModelRun:
    """A model run. It has no activity of its own; its `updatedAt` moves with its data rows."""

    def __init__(self, world: World, run_id: str, name: str, model_id: str, model: str) -> None:
        self.world = world
        self.id = run_id
        self.name = name
        self.model_id = model_id
        self.model = model
        self.created_at = self.updated_at = world.clock()

    def put(self, row: str, *, labels: Sequence[Any] = (), predictions: Sequence[Any] = (), split: str = "TRAINING") -> None:
        """Add a data row, or replace what the run holds of it."""
        with self.world.lock:
            made = InRun(self.world.new_id("mdr"), [self._label(one) for one in labels], [self._label(one) for one in predictions], split)
            self.world.change(row, lambda state: state.runs.update({self.id: made}), activity=False)
            self.updated_at = self.world.clock()

    def remove(self, row: str) -> None:
        self.world.change(row, lambda state: state.runs.pop(self.id), activity=False)
        self.updated_at = self.world.clock()

    def _label(self, annotations: Mapping[str, Any]) -> dict[str, Any]:
        made = label(self.world.new_id("label"), show_time(self.world.clock()), annotations)
        return {name: made[name] for name in ("label_kind", "version", "id", "annotations")}


def _renamed(value: Any, old: str, new: str) -> Any:
    """Every `name` that is `old`, at any depth."""
    if isinstance(value, list):
        return [_renamed(part, old, new) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: new if name == "name" and part == old else _renamed(part, old, new) for name, part in value.items()}
