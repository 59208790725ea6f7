"""What the contract suite of Sources may do to the world behind each of them.

A World owns what its Source reads. To enrol a Source, write a World for it and add one line to WORLDS in `tests/contract/test_sources.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from syncd.errors import SourceError
from syncd.sources import label_studio, labelbox
from syncd.sources.base import Selection, Source
from tests.fakes.label_studio import Request, StandIn, html_login
from tests.fakes.label_studio_project import Project
from tests.fakes.labelbox import Labelbox
from tests.fakes.labelbox_faults import Plan, html
from tests.fakes.labelbox_world import Project as LabelboxProject
from tests.fakes.memory import MemorySource
from tests.fakes.rig import TestClock

START = 1_790_000_000_000_000


class World(Protocol):
    """One per test. Collections are named by title; tasks by the ids the World gives them."""

    def __init__(self, folder: Path) -> None: ...

    def open(self, select: Selection) -> Source:
        """A new Source of this World; the suite closes it."""
        ...

    def add(self, title: str, *data: dict[str, Any]) -> list[str]:
        """New tasks (and the Collection, if need be) with that data; their ids."""
        ...

    def edit(self, title: str, task: str, data: dict[str, Any]) -> None:
        """A change as people make them: dated by the Source's own clock."""
        ...

    def delete(self, title: str, *tasks: str) -> None: ...

    def spoil(self, title: str, task: str) -> None:
        """From now on this task can't be read; the others can."""
        ...

    def remove(self, title: str) -> None:
        """The whole Collection, with its tasks."""
        ...

    def configure(self, title: str) -> bool:
        """Change the Collection's settings; False where a Source has none to change."""
        ...

    def wait(self, seconds: float) -> None:
        """Time passes in the Source's world."""
        ...

    def go_down(self) -> None:
        """The Source can't be reached, or talks nonsense, until `come_back`."""
        ...

    def come_back(self) -> None: ...

    def data(self, body: Any) -> dict[str, Any]:
        """The data of a task as `add` was given it, from its body."""
        ...

    def close(self) -> None: ...


class LabelStudioWorld:
    """The stand-in, spoken to over HTTP."""

    def __init__(self, folder: Path) -> None:
        self._clock = TestClock(START)
        self._studio = StandIn()
        self._studio.clock = self._clock.now
        self._studio.__enter__()
        self._projects: dict[str, Project] = {}

    def open(self, select: Selection) -> Source:
        fields = {"type": "label_studio", "url": self._studio.url, "token": self._studio.token, "retry_for": "1s"}
        return label_studio.open(label_studio.Config.model_validate(fields), select, TestClock())

    def add(self, title: str, *data: dict[str, Any]) -> list[str]:
        if title not in self._projects:
            self._projects[title] = self._studio.project(title)
        return [str(task) for task in self._projects[title].add([{"data": one} for one in data])]

    def edit(self, title: str, task: str, data: dict[str, Any]) -> None:
        self._projects[title].edit(int(task), data=data)

    def delete(self, title: str, *tasks: str) -> None:
        self._projects[title].delete(*map(int, tasks))

    def spoil(self, title: str, task: str) -> None:
        self._projects[title].poison(int(task))

    def remove(self, title: str) -> None:
        self._projects.pop(title).remove()

    def configure(self, title: str) -> bool:
        self._projects[title].fields["description"] = "changed"
        return True

    def wait(self, seconds: float) -> None:
        self._clock.wait(seconds)

    def go_down(self) -> None:
        def login(_: Request) -> Any:
            return html_login()

        self._studio.instead = login

    def come_back(self) -> None:
        self._studio.instead = lambda _: None

    def data(self, body: Any) -> dict[str, Any]:
        found: dict[str, Any] = body["data"]
        return found

    def close(self) -> None:
        self._studio.__exit__(None, None, None)


class LabelboxWorld:
    """The stand-in for Labelbox. A task's data is in the annotations of its one label."""

    def __init__(self, folder: Path) -> None:
        self._clock = TestClock(START)
        self._box = Labelbox()
        self._box.clock = self._clock.now
        self._box.__enter__()
        self._projects: dict[str, LabelboxProject] = {}
        self._outages: list[Plan] = []

    def open(self, select: Selection) -> Source:
        fields = {"type": "labelbox", "url": self._box.url, "api_key": self._box.key, "retry_for": "1s"}
        return labelbox.open(labelbox.Config.model_validate(fields), select, TestClock())

    def add(self, title: str, *data: dict[str, Any]) -> list[str]:
        if title not in self._projects:
            self._projects[title] = self._box.project(title)
        large = [{"type": "TEXT", "value": "x" * 1500}]  # so that an export takes several Batches
        return self._projects[title].add(*({"labels": [{"classifications": [], "data": one}], "attachments": large} for one in data))

    def edit(self, title: str, task: str, data: dict[str, Any]) -> None:
        self._projects[title].edit_label(task, {"classifications": [], "data": data})

    def delete(self, title: str, *tasks: str) -> None:
        self._box.delete(*tasks)

    def spoil(self, title: str, task: str) -> None:
        self._box.broken.add(task)

    def remove(self, title: str) -> None:
        self._projects.pop(title).deleted = True

    def configure(self, title: str) -> bool:
        self._projects[title].description = "changed"
        return True

    def wait(self, seconds: float) -> None:
        self._clock.wait(seconds)

    def go_down(self) -> None:
        self._outages.append(self._box.plan("any", html, times=None))

    def come_back(self) -> None:
        for outage in self._outages:
            outage.stop()

    def data(self, body: Any) -> dict[str, Any]:
        (project,) = body["projects"].values()
        found: dict[str, Any] = project["labels"][0]["annotations"]["data"]
        return found

    def close(self) -> None:
        self._box.__exit__(None, None, None)


class MemoryWorld:
    """The in-memory Source of the pipelines' tests, so that it promises what the real ones do."""

    def __init__(self, folder: Path) -> None:
        self._source = MemorySource(page=20)
        self._down = False
        self._next = 1

    def open(self, select: Selection) -> Source:
        return self._source

    def add(self, title: str, *data: dict[str, Any]) -> list[str]:
        ids = [str(self._next + n) for n in range(len(data))]
        self._next += len(data)
        for task, one in zip(ids, data, strict=True):
            self._source.put(title, task, {"id": int(task), "data": one})
        return ids

    def edit(self, title: str, task: str, data: dict[str, Any]) -> None:
        self._source.put(title, task, {"id": int(task), "data": data})

    def delete(self, title: str, *tasks: str) -> None:
        for task in tasks:
            del self._source.world[title].tasks[task]

    def spoil(self, title: str, task: str) -> None:
        self._source.world[title].tasks[task].poison = "it can't be read"

    def remove(self, title: str) -> None:
        del self._source.world[title]

    def configure(self, title: str) -> bool:
        self._source.world[title].settings["label_config"] = "<View><Text/></View>"
        return True

    def wait(self, seconds: float) -> None:
        self._source.now += int(seconds * 1e6)

    def go_down(self) -> None:
        for call in ("collections", "page", "confirm", "confirm_collection", "settings"):
            self._source.fail(call, 1, SourceError("down"))

    def come_back(self) -> None:
        self._source._faults.clear()

    def data(self, body: Any) -> dict[str, Any]:
        found: dict[str, Any] = body["data"]
        return found

    def close(self) -> None:
        pass
