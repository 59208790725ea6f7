"""What can happen to a project on a real Label Studio, each as one small function that checks, through the API, that it really happened.

`signal` says what of it the server lets be seen: activity (updated_at moves), counters (totals move, no date does), drafts (only draft_exists, or not
even that), settings (the project changes), deletion (tasks are gone) or none (nothing moves: a full Run alone sees it). Where an event has several,
the one that is hardest to see. Every event starts from `event_table.seed`, in a project of its own.
"""

from __future__ import annotations

from tests.live import events_annotations, events_tasks
from tests.live.event_table import Event

EVENTS: list[Event] = [*events_annotations.event.events, *events_tasks.event.events]
