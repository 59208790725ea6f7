"""On PostgreSQL the server takes other paths than on SQLite (JSON in place, sequences, other plans): the events and values where that shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.backup import equal_after, same_values
from tests.live.event_table import Event
from tests.live.events import EVENTS
from tests.live.server import LabelStudio, Project

pytestmark = pytest.mark.live

OTHERWISE = {
    "annotations_deleted_by_action",
    "data_field_added_by_action",
    "duplicates_with_a_skip_removed",
    "labels_renamed",
    "one_task_deleted_and_another_imported",
    "predictions_imported_in_bulk",
    "task_data_changed",
    "tasks_deleted_by_action",
}


@pytest.fixture
def project(pair: tuple[LabelStudio, LabelStudio]) -> Iterator[Project]:
    made = pair[0].api.project("test")
    yield made
    made.remove()


@pytest.mark.parametrize("event", [event for event in EVENTS if event.name in OTHERWISE], ids=lambda event: event.name)
def test_one_run_after_the_event_the_backup_is_equal_again(
    pair: tuple[LabelStudio, LabelStudio], project: Project, tmp_path: Path, event: Event
) -> None:
    """The event happens through one server process, the Run asks the other."""
    equal_after(event, pair[0], project, tmp_path)


def test_values_survive_exactly(pair: tuple[LabelStudio, LabelStudio], project: Project, tmp_path: Path) -> None:
    same_values(pair[1], project, tmp_path)
