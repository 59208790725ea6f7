"""The tasks of a large project by Label Studio's snapshots (exports), for less than half of what its task list costs the server.

Only for a first pass, and only where the config says `bulk: auto`, since it writes where syncd otherwise only reads. Observed on Community 1.23.2:
a snapshot is made inside the request that asks for it, and its file stays on the server (media/export in its data folder) even when it is deleted. So
each is of a range of ids, small enough for any time-out, chosen by a view that people may see as a tab meanwhile. Rules:
- A body is the one the list would hand over, byte by byte. What a snapshot lacks must follow from what it has: tasks for which the server itself
  tells otherwise (drafts; an import storage; an overlap of their own; another number of parts than it holds) are odd, and left to the list.
- A snapshot is believed if it holds as many tasks as the range counts, and a few of each kind are what the list hands over (I4).
- It is a shortcut, never a reason to fail: whatever is wrong, late or not worth it ends it, and the list goes on from there.
- Snapshots and views are removed at once; those that took too long, and those of a process that died, by the next full Run an hour later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from syncd import encode
from syncd.clock import SECOND, Clock, format_time
from syncd.errors import SourceError, SyncdError
from syncd.sources import label_studio_api as api
from syncd.sources.http import Http
from syncd.sources.split import pieces

LOG = logging.getLogger("syncd.label_studio")
LARGEST, SMALLEST = 5000, 1000  # tasks in a snapshot; each costs the server about 1 ms
HEAVIEST = 200_000_000  # bytes of a snapshot, as its first tasks let expect
ODD = 0.1  # more than this share of odd tasks: the list does as well
PORTION, PORTION_BYTES = 200, 3_000_000  # tasks, and bytes, handed over at a time
SAMPLE = 10  # tasks of each kind that are compared with the list
POLL = 2.0  # seconds between looks, where a server makes snapshots in the background
ABANDONED = 3600 * SECOND
TITLE = "syncd, for a moment "
_CONTENT = {
    "drafts": {"only_id": True},
    "predictions": {"only_id": False},
    "annotations__completed_by": {"only_id": False},
    "interpolate_key_frames": False,
}
_VIEWS = "/api/dm/views/"
_NOT_LISTED = ("prediction", "result_count", "unique_id")  # of an annotation


class Portion(NamedTuple):
    """odd: tasks whose bodies only the list has. ids: the tasks that follow, in order; bodies: theirs, but for those that were odd before."""

    odd: list[int]
    ids: list[int]
    bodies: list[dict[str, object]]


class Snapshots:
    """Those of one pass over one project."""

    def __init__(self, source: api.Api, http: Http, url: str, project: str, clock: Clock, timeout: float, *, making: bool) -> None:
        """timeout: seconds that making one may take; making: else they are only taken away."""
        self._api, self._http, self._project, self._clock, self._timeout, self._making = source, http, project, clock, timeout, making
        self._url, self._exports = url, f"/api/projects/{project}/exports/"

    def after(self, last: int) -> Iterator[Portion]:
        """All tasks with a greater id, or as many of them as snapshots give. Raises Stopped."""
        try:
            while True:
                with TemporaryFile() as file:
                    snapshot = self._next(last, file)
                    if snapshot is None:
                        return
                    for portion in snapshot.portions():
                        yield portion
                        last = portion.ids[-1] if portion.ids else last
        except (SyncdError, OSError) as error:
            LOG.info("project %s: its task list is read after id %d, since snapshots did not do: %s", self._project, last, error)

    def _next(self, last: int, file: IO[bytes]) -> _Snapshot | None:
        """The tasks that follow, set aside in `file`; None where the list does as well. Raises SyncdError or OSError for whatever is wrong."""
        first = self._api.bodies(self._project, (), SAMPLE, last)
        if first.counts.tasks < SMALLEST or first.asked_at is None:
            return None
        abandoned = TITLE + format_time(first.asked_at - ABANDONED)
        self._remove(lambda title, _status: title < abandoned)
        size = min(first.counts.tasks, LARGEST, HEAVIEST * len(first.tasks) // max(first.size, 1))
        if size < SMALLEST or not self._making:
            return None
        high = self._api.nth(self._project, last, size)
        span, overlap = api.between(last + 1, high), api.integer(first.tasks[0], "overlap")
        snapshot = _Snapshot(file, self._project, overlap, self._odd(span, overlap, int(size * ODD)))
        kinds = [self._api.bodies(self._project, [*span, kind], SAMPLE).tasks for kind in (api.LABELED, api.PREDICTED)]
        title = TITLE + format_time(first.asked_at)
        try:
            self._fill(snapshot, span, size, title)
        finally:
            self._remove(lambda found, status: found == title and status != "in_progress")  # one that is being made would leave its file
        snapshot.check(last, high, size, [*first.tasks, *kinds[0], *kinds[1]])
        return snapshot

    def _odd(self, span: list[api.Filter], overlap: int, most: int) -> set[int]:
        """Tasks that a snapshot does not show as the list does. Raises SourceError when they are many."""
        odd = set[int]()
        for kind in api.beyond_snapshots(overlap):
            page, rows = self._api.rows(self._project, [*span, *kind], most + 1)
            odd |= {row.id for row in rows}
            if not page.complete or len(odd) > most:
                raise SourceError("too many of its tasks have drafts, an import storage or an overlap of their own")
        return odd

    def _fill(self, snapshot: _Snapshot, span: list[api.Filter], size: int, title: str) -> None:
        """Have it made and, if it holds so many tasks, downloaded: without its view it would be the whole project."""
        end = self._clock.monotonic() + self._timeout
        query = {"filters": {"conjunction": "and", "items": span}, "ordering": ["tasks:id"]}
        view = api.mapping(self._http.change("POST", _VIEWS, {"project": int(self._project), "data": {"title": title, **query}}), _VIEWS)
        options = {"title": title, "serialization_options": _CONTENT, "task_filter_options": {"view": api.integer(view, "id")}}
        made = api.mapping(self._http.change("POST", self._exports, options), self._exports)
        path = f"{self._exports}{api.integer(made, 'id')}"
        while made.get("status") in ("created", "in_progress") and self._clock.monotonic() < end:
            self._clock.wait(POLL)
            made = api.mapping(self._http.get(path).body, path)
        if made.get("status") != "completed" or api.integer(api.mapping(made.get("counters"), path), "task_number") != size:
            raise SourceError(f"POST {self._exports}: made no snapshot of {size} tasks, but one {made.get('status')} with {made.get('counters')}")
        # closed whatever happens: it keeps its turn, and the next request would wait for it
        with TemporaryFile() as file, closing(self._http.download(f"{self._url}{path}/download", authorized=True)) as parts:
            file.writelines(_limited(parts))
            file.seek(0)
            for piece in pieces(file, lines_only=False):
                snapshot.add(piece.data)

    def _remove(self, which: Callable[[str, object], bool]) -> None:
        """Remove our views and snapshots with such a title and status. Raises SyncdError."""
        for view in api.objects(self._http.get(_VIEWS, {"project": self._project}).body, _VIEWS):
            title = str(api.mapping(view.get("data"), _VIEWS).get("title"))
            if title.startswith(TITLE) and which(title, None):
                self._http.change("DELETE", f"{_VIEWS}{api.integer(view, 'id')}/")
        for made in api.objects(self._http.get(self._exports).body, self._exports):
            if str(made.get("title")).startswith(TITLE) and which(str(made.get("title")), made.get("status")):
                self._http.change("DELETE", f"{self._exports}{api.integer(made, 'id')}")


class _Snapshot:
    """The bodies of one, set aside on disk."""

    def __init__(self, file: IO[bytes], project: str, overlap: int, odd: set[int]) -> None:
        self._file, self._project, self._overlap, self._odd = file, project, overlap, odd
        self._places = dict[int, tuple[int, int]]()

    def add(self, data: bytes) -> None:
        """Raises SourceError or TaskError for what can't be a task of this project."""
        body = _object(data)
        id_, revision, _ = api.row_of(body)
        if body.get("drafts"):  # a new one: nothing else shows a draft
            self._odd.add(id_)
        else:
            api.check_body(body, self._project)
            if not _whole(body, revision.counters):
                self._odd.add(id_)
        self._places[id_] = self._file.tell(), len(data)
        self._file.write(data)

    def check(self, last: int, high: int, size: int, sample: list[dict[str, object]]) -> None:
        """Raises SourceError unless it holds so many tasks in this range, few of them odd, and these as the list has them."""
        inside = sum(last < id_ <= high for id_ in self._places)
        if not inside == len(self._places) == size:
            raise SourceError(f"{size} tasks were counted, and a snapshot of them holds {len(self._places)}, {inside} of them in the range")
        if len(self._odd) > size * ODD:
            raise SourceError("too many of its tasks have a new draft, or other parts than they count")
        for listed in sample:
            id_ = api.integer(listed, "id")
            for body in self._read([id_] if id_ in self._places else []):
                if body.get("updated_at") == listed.get("updated_at") and _file(body) != _file(listed):
                    raise SourceError(f"task {id_} is another in a snapshot than in the list")

    def portions(self) -> Iterator[Portion]:
        """All of it: what is odd, then everything in order of id."""
        yield Portion(sorted(self._odd & self._places.keys()), [], [])
        ids, weight = list[int](), 0
        for id_ in sorted(self._places):
            size = self._places[id_][1]
            if ids and (len(ids) == PORTION or weight + size > PORTION_BYTES):
                yield Portion([], ids, list(self._read(ids)))
                ids, weight = [], 0
            ids.append(id_)
            weight += size
        yield Portion([], ids, list(self._read(ids)))

    def _read(self, ids: list[int]) -> Iterator[dict[str, object]]:
        """Those that are not odd, as the list would hand them over."""
        for id_ in ids:
            if id_ not in self._odd:
                at, size = self._places[id_]
                self._file.seek(at)
                yield self._as_listed(_object(self._file.read(size)))

    def _as_listed(self, body: dict[str, object]) -> dict[str, object]:
        for annotation in api.objects(body.get("annotations"), "a snapshot"):
            for name in _NOT_LISTED:
                annotation.pop(name, None)
        body.pop("allow_skip", None)
        labeled = api.integer(body, "total_annotations") >= self._overlap
        return {"file_upload": None, "storage_filename": None, **body, "overlap": self._overlap, "is_labeled": labeled}


def _limited(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Raises SourceError when there is far more than was expected: a disk that is full would stop more than this."""
    size = 0
    for part in parts:
        size += len(part)
        if size > 4 * HEAVIEST:
            raise SourceError(f"a snapshot is heavier than {4 * HEAVIEST} bytes")
        yield part


def _object(data: bytes) -> dict[str, object]:
    return dict(api.mapping(encode.parse(data), "a snapshot"))


def _whole(body: dict[str, object], counters: Sequence[int]) -> bool:
    """Whether a task holds as many parts, each with its id, as it says of itself."""
    annotations, cancelled, predictions = counters
    return (annotations + cancelled, predictions) == tuple(
        len({part["id"] for part in api.objects(body[name], name) if isinstance(part.get("id"), int)}) for name in ("annotations", "predictions")
    )


def _file(body: dict[str, object]) -> bytes:
    return encode.dumps(api.task_of(body).body)
