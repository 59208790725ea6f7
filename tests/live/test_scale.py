"""The million of the stand-in is Label Studio's: the same tasks imported, the same changes made, and every question syncd asks answered alike.

The questions are those of a first, an idle, an incremental and a full reading of the stand-in. Ids are shifted; dates are compared by their form.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from syncd.clock import SystemClock
from syncd.sources import label_studio
from tests.fakes.follower import Follower
from tests.fakes.label_studio import Request, StandIn
from tests.fakes.label_studio_project import LABEL_CONFIG
from tests.fakes.label_studio_project import Project as StandInProject
from tests.fakes.label_studio_rows import VIRTUAL_EPOCH, content_of
from tests.live.compare import differences
from tests.live.server import LabelStudio, Project
from tests.live.test_stand_in import _same

pytestmark = pytest.mark.live

COUNT = 300
EDITED, DELETED, PREDICTED, DRAFTED = (150, 7, 299), (20, 21, 222, 298), (100,), 42


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn.million(COUNT) as running:
        running.clock = partial(next, itertools.count(VIRTUAL_EPOCH + 10**9, 1_000_000))
        yield running


def change(project: Project | StandInProject, shift: int) -> None:
    """The same on both sides, where a task is called `shift` more than its number."""
    for number in EDITED:
        data = content_of(number)["data"] | {"edited": True}
        if isinstance(project, Project):
            project.api.patch(f"/api/tasks/{number + shift}/", {"data": data})
        else:
            project.edit(number, data=data)
    gone, counted = [n + shift for n in DELETED], [n + shift for n in PREDICTED]
    if isinstance(project, Project):
        project.action("delete_tasks", gone)
        predictions = [{"task": n, "result": [], "score": 0.5, "model_version": "m1"} for n in counted]
        project.api.post(f"/api/projects/{project.id}/import/predictions", predictions)
    else:
        project.delete(*gone)
        project.predict_in_bulk(*counted, score=0.5)
    project.draft(DRAFTED + shift, result=[])
    project.add([content_of(n) for n in (COUNT + 1, COUNT + 2)])


def questions(studio: StandIn, folder: Path) -> list[Request]:
    """What syncd asks of it: empty-handed, when nothing changed, after the changes, and once more for everything."""
    config = label_studio.Config.model_validate({"type": "label_studio", "url": studio.url, "token": studio.token})
    source = label_studio.open(config, {}, SystemClock())
    follower = Follower(source, folder, source.collections()[0])
    follower.run()
    follower.run()
    change(studio.projects[1], 0)
    changed = follower.run()
    assert {str(n) for n in EDITED} <= set(changed.tasks)
    assert set(changed.gone) == {str(n) for n in DELETED}
    follower.run(full=True)
    follower.close()
    source.close()
    asked = {(request.path, json.dumps(request.params)): request for request in studio.requests}
    return list(asked.values())


def shifted(request: Request, project: int, shift: int, since: str) -> Request:
    """The question as the other server must be asked it."""
    parts = request.path.split("/")
    if parts[2] == "tasks" and len(parts) > 3:
        parts[3] = str(int(parts[3]) + shift)
    if parts[2] == "projects" and parts[3]:
        parts[3] = str(project)
    params = dict(request.params)
    if "project" in params:
        params["project"] = str(project)
        query = json.loads(params["query"])
        for item in query["filters"]["items"]:
            value = item["value"]
            if item["filter"] == "filter:tasks:id":
                item["value"] = [n + shift for n in value] if isinstance(value, list) else value + shift
            elif item["type"] == "Datetime":
                item["value"] = since
        params["query"] = json.dumps(query)
    return Request(request.method, "/".join(parts), params)


def plain(answer: httpx.Response, url: str, shift: int, project: int) -> Any:
    tasks = list(range(shift, shift + COUNT + 3))
    value = answer.json()
    if isinstance(value, list):  # the drafts of a task
        value = {"tasks": [{"drafts": value}]}
    if value.get("results"):
        value = next(row for row in value["results"] if row["id"] == project)
        del value["id"]  # a task may be called by the same number
    if "label_config" in value:
        value = {name: part for name, part in value.items() if name.endswith("_number") or name == "label_config"}
    for task in value.get("tasks", ()):
        for part in (*task.get("annotations", ()), *task.get("predictions", ()), *task.get("drafts", ())):
            part.pop("created_ago", None)
    return _same(value, (url, "", project), tasks)


def test_every_question_syncd_asks_is_answered_alike(server: LabelStudio, studio: StandIn, tmp_path: Path) -> None:
    studio.users = server.api.get("/api/users/")
    real = server.api.project("Million", label_config=LABEL_CONFIG)
    ids = real.add([content_of(n) for n in range(1, COUNT + 1)])
    shift = ids[0] - 1
    assert ids == list(range(shift + 1, shift + COUNT + 1))
    asked = questions(studio, tmp_path)
    change(real, shift)
    since = str(real.task(EDITED[0] + shift)["updated_at"])
    wrong = []
    for request in asked:
        other = shifted(request, real.id, shift, since)
        first = httpx.get(studio.url + request.path, params=request.params, headers={"Authorization": f"Token {studio.token}"})
        second = server.api.http.get(other.path, params=other.params)
        shapes = plain(first, studio.url, 0, 1), plain(second, server.url, shift, real.id)
        wrong += [f"{request.path} {request.params}: {line}" for line in differences(*shapes)]
    assert not wrong, "\n".join(wrong[:40])
    real.remove()
