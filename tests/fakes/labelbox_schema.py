# ruff: noqa: A002, A006, N803 - arguments have the names GraphQL gives them
"""What a query to the stand-in for Labelbox may begin with: what the vendor's SDK 7.17 and syncd ask for. `labelbox_types` has the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes import labelbox_types as types
from tests.fakes.labelbox_exports import MUTATIONS, Content, Export, Exports
from tests.fakes.labelbox_files import Files
from tests.fakes.labelbox_graphql import Leaf, Refused
from tests.fakes.labelbox_payloads import EMAIL
from tests.fakes.labelbox_types import PAGE, ROWS_PAGE, USER, Shape
from tests.fakes.labelbox_world import World, show_time


@dataclass(frozen=True, slots=True)
class Box:
    """What the answers are made of. `api`: the address of the server itself, as far as the host."""

    world: World
    exports: Exports
    files: Files
    api: str


def root(box: Box) -> Shape:
    world = box.world
    models = {run.model_id: run for run in world.runs.values()}
    singles: Shape = {
        "project": _one(world, world.projects, types.project),
        "dataset": _one(world, world.datasets, types.dataset),
        "model": _one(world, models, types.model),
        "modelRun": _one(world, world.runs, types.model_run),
        "getSavedQuery": lambda id: _one(world, world.slices, types.slice_)({"id": id}),
        "projectWorkflow": lambda projectId: _one(world, world.projects, types.workflow)({"id": projectId}),
        "dataRow": lambda where: _data_row(world, where["id"]),
        "user": lambda where=None: _user(box),
        "organization": lambda where=None: types.organization(),
        "task": lambda where: _stream(box, where["id"]),
    }
    listings: Shape = {
        "projects": _many(world, world.projects, types.project),
        "datasets": _many(world, world.datasets, types.dataset),
        "models": _many(world, models, types.model),
        "catalogSavedQueries": lambda: [types.slice_(world, each) for each in world.slices.values()],
        "getDataRowIdentifiersBySavedQuery": lambda input: types.slice_rows(world, **input),
        "datasetDataRows": lambda id, first=ROWS_PAGE, where=None, **after: types.dataset_rows(world, id, first, after.get("from")),
        "customMetadataOntology": lambda: world.metadata_schemas,
        "cancelableTaskTypes": lambda: ["ExportDataRows"],
    }
    mutations: Shape = {name: _start(box, name) for name in MUTATIONS} | {"cancelBulkOperationJob": lambda id: _cancel(box, id)}
    return singles | listings | mutations


def _one(world: World, items: Mapping[str, Any], shape: Callable[[World, Any], Shape]) -> Callable[[Mapping[str, Any]], Shape]:
    def find(where: Mapping[str, Any]) -> Shape:
        found = items.get(where["id"])
        if found is None or getattr(found, "deleted", False):
            raise types.not_found()
        return shape(world, found)

    return find


def _many(world: World, items: Mapping[str, Any], shape: Callable[[World, Any], Shape]) -> Callable[..., list[Shape]]:
    def find(where: Any = None, skip: int = 0, first: int = PAGE) -> list[Shape]:
        return types.page([shape(world, each) for each in items.values()], where, skip, first)

    return find


def _data_row(world: World, row: str) -> Shape:
    found = world.rows.get(row)
    if found is None or found.now is None:
        raise types.not_found()
    return types.data_row(world, row, found.now)


def _start(box: Box, name: str) -> Callable[[Mapping[str, Any]], Shape]:
    def start(input: Mapping[str, Any]) -> Shape:
        return {"taskId": box.exports.start(name, input, USER, box.api).id, "isStreamable": True}

    return start


def _cancel(box: Box, task_id: str) -> Shape:
    task = box.exports.tasks.get(task_id)
    if task is None or task.user != USER or task.look(box.world.clock()) != "IN_PROGRESS":
        return {"success": False}
    task.status = "CANCELLING"
    return {"success": True}


def _user(box: Box) -> Shape:
    def created_tasks(where: Any = None, skip: int = 0, first: int = PAGE) -> list[Shape]:
        mine = [task for task in box.exports.tasks.values() if task.user == USER]
        polled = [task for task in mine if (where or {}).get("id", task.id) == task.id]
        return types.page([_task(task, task.look(box.world.clock(), poll=True)) for task in polled], where, skip, first)

    at = show_time(0, "Z")
    return {
        "id": USER,
        "email": EMAIL,
        "name": "Ann Lee",
        "nickname": "ann",
        "picture": "",
        "isExternalUser": False,
        "isViewer": False,
        "lastLoginAt": at,
        "createdAt": at,
        "updatedAt": at,
        "timezone": box.world.timezone,
        "createdTasks": created_tasks,
        "organization": types.organization(),
    }


def _task(task: Export, status: str) -> Shape:
    return {
        "id": task.id,
        "status": status,
        "completionPercentage": 1.0 if status == "COMPLETE" else 0.0,
        "type": "export-data-rows",
        "errors": None,
        "result": None,
        "metadata": Leaf({}),
        "name": task.name,
        "createdAt": show_time(task.created_at, "Z"),
        "updatedAt": show_time(task.updated_at, "Z"),
        "deleted": False,
    }


def _stream(box: Box, task_id: str) -> Shape:
    task = box.exports.tasks.get(task_id)
    if task is None or task.user != USER:
        raise types.not_found()
    status = task.look(box.world.clock())

    def content(stream: str) -> Content:
        if stream not in {"RESULT", "ERRORS"}:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f'Value "{stream}" does not exist in "TaskStreamType" enum.', 400)
        return (task.result if stream == "RESULT" else task.errors) if status == "COMPLETE" else Content()

    def header(streamType: str) -> Shape | None:
        found = content(streamType)
        return {"totalSize": found.size, "totalLines": found.lines} if found.size else None

    def file(streamType: str, offset: Any) -> Shape | None:
        if not isinstance(offset, str) or not offset.isdigit():
            raise Refused("GRAPHQL_VALIDATION_FAILED", f"UInt64 cannot represent value {offset!r}", 400)
        found, size = content(streamType), box.files.chunk_size
        number = int(offset) // size
        start, end = number * size, min((number + 1) * size, found.size) - 1
        if int(offset) > end:
            return None
        lines = {"start": found.line(start), "end": found.line(end)}
        return {"offsets": {"start": start, "end": end}, "lines": lines, "file": box.files.sign(task, streamType, number)}

    return _task(task, status) | {"exportMetadataHeader": header, "exportFileFromOffset": file}
