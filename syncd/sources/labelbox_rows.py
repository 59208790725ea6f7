"""One line of a Labelbox export as a Task, and the files that belong to it.

Pure. The body is the line itself, so that every value is what Labelbox sent, digit for digit (I7). All of it is checked, and of its values only
those named here are made: a quarter of the cost. The address of a mask names the export it stands in, and so changes by itself: a row with masks is
told by a digest of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from syncd import encode
from syncd.errors import TaskError
from syncd.model import Counts, Revision, Task
from syncd.sources.rows import moment, part

_HAS_MASKS = re.compile(rb"/masks\\?/").search
_MASK = re.compile(rb'"(https?://[^"\\]*/tasks/)[^/"\\]+(/masks/([^"\\?]+)[^"\\]*)"')
_ID = re.compile(rb'"data_row"\s*:\s*\{\s*"id"\s*:\s*"([^"\\]+)"')
_REFUSED = re.compile(r'"(?:data_row_id|dataRowId|id)"\s*:\s*"([^"\\]+)"')
_48_BITS = 6  # bytes
_SHOWN = 300  # characters of a server's own words
_NOTHING = Raw(b"")


class _Details(Struct):
    last_activity_at: object = None
    dataset_id: object = None


class _DataRow(Struct):
    id: str
    details: _Details | None = None


class _Annotations(Struct):
    frames: Raw = _NOTHING


class _Label(Struct):
    """frames: an address in older exports, where today's hold the frames themselves."""

    id: object = None
    frames: Raw = _NOTHING
    annotations: _Annotations | None = None


class _Project(Struct):
    labels: list[_Label] | None = None


class _Shape(Struct):
    data_row: _DataRow
    projects: dict[str, _Project] | None = None


_SHAPE = msgspec.json.Decoder(_Shape)


class Row(NamedTuple):
    """sides: address by name of each file that belongs beside the row."""

    task: Task
    sides: Mapping[str, str]
    shape: _Shape

    @property
    def homes(self) -> frozenset[str]:
        """The ids of the projects and of the dataset that it says it is in."""
        details = self.shape.data_row.details or _Details()
        return frozenset([*(self.shape.projects or ()), str(details.dataset_id)])


def row_of(line: bytes, *, masks: bool) -> Row:
    """The row of a line. Raises TaskError."""
    row = _shape(line)
    labels = [label for project in row.projects.values() for label in project.labels or ()] if row.projects else []
    sides = {f"frames-{label.id}.ndjson": url for label in labels if (url := _frames(label))}
    counters: tuple[int, ...] = ()
    if volatile := _HAS_MASKS(line) is not None:
        plain = line.replace(b"\\/", b"/")
        digest = encode.digest(_MASK.sub(rb'"\1*\2"', plain))
        counters = tuple(int.from_bytes(digest[at : at + _48_BITS]) for at in (0, _48_BITS))
        sides |= {_mask_name(mask[3]): mask[0][1:-1].decode() for mask in _MASK.finditer(plain) if masks}
    activity = moment(row.data_row.details.last_activity_at) if row.data_row.details else None
    task = Task(row.data_row.id, Revision(0, activity or 0, counters), line + b"\n", Counts(1, len(labels)), volatile=volatile)
    return Row(task, sides, row)


def rows_of(lines: Iterable[bytes], *, masks: bool) -> tuple[list[Row], list[tuple[str | None, str]]]:
    """The rows of these lines; and of those that can't be read the id, if it can be told all the same, and the reason."""
    rows, bad = list[Row](), list[tuple[str | None, str]]()
    for line in lines:
        try:
            rows.append(row_of(line, masks=masks))
        except TaskError as error:
            found = _ID.search(line)
            bad.append((found and found[1].decode("utf-8", "replace"), str(error)))
    return rows, bad


def refused(line: bytes) -> tuple[str | None, str]:
    """Which row a line of the error stream is about, if it says so, and the whole of it in words."""
    said = line.decode("utf-8", "replace")
    found = _REFUSED.search(said)
    return found and found[1], f"Labelbox could not export it: {said[:_SHOWN]}"


def _shape(line: bytes) -> _Shape:
    try:
        line.decode()  # what is passed over is not looked at so closely
        return _SHAPE.decode(line)
    except msgspec.ValidationError:  # odd in its labels, say: it is kept all the same
        body = encode.parse(line)
        id_ = part(body, "data_row").get("id") if isinstance(body, dict) else None
        if not isinstance(id_, str):
            raise TaskError("not a data row: an object with `data_row.id` is expected") from None
        return _Shape(_DataRow(id_))
    except (ValueError, RecursionError):
        encode.parse(line)  # names the fault
        raise TaskError("not JSON that every reader takes") from None


def _mask_name(path: bytes) -> str:
    return f"mask-{path.decode().replace('/index/', '-').replace('/', '-')}.png"


def _frames(label: _Label) -> str:
    """The address of its frames, in older exports."""
    for raw in (label.frames, label.annotations.frames if label.annotations else _NOTHING):
        if raw is not _NOTHING and bytes(memoryview(raw)[:5]) == b'"http':  # no copy: the frames themselves may be many
            return str(msgspec.json.decode(raw))
    return ""
