"""The event table of the real server: each event happens, and shows no more than its signal says."""

from __future__ import annotations

import pytest

from tests.live.event_table import Event, seed
from tests.live.events import EVENTS
from tests.live.server import LabelStudio, Project

pytestmark = pytest.mark.live


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_the_event_happens(server: LabelStudio, project: Project, event: Event) -> None:
    seed(project)
    if event.prepare:
        event.prepare(server, project)
    event.happen(server, project)
