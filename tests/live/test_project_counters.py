"""What the counters in the real server's list of projects show, and what they don't: that is asked for as often as `drafts_every` says."""

from __future__ import annotations

from contextlib import closing

import pytest

from syncd.clock import SystemClock
from syncd.sources import label_studio
from tests.live.event_table import seed
from tests.live.events import EVENTS
from tests.live.server import TOKEN, LabelStudio, Project

pytestmark = pytest.mark.live

SHOWN = {"annotation_created", "ground_truth_off", "prediction_created", "task_deleted"}
HIDDEN = {"annotation_changed", "one_skip_deleted_and_another_made", "counters_overwritten_by_a_client", "draft_created", "label_config_changed"}


def test_the_counters_of_a_project_show_what_comes_and_goes_and_no_edit(server: LabelStudio, project: Project) -> None:
    seed(project)
    config = label_studio.Config.model_validate({"type": "label_studio", "url": server.url, "token": TOKEN})
    shown: set[str] = set()
    with closing(label_studio.open(config, {"projects": [str(project.id)]}, SystemClock())) as source:
        for event in sorted((event for event in EVENTS if event.name in SHOWN | HIDDEN), key=lambda event: event.name == "task_deleted"):
            if event.prepare:
                event.prepare(server, project)
            (before,) = source.collections()
            event.happen(server, project)
            (after,) = source.collections()
            shown |= {event.name} if before.counters != after.counters else set()
    assert shown == SHOWN
