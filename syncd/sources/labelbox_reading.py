"""One pass over one Labelbox Collection, full or incremental.

Rules:
- A probe comes first. When it equals the remembered one and the last activity lies before `since`, some export saw it, whatever the index lagged:
  nothing moved, and no export is started. Slices and model runs have no filter: when something moved they are read whole. What no probe shows
  (attachments, names in an ontology, files that a row no longer refers to) waits for the next full Run.
- The Cursor is the server's clock (`Date`) at the probe before the export, so never later than what the export saw (I2). It need not wait for rows
  that failed and have a name, since each pass asks for these by their ids until they are there.
- An export is noted before it is started: whoever comes after a crash reads that one, for the same purpose alone.
- Everything is there (I4) when the export is COMPLETE, has the lines it promises, and as many ids as Labelbox counted before or after it. Rows on
  its error stream, or that can't be read, failed; they are not absent. Otherwise nothing is missing, and a Failure says what lacks.
- An incremental reading after which the counts disagree goes on with a full export. When full exports lack the same number for longer than any index
  lags, the counter is believed to be off: told each time until then, it does not cost a full export for ever.
- Files of a row come before it: while they are not recorded the row is not either, and is read again.
- What is missing is remembered: while the Guard holds it, it explains the counts, and costs no full export each time.
- Memory stays flat: the ids that were seen are on disk.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, cast

from syncd import encode
from syncd.clock import SECOND
from syncd.errors import SourceError, TaskError
from syncd.keys import SIDE
from syncd.known import Known
from syncd.model import Counts, Entry, Failure, Task
from syncd.scratch import Scratch, chunks
from syncd.sources.base import Batch
from syncd.sources.labelbox_api import Api, Probe, moment
from syncd.sources.labelbox_export import LARGEST_PAGE, Exports, Page, name_for
from syncd.sources.labelbox_rows import Row, refused, rows_of
from syncd.sources.labelbox_scope import MOST_IDS, Scope

MOST_ROWS = 1000  # ids to look up at once
MOST_NOTED = 10_000  # missing ids that are remembered; when there are more, none is
LAG = 600 * SECOND  # longer than any index takes to catch up
_READ = b"1"
_EXPORT, _PROBE, _COUNTS, _LOST = "export", "probe", "counts", "missing"  # notes


class _Noted(NamedTuple):
    """An export that was begun. purpose: a digest of what it shows; since: None when it holds everything; task: empty until its id is known;
    cursor, rows: what the probe before it said.
    """

    purpose: str
    since: int | None
    name: str
    task: str
    cursor: int | None
    rows: int | None


@dataclass
class _Told:
    """What an export told so far. before: what Labelbox counted before it, if it is to hold everything; lines: of those `promised`;
    blind: rows that failed and have no name; ids: how many different ones.
    """

    before: int | None
    promised: int = 0
    lines: int = 0
    blind: int = 0
    ids: int = 0

    @property
    def whole(self) -> bool:
        return self.lines == self.promised


class _Counted(NamedTuple):
    """By how many rows Labelbox' counter is known to be off; by how many more than were exported it stands since `at`, by the server's clock."""

    off: int = 0
    lack: int = 0
    at: int = 0

    def after(self, lack: int, now: int) -> _Counted:
        """What to believe after a full export that lacks so many."""
        if lack in {0, self.off} or (lack == self.lack and now - self.at > LAG):
            return _Counted(lack)
        return _Counted(self.off, lack, self.at if lack == self.lack else now)


class Reading:
    """One pass. masks: keep their pictures, too."""

    def __init__(self, api: Api, exports: Exports, scope: Scope, collection: str, known: Known, *, masks: bool) -> None:
        self._api, self._exports, self._scope, self._known, self._masks = api, exports, scope, known, masks
        self._collection = collection
        notes = known.notes([_EXPORT, _PROBE, _COUNTS, _LOST])
        self._remembered = json.loads(notes[_PROBE]) if _PROBE in notes else None
        self._counted = _Counted(*json.loads(notes.get(_COUNTS, b"[]")))
        self._noted = _Noted(*json.loads(notes[_EXPORT])) if _EXPORT in notes else None
        self._lost: list[str] = json.loads(notes.get(_LOST, b"[]"))  # missing since an earlier full export
        self._failing = set(known.failing())
        self._told: set[str] = set()  # failures of this pass
        self._size, self._new = known.size(), 0  # before this pass; ids it found that had no Entry
        self._seen = Scratch()  # ids of the export: `_READ`, or empty for those that failed
        self._unlabeled = 0  # labels that rows had before this pass and have no more
        self._trouble = False  # the last file could not be had for as long as it was tried
        self._sparing = False  # leave out rows whose Revision is held
        self._resumable = False
        self._cursor: int | None = None

    def incremental(self, since: int) -> Iterator[Batch]:
        """What somebody worked on, what failed before, and everything else if the counts want it."""
        before = self._look()
        quiet = before.activity is not None and before.activity < since and self._remembered == list(before[:-1])  # but for when it was asked
        if quiet and self._noted is None and not self._failing and self._agree(before, before):
            yield from self._held_back()
            yield Batch(cursor=self._cursor)
            return
        if self._scope.dated and (self._noted is None or self._noted.since is not None):
            self._sparing = True
            told = yield from self._export(since, before)
            yield from self._failed_before()
            after = self._look()
            if self._agree(before, after) and not self._labels_vanished(after):
                yield from self._held_back()
                yield self._end(before, clean=told.whole and not told.blind)
                return
        yield from self._everything(before)

    def full(self, position: str | None) -> Iterator[Batch]:
        """Everything; from a position on, what is missing is left to the incremental reading that follows."""
        self._resumable = True
        if position is None:
            yield from self._everything(self._look())
            return
        task, offset, lines = json.loads(position)
        if self._exports.usable(task):
            yield from self._rows(task, _Told(None, lines=lines), offset)
        else:
            yield from self._export(None, self._look())
        yield Batch(cursor=self._cursor, notes={_EXPORT: None})

    def _look(self) -> Probe:
        found = self._api.probe(self._scope.kind, self._scope.id)
        self._cursor = found.asked_at if self._cursor is None else self._cursor
        return found

    def _everything(self, before: Probe) -> Iterator[Batch]:
        """A full export, and what it proves to be missing, or why it proves nothing."""
        self._seen, self._lost = Scratch(), []
        told = yield from self._export(None, before)
        after = self._look()
        counts = [] if self._scope.filtered else [count for count in (told.before, after.rows) if count is not None]
        lack = min(counts) - told.ids - told.blind if counts else 0
        proven = told.whole and lack <= max(self._counted.off, 0)
        if proven and not told.blind:
            yield from self._missing(chain(self._known.all_ids(), self._failing))
        elif told.whole and not proven:
            yield self._failure(f"a full export holds {told.ids} of {min(counts)} data rows; nothing is taken for deleted")
        lost = json.dumps(self._lost).encode() if 0 < len(self._lost) <= MOST_NOTED else None
        end = self._end(before, clean=proven and not told.blind)
        end = replace(end, notes={**end.notes, _LOST: lost})
        if counts and told.whole and not told.blind and len(set(counts)) == 1:
            end = replace(end, notes={**end.notes, _COUNTS: json.dumps(self._counted.after(lack, after.asked_at or 0)).encode()})
        yield end

    def _missing(self, ids: Iterable[str]) -> Iterator[Batch]:
        """Those that this export did not show."""
        for some in chunks(ids, MOST_ROWS):
            seen = self._seen.get(some)
            if lost := [id_ for id_ in dict.fromkeys(some) if id_ not in seen]:
                self._lost += lost[: MOST_NOTED + 1 - len(self._lost)]
                yield Batch(missing=lost, cursor=self._cursor)

    def _held_back(self) -> Iterator[Batch]:
        """What an earlier full export proved to be missing, and the Guard holds."""
        if self._lost:
            lost = self._still_lost()
            notes = {} if lost == self._lost else {_LOST: json.dumps(lost).encode() if lost else None}
            yield Batch(missing=lost, notes=notes, cursor=self._cursor)

    def _still_lost(self) -> list[str]:
        """Less what is not held any more, and what came back in this pass."""
        held, seen = self._known.entries(self._lost), self._seen.get(self._lost)
        return [id_ for id_ in self._lost if id_ in held and not held[id_].kept and id_ not in seen]

    def _failed_before(self) -> Iterator[Batch]:
        """Rows that failed in an earlier pass, or whose files did, and that this one has not met."""
        for some in chunks({_row(id_) for id_ in self._failing}, MOST_IDS):
            rest = set(some) - self._seen.get(some).keys()
            if rest:
                task = self._exports.start(self._scope.among(sorted(rest)), name_for(self._collection))
                told = yield from self._rows(task, _Told(None))
                rest -= self._seen.get(list(rest)).keys()
                if told.whole and not told.blind:
                    lost = [id_ for id_ in self._failing if _row(id_) in rest]
                    self._failing.difference_update(lost)
                    yield Batch(missing=lost, cursor=self._cursor)

    def _agree(self, before: Probe, after: Probe) -> bool:
        """Whether as many rows are held, or failing, as Labelbox counts."""
        if before.rows is None or after.rows is None or self._scope.filtered:
            return True
        failing = [id_ for id_ in self._failing | self._told if SIDE not in id_]
        held, seen = self._known.entries(failing), self._seen.get(failing)
        lost = sum((id_ not in held or held[id_].kept) and not seen.get(id_) for id_ in failing)
        lost -= sum(SIDE not in id_ for id_ in self._still_lost())
        return min(before.rows, after.rows) <= self._size + self._new + lost + self._counted.off <= max(before.rows, after.rows)

    def _labels_vanished(self, after: Probe) -> bool:
        """Whether Labelbox counts fewer labels than before, by more than the rows that came lost: deleting one may not count as work on its row."""
        if self._remembered is None or after.labels is None or self._scope.filtered:
            return False
        return int(self._remembered[2]) - after.labels > self._unlabeled

    def _end(self, before: Probe, *, clean: bool) -> Batch:
        """The export is over; the probe before it is remembered unless something could not be read."""
        return Batch(cursor=self._cursor, notes={_EXPORT: None, _PROBE: json.dumps(before[:-1]).encode() if clean else None})

    def _failure(self, error: str) -> Batch:
        return Batch(failed=[Failure(self._collection, None, error)], cursor=self._cursor)

    def _export(self, since: int | None, before: Probe) -> Generator[Batch, None, _Told]:
        """All rows of an export: of the one that was begun for this, or of a new one."""
        purpose = encode.digest(encode.dumps(self._scope.everything()._asdict())).hex()[:32]
        noted = self._begun(purpose, since)
        if noted is None:
            noted = _Noted(purpose, since, name_for(self._collection), "", self._cursor, before.rows)
            note = json.dumps(noted).encode()
            yield Batch(notes={_EXPORT: note}, cursor=self._cursor)
            self._exports.wait_until(lambda: self._known.notes([_EXPORT]).get(_EXPORT) == note)  # it may be read far ahead of what is recorded
            noted = noted._replace(task=self._exports.start(self._scope.everything(since), noted.name))
            yield Batch(notes={_EXPORT: json.dumps(noted).encode()}, cursor=self._cursor)
        self._cursor = noted.cursor if noted.cursor is not None else moment(self._exports.wait(noted.task), "createdAt")
        return (yield from self._rows(noted.task, _Told(noted.rows if since is None else None)))

    def _begun(self, purpose: str, since: int | None) -> _Noted | None:
        """The export that an earlier pass began, if it serves this one and can still be read. Only at once: later it would bring old bodies back."""
        noted, self._noted = self._noted, None
        if noted is None or noted.purpose != purpose:
            return None
        if noted.since != since and (noted.since is None or since is None or noted.since > since):
            return None
        task = noted.task or self._api.named(noted.name)
        return noted._replace(task=task) if task and self._exports.usable(task) else None

    def _rows(self, task: str, told: _Told, offset: int = 0) -> Generator[Batch, None, _Told]:
        """The rows of one export, and those that failed."""
        self._exports.wait(task)
        told.promised, pages = self._exports.stream(task, "RESULT", offset, expected=bool(told.before))
        for page in pages:
            told.lines += len(page.lines)
            yield from self._page(page, told, json.dumps([task, page.end, told.lines]) if self._resumable else None)
        for page in self._exports.stream(task, "ERRORS").pages:
            yield from self._failed([refused(line) for line in page.lines], told)
        if not told.whole:
            yield self._failure(f"an export promised {told.promised} data rows and held {told.lines}; nothing is taken for deleted")
        return told

    def _page(self, page: Page, told: _Told, position: str | None) -> Iterator[Batch]:
        """Its rows, their files before them."""
        found, bad = rows_of(page.lines, masks=self._masks)
        rows = {row.task.id: row for row in found}
        yield from self._failed(bad, told)
        ids = list(rows)
        asked = ids if self._sparing or any(row.sides for row in rows.values()) else []
        live = {id_: entry for id_, entry in self._known.entries(asked).items() if not entry.kept}
        met = self._seen.get(asked)
        self._new += sum(id_ not in live and id_ not in met for id_ in asked)
        told.ids += self._seen.mark(ids, _READ)
        self._unlabeled += sum(max(0, entry.counts.annotations - rows[id_].task.counts.annotations) for id_, entry in live.items())
        yield from self._sides(rows, live)
        tasks = [row.task for id_, row in rows.items() if not self._sparing or id_ in self._failing or _changed(row, live.get(id_))]
        yield Batch(tasks, position=position, cursor=self._cursor)

    def _sides(self, rows: Mapping[str, Row], live: Mapping[str, Entry]) -> Iterator[Batch]:
        """The files of rows that changed, and those that are not held."""
        wanted = {f"{id_}{SIDE}{name}": (row, url) for id_, row in rows.items() for name, url in row.sides.items()}
        self._seen.put((id_, b"") for id_ in wanted)
        held = self._known.entries(list(wanted))
        tasks, size = list[Task](), 0
        for id_, (row, url) in wanted.items():
            if id_ in held and id_ not in self._failing and not _changed(row, live.get(row.task.id)):
                continue
            try:
                data = self._api.file(url)
            except (TaskError, SourceError) as error:
                if isinstance(error, SourceError) and self._trouble:
                    raise  # nor the one before: it is not this file that is wrong, and each would be tried for as long
                self._trouble = isinstance(error, SourceError)
                yield Batch(failed=[Failure(self._collection, id_, str(error), self._cursor)], cursor=self._cursor)
                continue
            self._trouble = False
            if data:  # nothing at all: a skipped label
                tasks.append(Task(id_, row.task.revision, data, Counts()))
                size += len(data)
            if size >= LARGEST_PAGE:
                yield Batch(tasks, cursor=self._cursor)
                tasks, size = [], 0
        if tasks:
            yield Batch(tasks, cursor=self._cursor)

    def _failed(self, bad: Sequence[tuple[str | None, str]], told: _Told) -> Iterator[Batch]:
        """Rows that could not be read, each told once: they are there, so nobody may take them for deleted."""
        ids = {id_ for id_, _ in bad if id_ is not None}
        told.blind += sum(id_ is None for id_, _ in bad)
        told.ids += len(ids) - len(self._seen.get(list(ids)))
        self._seen.put((id_, b"") for id_ in ids)
        named = [Failure(self._collection, id_, error, self._cursor) for id_, error in bad if id_ is not None and id_ not in self._told]
        failed = [*named, *(Failure(self._collection, None, error) for id_, error in bad if id_ is None)]
        self._told |= ids
        if failed:
            yield Batch(failed=failed, cursor=self._cursor)


def _row(id_: str) -> str:
    """The row that a file belongs to, or the row itself."""
    return id_.partition(SIDE)[0]


def _changed(row: Row, entry: Entry | None) -> bool:
    if entry is None or row.task.volatile:
        return entry is None or entry.revision != row.task.revision
    return entry.digest != encode.digest(cast("bytes", row.task.body))
