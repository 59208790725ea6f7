"""The GraphQL schema of the stand-in for Labelbox: the fields that the vendor's SDK 7.17 and syncd ask for, over a World and its exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.labelbox_exports import MUTATIONS, Content, Export, Exports
from tests.fakes.labelbox_files import Files
from tests.fakes.labelbox_graphql import Leaf, Refused
from tests.fakes.labelbox_payloads import EMAIL
from tests.fakes.labelbox_world import Batch, Dataset, ModelRun, Project, Slice, State, World, show_time

USER, ORGANIZATION = "cuser00000000000000000001", "corg000000000000000000001"
_PAGE = 100  # the most a page may have, but for a dataset's rows
_ROWS_PAGE = 500
_COMPARE = {"": lambda a, b: a == b, "_not": lambda a, b: a != b, "_in": lambda a, b: a in b, "_gte": lambda a, b: a >= b, "_lte": lambda a, b: a <= b,
            "_gt": lambda a, b: a > b, "_lt": lambda a, b: a < b, "_contains": lambda a, b: b in a}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """What the answers are made of. `api`: the address of the server itself, as far as the host."""

    world: World
    exports: Exports
    files: Files
    api: str


def root(box: Box) -> dict[str, Any]:
    """Everything a query may begin with."""
    world = box.world

    def one(items: Mapping[str, Any], where: Mapping[str, Any] | None, shape: Any) -> Any:
        found = items.get((where or {}).get("id", ""))
        if found is None or getattr(found, "deleted", False):
            raise Refused("RESOURCE_NOT_FOUND", "Resource not found")
        return shape(world, found)

    def data_row(where: Mapping[str, Any]) -> dict[str, Any]:
        row = world.rows.get(where["id"])
        if row is None or row.now is None:
            raise Refused("RESOURCE_NOT_FOUND", "Resource not found")
        return _data_row(world, row.id, row.now)

    fields: dict[str, Any] = {
        "user": lambda where=None: _user(box),
        "organization": lambda where=None: {"id": ORGANIZATION, "name": "Cats Inc", "createdAt": show_time(0, "Z"), "updatedAt": show_time(0, "Z")},
        "project": lambda where: one(world.projects, where, _project),
        "projects": lambda where=None, skip=0, first=_PAGE, orderBy=None: _page(
            [_project(world, each) for each in world.projects.values() if not each.deleted], where, skip, first, orderBy
        ),
        "dataset": lambda where: one(world.datasets, where, _dataset),
        "datasets": lambda where=None, skip=0, first=_PAGE, orderBy=None: _page(
            [_dataset(world, each) for each in world.datasets.values()], where, skip, first, orderBy
        ),
        "datasetDataRows": lambda id, first=_ROWS_PAGE, where=None, **after: _dataset_rows(world, id, first, after.get("from")),
        "dataRow": data_row,
        "model": lambda where: one({run.model_id: run for run in world.runs.values()}, where, _model),
        "models": lambda where=None, skip=0, first=_PAGE: _page(
            [_model(world, run) for run in {run.model_id: run for run in world.runs.values()}.values()], where, skip, first, None
        ),
        "modelRun": lambda where: one(world.runs, where, _model_run),
        "getSavedQuery": lambda id: one(world.slices, {"id": id}, _slice),
        "catalogSavedQueries": lambda: [_slice(world, each) for each in world.slices.values()],
        "getDataRowIdentifiersBySavedQuery": lambda input: _slice_rows(world, **input),
        "ontology": lambda where: _ontology(next(each for each in world.projects.values() if each.ontology_id == where["id"])),
        "projectWorkflow": lambda projectId: one(world.projects, {"id": projectId}, _workflow),
        "task": lambda where: _stream(box, where["id"]),
        "cancelableTaskTypes": lambda: ["ExportDataRows"],
        "cancelBulkOperationJob": lambda id: _cancel(box, id),
    }
    return fields | {name: _mutation(box, name) for name in MUTATIONS}


def _mutation(box: Box, name: str) -> Any:
    def start(input: Mapping[str, Any]) -> dict[str, Any]:
        return {"taskId": box.exports.start(name, input, USER, box.api).id, "isStreamable": True}

    return start


def _user(box: Box) -> dict[str, Any]:
    def created_tasks(where: Any = None, skip: int = 0, first: int = _PAGE, orderBy: Any = None) -> list[dict[str, Any]]:
        asked = [task for task in box.exports.tasks.values() if task.user == USER and (where or {}).get("id", task.id) == task.id]
        return _page([_task(task, task.look(box.world.clock(), poll=True)) for task in asked], where, skip, first, orderBy)

    at = show_time(0, "Z")
    return {
        "id": USER, "email": EMAIL, "name": "Ann Lee", "nickname": "ann", "picture": "", "isExternalUser": False, "isViewer": False,
        "lastLoginAt": at, "createdAt": at, "updatedAt": at, "timezone": box.world.timezone, "createdTasks": created_tasks,
        "organization": {"id": ORGANIZATION, "name": "Cats Inc"},
    }  # fmt: skip


def _task(task: Export, status: str) -> dict[str, Any]:
    done = 1.0 if status == "COMPLETE" else 0.0
    return {
        "id": task.id, "status": status, "completionPercentage": done, "type": "export-data-rows", "errors": None, "result": None, "metadata": Leaf({}),
        "name": task.name, "createdAt": show_time(task.created_at, "Z"), "updatedAt": show_time(task.updated_at, "Z"), "deleted": False,
    }  # fmt: skip


def _stream(box: Box, task_id: str) -> dict[str, Any]:
    task = box.exports.tasks.get(task_id)
    if task is None or task.user != USER:
        raise Refused("RESOURCE_NOT_FOUND", "Resource not found")
    status = task.look(box.world.clock())

    def content(stream: str) -> Content:
        if stream not in {"RESULT", "ERRORS"}:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f'Value "{stream}" does not exist in "TaskStreamType" enum.', 400)
        return (task.result if stream == "RESULT" else task.errors) if status == "COMPLETE" else Content()

    def header(streamType: str) -> dict[str, int] | None:
        found = content(streamType)
        return {"totalSize": found.size, "totalLines": found.lines} if found.size else None

    def file(streamType: str, offset: str) -> dict[str, Any] | None:
        if not isinstance(offset, str) or not offset.isdigit():
            raise Refused("GRAPHQL_VALIDATION_FAILED", f"UInt64 cannot represent value {offset!r}", 400)
        found, number = content(streamType), int(offset) // box.files.chunk_size
        start, end = number * box.files.chunk_size, min((number + 1) * box.files.chunk_size, found.size) - 1
        if int(offset) > end:
            return None
        lines = {"start": found.line(start), "end": found.line(end)}
        return {"offsets": {"start": start, "end": end}, "lines": lines, "file": box.files.sign(task, streamType, number)}

    return _task(task, status) | {"exportMetadataHeader": header, "exportFileFromOffset": file}


def _cancel(box: Box, task_id: str) -> dict[str, bool]:
    task = box.exports.tasks.get(task_id)
    running = task is not None and task.user == USER and task.look(box.world.clock()) == "IN_PROGRESS"
    if task is not None and running:
        task.status = "CANCELLING"
    return {"success": running}


def _project(world: World, project: Project) -> dict[str, Any]:
    def batches(where: Any = None, after: str | None = None, first: int | None = None, **rest: Any) -> dict[str, Any]:
        found = [_batch(world, project, batch) for batch in project.batches]
        nodes, cursor = _after(_matching(found, where), after, first or _PAGE)
        return {"nodes": nodes, "pageInfo": {"endCursor": cursor, "hasNextPage": cursor is not None}, "totalCount": len(found)}

    def members() -> list[State]:
        return [state for _, state in project.members()]

    return {
        "id": project.id, "name": project.name, "description": project.description, "deleted": project.deleted,
        "createdAt": show_time(project.created_at, "Z"), "updatedAt": show_time(project.updated_at, "Z"), "setupComplete": show_time(project.created_at, "Z"),
        "lastActivityTime": show_time(project.last_activity, "Z"), "allowedMediaType": project.media_type, "editorTaskType": None, "uploadType": None,
        "autoAuditNumberOfLabels": 1, "autoAuditPercentage": 1.0, "isBenchmarkEnabled": False, "isConsensusEnabled": False, "modelSetupComplete": None,
        "dataRowCount": lambda: len(members()) + project.virtual,
        "labelCount": lambda: sum(len(state.members[project.id].labels) for state in members()) + project.virtual,
        "batches": batches, "taskQueues": lambda: _task_queues(project, members()), "ontology": lambda: _ontology(project),
        "organization": {"id": ORGANIZATION, "name": "Cats Inc"},
    }  # fmt: skip


def _batch(world: World, project: Project, batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id, "name": batch.name, "createdAt": show_time(batch.created_at, "Z"), "updatedAt": show_time(batch.updated_at, "Z"),
        "consensusSettingsJson": Leaf(None),
        "size": lambda: sum(state.members[project.id].batch == batch.id for _, state in project.members()),
    }  # fmt: skip


def _task_queues(project: Project, members: Sequence[State]) -> list[dict[str, Any]]:
    kinds = (("Initial labeling task", "INITIAL_LABELING_QUEUE", "TO_LABEL"), ("Initial review task", "MANUAL_REVIEW_QUEUE", "IN_REVIEW"),
             ("Rework", "MANUAL_REWORK_QUEUE", "IN_REWORK"), ("Done", "DONE_QUEUE", "DONE"))  # fmt: skip

    def queue(number: int, name: str, kind: str, status: str) -> dict[str, Any]:
        count = sum(state.members[project.id].status == status for state in members)
        return {"id": f"{project.id}-{number}", "name": name, "description": None, "queueType": kind, "dataRowCount": lambda input=None: count}

    return [queue(number, *kind) for number, kind in enumerate(kinds)]


def _ontology(project: Project) -> dict[str, Any]:
    at = show_time(project.created_at, "Z")
    return {
        "id": project.ontology_id, "name": f"{project.name} ontology", "description": None, "mediaType": project.media_type, "createdAt": at, "updatedAt": at,
        "normalized": Leaf(project.ontology), "objectSchemaCount": len(project.ontology["tools"]),
        "classificationSchemaCount": len(project.ontology["classifications"]),
    }  # fmt: skip


def _workflow(world: World, project: Project) -> dict[str, Any]:
    at = show_time(project.created_at, "")  # the SDK takes it for UTC
    return {"projectId": project.id, "config": Leaf(project.workflow), "createdAt": at, "updatedAt": at}


def _dataset(world: World, dataset: Dataset) -> dict[str, Any]:
    return {
        "id": dataset.id, "name": dataset.name, "description": dataset.description, "deleted": False,
        "createdAt": show_time(dataset.created_at, "Z"), "updatedAt": show_time(dataset.updated_at, "Z"),
        "rowCount": lambda: sum(state.dataset == dataset.id for _, state in world.living()),
    }  # fmt: skip


def _data_row(world: World, row: str, state: State) -> dict[str, Any]:
    metadata = [{"schemaId": each.get("schema_id"), "name": each.get("schema_name"), "value": each.get("value"), "kind": each.get("schema_kind")}
                for each in state.metadata_fields]  # fmt: skip
    return {
        "id": row, "externalId": state.external_id, "globalKey": state.global_key, "rowData": state.row_data, "mediaAttributes": Leaf(state.media_attributes),
        "createdAt": show_time(state.created_at, "Z"), "updatedAt": show_time(state.updated_at, "Z"), "customMetadata": [], "metadataFields": metadata,
        "dataset": _dataset(world, world.datasets[state.dataset]),
    }  # fmt: skip


def _dataset_rows(world: World, dataset: str, first: int | None, after: str | None) -> dict[str, Any]:
    found = [_data_row(world, row, state) for row, state in reversed(world.living()) if state.dataset == dataset]
    nodes, cursor = _after(found, after, first or _ROWS_PAGE)
    return {"nodes": nodes, "pageInfo": {"hasNextPage": cursor is not None, "startCursor": cursor}}


def _model(world: World, run: ModelRun) -> dict[str, Any]:
    runs = [_model_run(world, each) for each in world.runs.values() if each.model_id == run.model_id]
    return {
        "id": run.model_id, "name": run.model, "ontologyId": next((each.ontology_id for each in world.projects.values()), None),
        "modelRuns": lambda where=None, skip=0, first=_PAGE, orderBy=None: _page(runs, where, skip, first, orderBy),
    }  # fmt: skip


def _model_run(world: World, run: ModelRun) -> dict[str, Any]:
    return {
        "id": run.id, "name": run.name, "modelId": run.model_id, "createdBy": USER, "modelAppId": None, "trainingMetadata": Leaf(None), "deleted": False,
        "createdAt": show_time(run.created_at, "Z"), "updatedAt": show_time(run.updated_at, "Z"),
    }  # fmt: skip


def _slice(world: World, found: Slice) -> dict[str, Any]:
    return {
        "id": found.id, "name": found.name, "description": None, "filter": Leaf([]),
        "createdAt": show_time(found.created_at, "Z"), "updatedAt": show_time(found.updated_at, "Z"),
    }  # fmt: skip


def _slice_rows(world: World, savedQueryId: str, first: int = _PAGE, after: str | None = None) -> dict[str, Any]:
    if savedQueryId not in world.slices:
        raise Refused("RESOURCE_NOT_FOUND", "Resource not found")
    found = [{"id": row, "globalKey": state.global_key} for row, state in world.indexed() if world.slices[savedQueryId].where(state)]
    nodes, cursor = _after(found, after, first)
    return {"totalCount": len(found), "nodes": nodes, "pageInfo": {"endCursor": cursor, "hasNextPage": cursor is not None}}


def _matching(items: Sequence[dict[str, Any]], where: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """`where`, as in `{deleted: false, name_contains: "x"}`."""

    def passes(item: Mapping[str, Any], clause: str, wanted: Any) -> bool:
        name, _, suffix = clause.partition("_")
        if name not in item or f"_{suffix}".rstrip("_") not in _COMPARE:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f'Field "{clause}" is not defined by the filter.', 400)
        return bool(_COMPARE[f"_{suffix}".rstrip("_")](item[name], wanted))

    return [item for item in items if all(passes(item, clause, wanted) for clause, wanted in (where or {}).items())]


def _page(items: Sequence[dict[str, Any]], where: Mapping[str, Any] | None, skip: int, first: int, order: str | None) -> list[dict[str, Any]]:
    if not 0 <= first <= _PAGE:
        raise Refused("MALFORMED_REQUEST", f"first must be at most {_PAGE}")
    found = _matching(items, where)
    if order:
        name, _, direction = order.rpartition("_")
        found.sort(key=lambda item: item[name], reverse=direction == "DESC")
    return found[skip : skip + first]


def _after(items: Sequence[dict[str, Any]], after: str | None, first: int) -> tuple[list[dict[str, Any]], str | None]:
    """The items that follow the one of this id, and where the next ones begin; None: there are no more."""
    start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), 0) if after else 0
    page = list(items[start : start + first])
    return page, page[-1]["id"] if start + first < len(items) else None
