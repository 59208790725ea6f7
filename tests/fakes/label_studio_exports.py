"""The stand-in for Label Studio with its snapshots and the views that choose their tasks, as Community 1.23.2 has them.

with ExportingStandIn() as studio:
    studio.edit = lambda tasks: tasks[:-1]       what a snapshot holds instead of what it should
    studio.status = "failed"                     how a snapshot ends; a list: what each look shows
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

from tests.fakes.label_studio import Reply, Request, StandIn, _NoSuchPageError, error, reply
from tests.fakes.label_studio_project import Project

_LIST_ONLY = frozenset({
    "annotators", "annotations_ids", "annotations_results", "predictions_results", "avg_lead_time", "completed_at", "draft_exists", "is_labeled",
    "overlap", "file_upload", "storage_filename", "predictions_score", "predictions_model_versions",
})  # fmt: skip


class ExportingStandIn(StandIn):
    def __init__(self) -> None:
        super().__init__()
        self.exports: dict[int, dict[str, Any]] = {}
        self.views: dict[int, dict[str, Any]] = {}
        self.bodies: dict[int, bytes] = {}
        self.made = 0
        self.allowed = self.heeds_views = True
        self.status: str | list[str] = "completed"
        self.edit: Callable[[list[dict[str, Any]]], Any] = lambda tasks: tasks

    def snapshots(self) -> int:
        """How many were asked for."""
        return sum(path.startswith("POST /api/projects/") and path.endswith("/exports/") for path in self.paths())

    def _read(self, request: Request) -> Reply:
        match [part for part in request.path.split("/") if part]:
            case ["api", "dm", "views", *rest]:
                return self._view(request, *rest)
            case ["api", "projects", project, "exports", *rest]:
                allowed = self.projects[int(project)] if self.allowed else None
                return self._snapshot(request, allowed, *rest) if allowed else error(403, "You do not have permission to perform this action.")
        if request.method != "GET":
            raise _NoSuchPageError
        return super()._read(request)

    def _view(self, request: Request, number: str = "") -> Reply:
        if request.method == "POST":
            return self._make(self.views, orjson.loads(request.body))
        if request.method == "DELETE":
            return Reply(204 if self.views.pop(int(number), None) else 404)
        return reply([view for view in self.views.values() if str(view["project"]) == request.params["project"]])

    def _snapshot(self, request: Request, project: Project, number: str = "", download: str = "") -> Reply:
        if request.method == "POST":
            return self._export(project, orjson.loads(request.body))
        if request.method == "DELETE":
            return Reply(204 if self.exports.pop(int(number), None) else 404)
        if not number:
            return reply([made for made in self.exports.values() if made["project"] == project.id])
        if download:
            return Reply(200, self.bodies[int(number)])
        self.exports[int(number)]["status"] = self._status()
        return reply(self.exports[int(number)])

    def _make(self, among: dict[int, dict[str, Any]], fields: dict[str, Any]) -> Reply:
        self.made += 1
        among[self.made] = {"id": self.made, **fields}
        return reply(among[self.made], 201)

    def _status(self) -> str:
        return self.status if isinstance(self.status, str) else self.status.pop(0)

    def _export(self, project: Project, asked: dict[str, Any]) -> Reply:
        query = self.views[asked["task_filter_options"]["view"]]["data"] if self.heeds_views else {}
        tasks = [self._exported(project.render(row, everything=True)) for row in project.select(query).rows(0, 10**9)]
        found = self._make(
            self.exports, {"title": asked["title"], "project": project.id, "status": self._status(), "counters": {"task_number": len(tasks)}}
        )
        self.bodies[self.made] = json.dumps(self.edit(tasks), ensure_ascii=False).encode()
        return found

    def _exported(self, shape: dict[str, Any]) -> dict[str, Any]:
        self._expand(shape)
        shape["updated_by"] = shape["updated_by"][0]["user_id"] if shape["updated_by"] else None
        shape["drafts"] = [draft["id"] for draft in shape["drafts"]]
        for annotation in shape["annotations"]:
            annotation |= {"prediction": {}, "result_count": 0, "unique_id": "4dc0f433-f8c2-445d-8ea3-c170df7d5a23"}
            annotation["completed_by"] = {name: annotation["completed_by"][name] for name in ("id", "email", "first_name", "last_name")}
            del annotation["created_ago"], annotation["created_username"]
        return {name: value for name, value in shape.items() if name not in _LIST_ONLY} | {"allow_skip": True}
