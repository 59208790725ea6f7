"""What is asked of a Label Studio with a million tasks grows with what changed. Counted at the stand-in; the Checkpoint's side is arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from typing import cast

import pytest

from syncd.known import Known
from syncd.model import Counts, Entry
from syncd.reconcile import Range, differing
from syncd.sources import label_studio
from syncd.sources.base import Batch
from syncd.sources.label_studio_api import row_of
from tests.fakes.label_studio import Request, StandIn
from tests.fakes.label_studio_project import Project
from tests.fakes.label_studio_rows import Virtual
from tests.fakes.rig import TestClock

MILLION = 1_000_000
START = 1_790_000_000_000_000
SINCE = START - 600_000_000


@dataclass
class Everything:
    """A Checkpoint that holds every virtual task of a project as it was before anything happened to it."""

    project: Project
    before: Virtual = field(default_factory=lambda: Virtual(MILLION))

    def entries(self, tasks: Sequence[str]) -> dict[str, Entry]:
        found = {task: row for task in tasks if (row := self.before.find(int(task)))}
        shown = {task: row_of(self.project.render(row, everything=False)) for task, row in found.items()}
        return {task: Entry(task, row.revision, row.counts, b"d" * 32, 2000, b"") for task, row in shown.items()}

    def counts(self, low: int, high: int) -> Counts:
        low, high = max(low, 1), min(high, MILLION)
        number = max(0, high - low + 1)
        odd = (high + 1) // 2 - low // 2 if number else 0
        return Counts(number, number + odd, odd)

    def ids(self, low: int, high: int) -> list[str]:
        assert high - low < 1_000_000 // 100, "a small range"
        return [str(number) for number in range(low, min(high, MILLION) + 1)]

    def last_id(self) -> int:
        return MILLION

    def failing(self) -> list[str]:
        return []

    def with_drafts(self) -> list[str]:
        return []


@pytest.fixture
def million() -> Iterator[tuple[StandIn, Project]]:
    with StandIn.million(MILLION) as studio:
        studio.clock = TestClock(START).now
        (project,) = studio.projects.values()
        yield studio, project


def look(studio: StandIn, project: Project, *, full: bool = False) -> tuple[list[Batch], list[Request]]:
    """What an incremental reading yields, and what it asks for."""
    config = label_studio.Config.model_validate({"type": "label_studio", "url": studio.url, "token": studio.token})
    with closing(label_studio.open(config, {}, TestClock(START))) as source:
        (collection,) = source.collections()
        studio.requests.clear()
        batches = list(source.changes(collection, SINCE, cast("Known", Everything(project)), drafts=False))
        missing = [task for batch in batches for task in batch.missing]
        if missing:
            assert len(source.confirm(collection, missing)) == len(missing)
    return batches, list(studio.requests)


def some(count: int, seed: int = 7) -> list[int]:
    return Random(seed).sample(range(1, MILLION + 1), count)


def test_nothing_changed_costs_two_requests(million: tuple[StandIn, Project]) -> None:
    batches, requests = look(*million)
    assert not any(batch.tasks or batch.missing for batch in batches)
    assert len(requests) == 2


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_changed_tasks_cost_pages_of_them_alone(k: int, million: tuple[StandIn, Project]) -> None:
    studio, project = million
    for task in some(k):
        project.annotate(task)
    batches, requests = look(studio, project)
    assert sorted(int(task.id) for batch in batches for task in batch.tasks) == sorted(some(k))
    assert len(requests) <= 4 + k / 100


@pytest.mark.parametrize("d", [1, 10, 100])
def test_scattered_deletions_cost_small_requests_alone(d: int, million: tuple[StandIn, Project]) -> None:
    studio, project = million
    project.delete(*some(d))
    batches, requests = look(studio, project)
    assert sorted(int(task) for batch in batches for task in batch.missing) == sorted(some(d))
    assert len(requests) + 2 <= 25 * d + 20
    assert sum(r.params.get("page_size") == "1000" for r in requests) <= d + 1, "a leaf for each, and what is dated"


@pytest.mark.parametrize("d", [1, 10, 100, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_probes_for_scattered_deletions(d: int, seed: int) -> None:
    """Pure: a probe for each halving, a listing for each leaf, a question for each task."""
    gone, asked = sorted(some(d, seed)), list[tuple[int, int]]()

    def held(low: int, high: int) -> Counts:
        return Counts(high - low + 1, 0, 0)

    def ask(low: int, high: int) -> Counts:
        asked.append((low, high))
        return Counts(high - low + 1 - sum(low <= task <= high for task in gone), 0, 0)

    found = list(differing(Range(1, MILLION, ask(1, MILLION)), ask, held, leaf=100))
    assert all(any(part.low <= task <= part.high for part in found) for task in gone)
    assert sum(part.counts.tasks for part in found) <= 100 * d, "never a listing"
    assert len(asked) + len(found) + d <= 25 * d + 20
