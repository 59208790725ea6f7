"""Edits of a real Label Studio, at random, through its API; and what it holds, to compare a backup with.

What the server refuses, busy or revoked as it may be, has not happened or has: the truth is asked for in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import httpx

from tests.live.backup import truth
from tests.live.server import LabelStudio, Project, box, sample

MOST, LEAST = 140, 40  # tasks
PROJECTS = 3


class Studio:
    """One server, and who works there. deleted: what somebody asked it to delete, (project, task), and whole projects as (project, None)."""

    def __init__(self, server: LabelStudio, chance: Random) -> None:
        self._server, self._chance = server, chance
        self.projects: list[Project] = []
        self.deleted: set[tuple[str, str | None]] = set()
        self.silent = False  # something happened that only a full Run can see
        self.done = self.refused = 0
        self._number = 0
        for _ in range(2):
            self._begin()
        self._edits: list[tuple[int, Callable[[Project, list[int]], object]]] = [
            (8, lambda project, ids: project.annotate(self._one(ids))),
            (4, lambda project, ids: project.predict(self._one(ids), score=self._chance.random())),
            (4, lambda project, ids: project.draft(self._one(ids))),
            (4, lambda project, ids: self._change(project, self._one(ids))),
            (4, lambda project, ids: self._take_back(project, self._one(ids))),
            (6, lambda project, ids: self._add(project, self._chance.choice([1, 1, 3, 20]))),
            (4, lambda project, ids: self._delete(project, self._some(ids, 3))),
            (1, lambda project, ids: self._delete(project, self._some(ids, len(ids) // 2))),
            (2, lambda project, ids: project.action("delete_tasks_annotations", self._some(ids, 4))),
            (2, lambda project, ids: project.change(expert_instruction=f"<b>{self._new()}</b>")),
            (1, lambda project, ids: self._silently(project)),
            (1, lambda project, ids: self._begin()),
            (1, lambda project, ids: self._end(project)),
        ]

    def edit(self) -> None:
        """One thing happens."""
        weights, edits = zip(*self._edits, strict=True)
        project = self._chance.choice(self.projects)
        (edit,) = self._chance.choices(edits, weights)
        try:
            edit(project, project.ids())
        except (AssertionError, httpx.HTTPError):
            self.refused += 1
        else:
            self.done += 1

    def truth(self) -> dict[str, dict[int, Any]]:
        """Every task that each project holds now, as its file must be."""
        listed = self._server.api.get("/api/projects/", page_size=100)["results"]
        return {str(found["id"]): truth(self._server.api, found["id"]) for found in listed}

    def _new(self) -> int:
        self._number += 1
        return self._number

    def _one(self, ids: list[int]) -> int:
        return self._chance.choice(ids)

    def _some(self, ids: list[int], most: int) -> list[int]:
        return self._chance.sample(ids, min(len(ids), self._chance.randint(1, max(1, most))))

    def _begin(self) -> None:
        if len(self.projects) < PROJECTS:
            self.projects.append(self._server.api.project(f"Project {self._new()}"))
            self._add(self.projects[-1], 25)

    def _add(self, project: Project, count: int) -> None:
        if len(project.ids()) < MOST:
            chance = self._chance
            project.add([sample(self._new(), chance.randrange(3), chance.randrange(2), text="é" * chance.randrange(900)) for _ in range(count)])

    def _change(self, project: Project, task: int) -> None:
        annotations = project.task(task)["annotations"]
        if annotations and self._chance.random() < 0.5:
            project.api.patch(f"/api/annotations/{annotations[0]['id']}/", {"result": [box("Dog", float(self._new()))]})
        else:
            project.api.patch(f"/api/tasks/{task}/", {"data": {"image": "https://images.example.com/0.jpg", "n": self._new()}})

    def _take_back(self, project: Project, task: int) -> None:
        found = project.task(task)
        for kind in ("annotations", "predictions"):
            if found[kind]:
                project.api.delete(f"/api/{kind}/{found[kind][0]['id']}/")
                return

    def _delete(self, project: Project, tasks: list[int]) -> None:
        if len(project.ids()) > LEAST // 2:
            self.deleted |= {(str(project.id), str(task)) for task in tasks}
            project.action("delete_tasks", tasks)

    def _silently(self, project: Project) -> None:
        self.silent = True
        project.action("add_data_field", value_name="batch", value_type="String", value=f"b{self._new()}")

    def _end(self, project: Project) -> None:
        if len(self.projects) > 2:
            self.deleted.add((str(project.id), None))
            self.projects.remove(project)
            project.remove()
