"""One data row as a line of an export of the stand-in for Labelbox: which parts it has is up to the kind of the export and its params.

Projects, labels and annotations stand in every export of a project; in exports of the catalog only those of the projects asked for; in exports of a
model run what the run holds. Rows that are made from their number live here as well: a line of one size for each, so any piece of any export can be
made without the rest.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.labelbox_payloads import EMAIL, MASK, image, label, text_answer
from tests.fakes.labelbox_world import Member, State, World, show_time

VIRTUAL_AT = 1_600_000_000_000_000
_DIGITS = 12
_SENTINEL = "987654321098"  # stands where a virtual row's number goes
_OPTIONAL = {"label_details": "includeLabelDetails", "performance_details": "includePerformanceDetails"}
_FILLING = 5  # boxes in a virtual row, which make it about 3 KB


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an export shows. `projects`, `runs`: ids; None: no such part at all."""

    params: Mapping[str, Any]
    task: str
    api: str
    projects: Sequence[str] | None
    runs: Sequence[str] | None
    predictions: bool
    frames_as_url: bool


def encode(value: Any) -> bytes:
    """One line of NDJSON, UTF-8; U+2028 and the like stay as they are, as in the real exports."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def render(world: World, row: str, state: State, wanted: Wanted) -> dict[str, Any]:
    params = wanted.params
    shape: dict[str, Any] = {"data_row": _data_row(world, row, state, details=params.get("includeDataRowDetails", False))}
    shape["media_attributes"] = state.media_attributes
    if params.get("includeAttachments"):
        shape["attachments"] = state.attachments
    if params.get("includeMetadata"):
        shape["metadata_fields"] = state.metadata_fields
    if params.get("includeEmbeddings"):
        shape["embeddings"] = state.embeddings
    if wanted.projects is not None:
        shape["projects"] = {name: _project(world, name, state.members[name], wanted) for name in state.members if name in wanted.projects}
    if wanted.runs is not None:
        shape["experiments"] = _experiments(world, state, wanted)
    rendered: dict[str, Any] = _urls(copy.deepcopy(shape), wanted)
    return rendered


def _data_row(world: World, row: str, state: State, *, details: bool) -> dict[str, Any]:
    keys = {"global_key": state.global_key, "external_id": state.external_id}
    shape = {"id": row, **{name: value for name, value in keys.items() if value is not None}, "row_data": state.row_data}
    if details:
        second = state.last_activity // 1_000_000 * 1_000_000  # whole seconds, unlike the other two
        shape["details"] = {
            "dataset_id": state.dataset,
            "dataset_name": world.datasets[state.dataset].name,
            "created_at": show_time(state.created_at),
            "updated_at": show_time(state.updated_at),
            "last_activity_at": show_time(second),
            "created_by": EMAIL,
        }
    return shape


def _project(world: World, name: str, member: Member, wanted: Wanted) -> dict[str, Any]:
    project = world.projects[name]
    left_out = {part for part, param in _OPTIONAL.items() if not wanted.params.get(param)}
    labels = [{part: value for part, value in one.items() if part not in left_out} for one in member.labels]
    shape: dict[str, Any] = {"name": project.name, "labels": [_framed(one, wanted) for one in labels], "project_tags": []}
    if wanted.params.get("includeProjectDetails"):
        batch = next(batch for batch in project.batches if batch.id == member.batch)
        shape["project_details"] = {
            "ontology_id": project.ontology_id,
            "task_name": member.status.replace("_", " ").capitalize(),
            "batch_id": batch.id,
            "batch_name": batch.name,
            "workflow_status": member.status,
            "priority": member.priority,
            "selected_label_id": member.labels[0]["id"] if member.labels else None,
            "consensus_expected_label_count": 1,
            "workflow_history": member.history,
        }
    return shape


def _experiments(world: World, state: State, wanted: Wanted) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in state.runs.items():
        if name not in (wanted.runs or ()):
            continue
        run = world.runs[name]
        shape = {"name": run.name, "run_data_row_id": part.id, "labels": part.labels}
        if wanted.predictions:
            shape["predictions"] = part.predictions
        if wanted.params.get("includeModelRunDetails"):
            shape["split"] = part.split
        found.setdefault(run.model_id, {"name": run.model, "runs": {}})["runs"][name] = shape
    return found


def _framed(one: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """A label of a video: its key frames, the frames between them as well if asked for, or an address where the frames are (older exports)."""
    annotations = one["annotations"]
    if "frames" not in annotations:
        return one
    if wanted.frames_as_url:
        return one | {"annotations": {"frames": f"{wanted.api}/api/v1/frames/{one['id']}"}}
    frames = annotations["frames"]
    if wanted.params.get("includeInterpolatedFrames"):
        keys = sorted(map(int, frames))
        frames = {str(at): frames[str(max(key for key in keys if key <= at))] for at in range(keys[0], keys[-1] + 1)} if keys else {}
    return one | {"annotations": annotations | {"frames": frames}}


def _urls(value: Any, wanted: Wanted) -> Any:
    """Masks as addresses. They name the export task, so they differ from export to export although nothing changed."""
    if isinstance(value, str) and value.startswith(MASK):
        return f"{wanted.api}/api/v1/tasks/{wanted.task}/masks/{value.removeprefix(MASK)}/index/1"
    if isinstance(value, list):
        return [_urls(part, wanted) for part in value]
    return {name: _urls(part, wanted) for name, part in value.items()} if isinstance(value, dict) else value


def virtual_id(number: int) -> str:
    return f"cvirtual{number:0{_DIGITS + 5}d}"


def virtual_number(row: str) -> int | None:
    return int(row[-_DIGITS:]) if row.startswith("cvirtual") and row[-_DIGITS:].isdigit() else None


def virtual_state(world: World, project: str) -> State:
    """The one state that all virtual rows of a project share, up to their number."""
    home = next(iter(world.datasets.values()), None) or world.dataset("Virtual data")
    owner = world.projects[project]
    batch = owner.batches[0] if owner.batches else owner.batch("batch 1")
    annotations = image(f"row {_SENTINEL}") | {"classifications": [text_answer(f"{_SENTINEL} ") for _ in range(_FILLING)]}
    annotations["objects"] = annotations["objects"] * _FILLING
    made = label(f"clabel{_SENTINEL}", show_time(VIRTUAL_AT), annotations)
    state = State(home.id, VIRTUAL_AT, VIRTUAL_AT, VIRTUAL_AT, row_data=f"https://media.example.com/{_SENTINEL}.jpg", global_key=f"key-{_SENTINEL}")
    state.members[project] = Member(batch.id, [made], "DONE")
    return state


def virtual_template(world: World, state: State, wanted: Wanted) -> bytes:
    """The line of every virtual row, to be filled by `% {b"n": number}`. Numbers have a fixed width, so all lines have one size."""
    line = encode(render(world, f"cvirtual{'0' * 5}{_SENTINEL}", state, wanted))
    return line.replace(b"%", b"%%").replace(_SENTINEL.encode(), b"%%(n)0%dd" % _DIGITS)
