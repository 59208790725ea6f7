"""One line of a Labelbox export as a Task, and the files that belong to it.

Pure. The Revision of a row holds a digest of it: last_activity has whole seconds, and a second may hold two changes with an export between them. What
changes by itself is the address of a mask, which names the export it stands in: it counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

from syncd import encode
from syncd.errors import TaskError
from syncd.model import Revision, Task
from syncd.sources.rows import counts, last_activity, part, task_id

_MASK = re.compile(rb'"(https?://[^"\\]*/tasks/)[^/"\\]+(/masks/([^"\\?]+)[^"\\]*)"')
_ID = re.compile(rb'"data_row"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]+)"')
_REFUSED = re.compile(r'"(?:data_row_id|dataRowId|id)"\s*:\s*"([^"\\]+)"')
_48_BITS = 6  # bytes
_SHOWN = 300  # characters of a server's own words


class Row(NamedTuple):
    """sides: address by name of each file that belongs beside the row."""

    task: Task
    sides: Mapping[str, str]

    @property
    def homes(self) -> frozenset[object]:
        """The ids of the projects and of the dataset that it says it is in."""
        row = cast("Mapping[str, object]", self.task.body)
        return frozenset([*part(row, "projects"), part(part(row, "data_row"), "details").get("dataset_id")])


def row_of(line: bytes, *, masks: bool) -> Row:
    """The row of a line. Raises TaskError."""
    row = encode.parse(line)
    id_ = task_id(row) if isinstance(row, dict) and "data_row" in row else None
    if not isinstance(row, dict) or id_ is None:
        raise TaskError("not a data row: an object with `data_row.id` is expected")
    activity = last_activity(row) or 0
    volatile = b"/masks/" in line
    sides = dict(_frames(row)) if b'"frames"' in line else {}
    if volatile:
        data = encode.dumps(row)
        if masks:
            sides |= {_mask_name(found[3]): found[0][1:-1].decode() for found in _MASK.finditer(data)}
        line = _MASK.sub(rb'"\1*\2"', data)
    digest = encode.digest(line)
    counters = tuple(int.from_bytes(digest[at : at + _48_BITS]) for at in (0, _48_BITS))
    return Row(Task(id_, Revision(0, activity, counters), row, counts(row), volatile=volatile), sides)


def told_id(line: bytes) -> str | None:
    """The id of a row that can't be read, if it can be told all the same."""
    found = _ID.search(line)
    return found[1].decode("utf-8", "replace") if found else None


def refused(line: bytes) -> tuple[str | None, str]:
    """Which row a line of the error stream is about, if it says so, and the whole of it in words."""
    said = line.decode("utf-8", "replace")
    found = _REFUSED.search(said)
    return found and found[1], f"Labelbox could not export it: {said[:_SHOWN]}"


def _mask_name(path: bytes) -> str:
    return f"mask-{path.decode().replace('/index/', '-').replace('/', '-')}.png"


def _frames(row: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Older exports give the frames of a video's label as an address."""
    for project in _values(row.get("projects")):
        labels = project.get("labels")
        for label in labels if isinstance(labels, list) else []:
            if isinstance(label, dict):
                annotations = label.get("annotations")
                frames = label.get("frames") or (annotations.get("frames") if isinstance(annotations, dict) else None)
                if isinstance(frames, str) and frames.startswith(("https://", "http://")):
                    yield f"frames-{label.get('id')}.ndjson", frames


def _values(found: object) -> list[Mapping[str, object]]:
    return [value for value in found.values() if isinstance(value, dict)] if isinstance(found, dict) else []
