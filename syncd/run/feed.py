"""The change feed: one NDJSON file per Run that changed something.

Rule: a feed is written from what the Checkpoint recorded, and its lines are dropped there only when the file is durable; a killed Run's feed is
therefore completed by the next one, and every put and deletion stands in some feed.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from syncd import keys
from syncd.checkpoint.base import Lease
from syncd.clock import format_time
from syncd.keys import Layout
from syncd.model import Event
from syncd.run.job import Job
from syncd.run.place import Place
from syncd.scratch import chunks


def publish(job: Job, lease: Lease, place: Place) -> None:
    """Write every feed that waits, oldest first. Nothing waits: nothing is asked of the Target."""
    layout = job.layout
    for run_id in job.checkpoint.pending_feeds(job.name):
        place.claim()
        job.target.put_stream(keys.feed(run_id), lambda run_id=run_id: _lines(job, layout, run_id))  # type: ignore[misc]
        job.target.flush()
        job.checkpoint.clear_events(lease, run_id)


def _lines(job: Job, layout: Layout, run_id: str) -> Iterator[bytes]:
    """Some hundred lines at a time."""
    for some in chunks(job.checkpoint.events(job.name, run_id)):
        yield b"".join(_dumps(_line(layout, run_id, event)) for event in some)


def _dumps(line: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an id that is no Unicode text: shown with escapes, since every reader must get through; the key is exact
        shown = {name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value for name, value in line.items()}
        return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def _line(layout: Layout, run_id: str, event: Event) -> dict[str, object]:
    key = layout.settings(event.project) if event.task is None else layout.task(event.project, event.task)
    task = event.task and event.task.partition(keys.SIDE)[0]  # a side file's line names its task
    return {
        "op": event.op, "why": event.why, "project": event.project, "task": task, "key": key, "digest": event.digest.hex(),
        "last_activity": format_time(event.last_activity) if event.last_activity else None, "run_id": run_id, "at": format_time(event.at),
    }  # fmt: skip
