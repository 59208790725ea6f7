"""What the events of `events_tasks` and `events_annotations` are made of: the project they start from, and how they are named and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.live.server import LabelStudio, Project, sample

Signal = Literal["activity", "counters", "drafts", "settings", "none", "deletion"]
Happen = Callable[[LabelStudio, Project], None]

# what the seeded tasks are, by position
(
    PLAIN,
    ONE,
    TWO,
    BOTH,
    PREDICTED,
    DRAFTED,
    ANNOTATED_DRAFTED,
    SKIPPED,
    TWIN,
    OTHER_TWIN,
    DONE_TWIN,
    OTHER_DONE_TWIN,
    SKIPPED_TWIN,
    OTHER_SKIPPED_TWIN,
) = range(14)


def seed(project: Project) -> None:
    """Fourteen tasks of every kind; three pairs have the same data."""
    kinds = [(0, 0), (1, 0), (2, 0), (1, 1), (0, 1), (0, 0), (1, 0), (0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (1, 0), (0, 0)]
    data = [*range(9), TWIN, DONE_TWIN, DONE_TWIN, SKIPPED_TWIN, SKIPPED_TWIN]
    data[OTHER_TWIN] = TWIN
    ids = project.add([sample(number, annotations, predictions) for number, (annotations, predictions) in zip(data, kinds, strict=True)])
    project.draft(ids[DRAFTED])
    project.draft(ids[ANNOTATED_DRAFTED], annotation=first(project, ids[ANNOTATED_DRAFTED]))
    project.annotate(ids[SKIPPED], was_cancelled=True)
    project.annotate(ids[OTHER_SKIPPED_TWIN], was_cancelled=True)


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    signal: Signal
    happen: Happen
    prepare: Happen | None = None  # before the Run that the event comes after


@dataclass(slots=True)
class Table:
    """The events of one file, in order; an instance decorates the functions it takes in."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, signal: Signal, prepare: Happen | None = None) -> Callable[[Happen], Happen]:
        def add(happen: Happen) -> Happen:
            self.events.append(Event(happen.__name__, signal, happen, prepare))
            return happen

        return add


def first(project: Project, task: int, kind: str = "annotations") -> int:
    return int(project.task(task)[kind][0]["id"])


def dates(project: Project) -> dict[int, str]:
    return {task["id"]: task["updated_at"] for task in project.tasks(fields="task_only", include="id,updated_at")}


def flat(project: Project, task: int) -> dict[str, Any]:
    return next(found for found in project.tasks() if found["id"] == task)


class Still:
    """Asserts that no updated_at of a task that is still there moved meanwhile."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def __enter__(self) -> None:
        self._before = dates(self._project)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            after = dates(self._project)
            assert after == {task: date for task, date in self._before.items() if task in after}
