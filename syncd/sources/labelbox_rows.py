"""One line of a Labelbox export as a Task, and the files that belong to it.

Pure. The body is the line itself, so that every value is what Labelbox sent, digit for digit (I7); it is parsed only to be understood. The address of
a mask names the export it stands in, and changes by itself: a row with masks is told by a digest of all the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, cast

import orjson

from syncd import encode
from syncd.errors import TaskError
from syncd.model import Counts, Revision, Task
from syncd.sources.rows import labels, last_activity, part

_HAS_MASKS = re.compile(rb"/masks\\?/").search
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
        row = _parse(cast("bytes", self.task.body))
        return frozenset([*part(row, "projects"), part(part(row, "data_row"), "details").get("dataset_id")])


def row_of(line: bytes, *, masks: bool) -> Row:
    """The row of a line. Raises TaskError."""
    row = _parse(line)
    id_ = part(row, "data_row").get("id")
    if not isinstance(id_, str) or not id_:
        raise TaskError("not a data row: an object with `data_row.id` is expected")
    found = labels(row)
    sides = {f"frames-{label.get('id')}.ndjson": url for label in found if (url := _frames(label))}
    counters: tuple[int, ...] = ()
    if volatile := _HAS_MASKS(line) is not None:
        plain = line.replace(b"\\/", b"/")
        digest = encode.digest(_MASK.sub(rb'"\1*\2"', plain))
        counters = tuple(int.from_bytes(digest[at : at + _48_BITS]) for at in (0, _48_BITS))
        sides |= {_mask_name(mask[3]): mask[0][1:-1].decode() for mask in _MASK.finditer(plain) if masks}
    revision = Revision(0, last_activity(row) or 0, counters)
    return Row(Task(id_, revision, line + b"\n", Counts(1, len(found)), volatile=volatile), sides)


def told_id(line: bytes) -> str | None:
    """The id of a row that can't be read, if it can be told all the same."""
    found = _ID.search(line)
    return found[1].decode("utf-8", "replace") if found else None


def refused(line: bytes) -> tuple[str | None, str]:
    """Which row a line of the error stream is about, if it says so, and the whole of it in words."""
    said = line.decode("utf-8", "replace")
    found = _REFUSED.search(said)
    return found and found[1], f"Labelbox could not export it: {said[:_SHOWN]}"


def _parse(line: bytes) -> Mapping[str, object]:
    try:
        row = orjson.loads(line)
    except ValueError:
        row = encode.parse(line)  # a number beyond orjson, or a fault that this one names
    return row if isinstance(row, dict) else {}


def _mask_name(path: bytes) -> str:
    return f"mask-{path.decode().replace('/index/', '-').replace('/', '-')}.png"


def _frames(label: Mapping[str, object]) -> str:
    """Older exports give the frames of a video's label as an address."""
    frames = label.get("frames") or part(label, "annotations").get("frames")
    return frames if isinstance(frames, str) and frames.startswith(("https://", "http://")) else ""
