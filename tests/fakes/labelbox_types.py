# ruff: noqa: A006, N803 - arguments have the names GraphQL gives them
"""The GraphQL types of the stand-in for Labelbox: each thing of its world as the fields that can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.labelbox_graphql import Leaf, Refused
from tests.fakes.labelbox_world import Batch, Dataset, ModelRun, Project, Slice, State, World, show_time

USER, ORGANIZATION = "cuser00000000000000000001", "corg000000000000000000001"
PAGE = 100  # the most a page may have, but for a dataset's rows
ROWS_PAGE = 500

Shape = dict[str, Any]
_QUEUES = (
    ("Initial labeling task", "INITIAL_LABELING_QUEUE", "TO_LABEL"),
    ("Initial review task", "MANUAL_REVIEW_QUEUE", "IN_REVIEW"),
    ("Rework (all rejected)", "MANUAL_REWORK_QUEUE", "IN_REWORK"),
    ("Done", "DONE_QUEUE", "DONE"),
)


def not_found() -> Refused:
    return Refused("RESOURCE_NOT_FOUND", "Resource not found")


def organization() -> Shape:
    return {"id": ORGANIZATION, "name": "Cats Inc", "createdAt": show_time(0, "Z"), "updatedAt": show_time(0, "Z")}


def project(world: World, found: Project) -> Shape:
    def batches(where: Any = None, after: str | None = None, first: int | None = None) -> Shape:
        nodes, cursor = page_after(matching([_batch(found, batch) for batch in found.batches], where), after, first or PAGE)
        return {"nodes": nodes, "pageInfo": {"endCursor": cursor, "hasNextPage": cursor is not None}}

    def label_count() -> int:
        return sum(len(state.members[found.id].labels) for _, state in found.members()) + found.virtual

    return _common(found) | {
        "description": found.description,
        "setupComplete": show_time(found.created_at, "Z"),
        "lastActivityTime": show_time(found.last_activity, "Z"),
        "allowedMediaType": found.media_type,
        "editorTaskType": None,
        "uploadType": None,
        "autoAuditNumberOfLabels": 1,
        "autoAuditPercentage": 1.0,
        "isBenchmarkEnabled": False,
        "isConsensusEnabled": False,
        "modelSetupComplete": None,
        "dataRowCount": lambda: len(found.members()) + found.virtual,
        "labelCount": label_count,
        "batches": batches,
        "taskQueues": lambda: _task_queues(found),
        "ontology": lambda: ontology(found),
        "organization": organization(),
    }


def _common(found: Any) -> Shape:
    times = {"createdAt": show_time(found.created_at, "Z"), "updatedAt": show_time(found.updated_at, "Z")}
    return {"id": found.id, "name": found.name, "deleted": getattr(found, "deleted", False)} | times


def _batch(owner: Project, found: Batch) -> Shape:
    size = sum(state.members[owner.id].batch == found.id for _, state in owner.members())
    return _common(found) | {"consensusSettingsJson": Leaf(None), "size": size}


def _task_queues(owner: Project) -> list[Shape]:
    members = [state.members[owner.id].status for _, state in owner.members()]

    def queue(number: int, name: str, kind: str, count: int) -> Shape:
        return {"id": f"{owner.id}-{number}", "name": name, "description": None, "queueType": kind, "dataRowCount": lambda input=None: count}

    return [queue(number, name, kind, members.count(status)) for number, (name, kind, status) in enumerate(_QUEUES)]


def ontology(owner: Project) -> Shape:
    return {
        "id": owner.ontology_id,
        "name": f"{owner.name} ontology",
        "description": None,
        "mediaType": owner.media_type,
        "createdAt": show_time(owner.created_at, "Z"),
        "updatedAt": show_time(owner.created_at, "Z"),
        "normalized": Leaf(owner.ontology),
        "objectSchemaCount": len(owner.ontology["tools"]),
        "classificationSchemaCount": len(owner.ontology["classifications"]),
    }


def workflow(world: World, owner: Project) -> Shape:
    at = show_time(owner.created_at, "")  # no zone: the SDK takes it for UTC
    return {"projectId": owner.id, "config": Leaf(owner.workflow), "createdAt": at, "updatedAt": at}


def dataset(world: World, found: Dataset) -> Shape:
    return _common(found) | {
        "description": found.description,
        "rowCount": lambda: sum(state.dataset == found.id for _, state in world.living()),
    }


def data_row(world: World, row: str, state: State) -> Shape:
    names = {"schemaId": "schema_id", "name": "schema_name", "value": "value", "kind": "schema_kind"}
    return {
        "id": row,
        "externalId": state.external_id,
        "globalKey": state.global_key,
        "rowData": state.row_data,
        "mediaAttributes": Leaf(state.media_attributes),
        "createdAt": show_time(state.created_at, "Z"),
        "updatedAt": show_time(state.updated_at, "Z"),
        "customMetadata": [{"schemaId": each.get("schema_id"), "value": each.get("value")} for each in state.metadata_fields],
        "metadataFields": [{name: each.get(key) for name, key in names.items()} for each in state.metadata_fields],
        "dataset": dataset(world, world.datasets[state.dataset]),
    }


def dataset_rows(world: World, home: str, first: int | None, after: str | None) -> Shape:
    """Newest first."""
    found = [data_row(world, row, state) for row, state in reversed(world.living()) if state.dataset == home]
    nodes, cursor = page_after(found, after, first or ROWS_PAGE)
    return {"nodes": nodes, "pageInfo": {"hasNextPage": cursor is not None, "startCursor": cursor}}


def model(world: World, run: ModelRun) -> Shape:
    def runs(where: Any = None, skip: int = 0, first: int = PAGE) -> list[Shape]:
        return page([model_run(world, each) for each in world.runs.values() if each.model_id == run.model_id], where, skip, first)

    return {"id": run.model_id, "name": run.model, "ontologyId": None, "deleted": False, "modelRuns": runs}


def model_run(world: World, found: ModelRun) -> Shape:
    return _common(found) | {"modelId": found.model_id, "createdBy": USER, "modelAppId": None, "trainingMetadata": Leaf(None)}


def slice_(world: World, found: Slice) -> Shape:
    return _common(found) | {"description": None, "filter": Leaf([])}


def slice_rows(world: World, savedQueryId: str, first: int = PAGE, after: str | None = None) -> Shape:
    chosen = world.slices.get(savedQueryId)
    if chosen is None:
        raise not_found()
    found = [{"id": row, "globalKey": state.global_key} for row, state in world.indexed() if chosen.where(state)]
    nodes, cursor = page_after(found, after, first)
    return {"totalCount": len(found), "nodes": nodes, "pageInfo": {"endCursor": cursor, "hasNextPage": cursor is not None}}


def matching(items: Sequence[Shape], where: Mapping[str, Any] | None) -> list[Shape]:
    """`where` as in `{deleted: false, name: "x"}`; the stand-in compares for equality only."""
    for name in where or {}:
        if items and name not in items[0]:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f'Field "{name}" is not defined by the filter.', 400)
    return [item for item in items if all(item[name] == wanted for name, wanted in (where or {}).items())]


def page(items: Sequence[Shape], where: Mapping[str, Any] | None, skip: int, first: int) -> list[Shape]:
    if not 0 <= first <= PAGE:
        raise Refused("MALFORMED_REQUEST", f"first must be at most {PAGE}")
    return matching(items, where)[skip : skip + first]


def page_after(items: Sequence[Shape], after: str | None, first: int) -> tuple[list[Shape], str | None]:
    """The items that follow the one of this id, and the id to ask with for those after them; None: there are no more."""
    start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), 0) if after else 0
    found = list(items[start : start + first])
    return found, found[-1]["id"] if start + first < len(items) else None
