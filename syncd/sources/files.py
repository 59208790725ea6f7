"""A folder of exports as Source: each first-level sub-folder a Collection, the files of the root the Collection `default`.

Reads *.json, *.ndjson and *.jsonl at any depth of their Collection, whatever they hold: an array of tasks, one task, or one task per line; memory is
bounded by the largest task, whatever the file's size. Refuses to write, and to follow a folder into itself; hidden files are ignored.

Rules:
- A note per file says which version of it (name, size, times, inode) was read to its end, and which ids it gave; only other versions are opened.
- A Revision names the version of the file that gave the task. So an Entry whose version is not there any more, and that no file opened now gives,
  is missing: whatever notes were lost, and however often the Guard stops its deletion.
- An id given by two files is the newest one's (time of modification, then name): files are opened in that order. Where unopened files would have a
  say (one of them gave the id, some id is known to be shared, a task is failing) everything is read. So the order in which files came never matters.
- Nothing is absent (I4) unless every file of the Collection was read to its end and none failed. `confirm` reads all of them, unless
  everything was read just before and they are the very same versions. A file of lines written a moment ago may still be growing: it proves nothing.
- The Cursor is the time of the newest file; versions decide, not the Cursor. `requests` counts files opened and folders listed.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

from syncd.clock import SECOND, Clock
from syncd.encode import dumps, parse
from syncd.errors import TaskError
from syncd.fields import Fields
from syncd.known import Known
from syncd.model import Collection, Entry, Gone, Revision, Task
from syncd.retry import Failed
from syncd.scratch import Scratch, chunks
from syncd.sources.base import Batch, Selection, selected
from syncd.sources.files_folder import File, Folder, Look, is_text, shown, stamp_of
from syncd.sources.rows import counts, created_at, last_activity, task_id
from syncd.sources.split import Piece, pieces

_ITEMS = 1000  # tasks and notes in one Batch
_PAGE = 2 << 20  # bytes of tasks in one Batch
_SMALL = 1 << 16  # bytes of a file that is read at once
_FRESH = 2 * SECOND  # how lately a file may have been written to be trusted: a second write could leave the same stamp
_SHARED = "/shared"  # note: some id is given by two files (names of files never begin with a slash)
_UNSETTLED = "/unsettled"  # note: the last reading broke off, was in doubt or told something missing, so what is missing must be looked for
_HELD = 100  # Collections whose ids are held until deletions are confirmed, 0.1 MB each; the others are read again
_FLAGS = (_SHARED, _UNSETTLED)


class Config(Fields):
    """A folder of exports, from Label Studio, Labelbox or your own tools."""

    type: Literal["files"]
    path: Path
    """The folder. Each sub-folder is a Collection; files beside them make the Collection `default`."""


def open(config: Config, select: Selection, clock: Clock) -> Source:  # noqa: A001 - every edge is opened by this name
    """The Source of that folder."""
    return Source(config.path, select, clock)


class _Found(NamedTuple):
    """A task of a file; mark: which version of which file gave it, and which bytes."""

    task: Task
    size: int
    name: str
    mark: bytes


class _Note(NamedTuple):
    """What to remember of a file, if it did not fail; same: it gives the ids that it gave before, if it did."""

    name: str
    value: bytes
    same: bool
    size: int = 0


class _InDoubt(Exception):  # noqa: N818 - a turn, not an error
    """Files that were not opened may have a say: everything must be read."""


class Source:
    """One folder."""

    waits = False

    def __init__(self, root: Path, select: Selection, clock: Clock) -> None:
        self._folder = Folder(root)
        self._select, self.failed = select, Failed()  # what a folder won't give is a Failure, or the whole Source fails
        self._clock = clock
        self._given: dict[str, tuple[bytes, Scratch]] = {}  # by Collection: `Look.proof` of files all read to their end, and every id they gave

    @property
    def requests(self) -> int:
        """Files opened and folders listed."""
        return self._folder.requests

    def collections(self) -> list[Collection]:
        """Sub-folders by name, and `default` when the root holds files. Raises SourceError."""
        wanted = self._select.get("projects")
        return [Collection(name, shown(name)) for name in sorted(self._folder.names()) if selected(wanted, name, name)]

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True, plan: bool = False
    ) -> Iterator[Batch]:
        """See `base.Source`; never resumes at a position: digests keep what is right from being written again."""
        del position, drafts, plan
        self._folder.names()  # raises when there is no folder: then nothing below it is absent
        if since is not None and not known.failing():
            with suppress(_InDoubt):
                yield from self._reading(_Pass(self._folder.look(collection), known, whole=False))
                return
        yield from self._reading(_Pass(self._folder.look(collection), known, whole=True))

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        """Those that no file gives: as everything read last told, if the files are still the very same ones, else everything is read now."""
        self._folder.names()
        if not tasks:
            return {}
        look = self._folder.look(collection)
        deque(self._folder.walk(look), 0)
        files, ids = self._given.get(collection.id, (b"", Scratch()))
        if files != look.proof:
            look, ids = self._folder.look(collection), Scratch()
            items = chain.from_iterable(self._read(look, file) for file in self._folder.walk(look))
            ids.put((item.task.id, b"") for item in items if isinstance(item, _Found))
        if look.doubt:
            return {}
        self._hold(look, ids)
        there = ids.get(tasks)
        return {task: Gone.DELETED for task in tasks if task not in there}

    def confirm_collection(self, collection: Collection) -> bool:
        """Whether its folder (of `default`: every file of the root) is gone while the root can be read."""
        return self._folder.gone(collection)

    def settings(self, collection: Collection) -> Mapping[str, object]:
        """The title alone: a folder has no settings."""
        self._folder.names()
        return {"title": collection.title}

    def close(self) -> None:
        """Nothing is held open."""

    def _hold(self, look: Look, ids: Scratch) -> None:
        self._given.pop(look.collection.id, None)
        self._given[look.collection.id] = look.proof, ids
        if len(self._given) > _HELD:
            del self._given[next(iter(self._given))]

    def _reading(self, one: _Pass) -> Iterator[Batch]:
        """What changed, what failed, what is missing. Raises _InDoubt."""
        look = one.look
        one.sort(self._folder.walk(look))
        listed = not look.doubt
        if one.work:
            yield Batch(notes=dict.fromkeys(_FLAGS if one.whole else (_UNSETTLED,), b""))  # before any Entry: however this ends, the next one knows
        for page in _pages(item for packed in one.order.items(descending=True) for item in self._read(look, File.unpack(*packed))):
            batch = one.batch(page)
            if batch.tasks or batch.notes:
                yield batch
        if look.failed:
            yield Batch(failed=look.failed)
        settled = not look.doubt
        if settled:
            for missing in one.missing():
                settled = False
                yield Batch(missing=missing)
            for notes in one.outdated():
                yield Batch(notes=notes)
            if one.whole and not settled:
                self._hold(look, one.seen)
        over = {_SHARED: listed and not one.shared, _UNSETTLED: settled}
        yield Batch(notes={name: None for name in _FLAGS if over[name] and (one.work or name in one.flags)}, cursor=look.newest)

    def _read(self, look: Look, file: File) -> Iterator[_Found | _Note]:
        """The file's tasks, and at its end its note; whatever can't be read is told to the Look."""
        self._folder.requests += 1
        ids, fresh = blake2b(digest_size=8), False
        try:
            opened = os.open(f"{look.top}/{file.name}", os.O_RDONLY | os.O_NONBLOCK)  # never waits, should the file have become a pipe
            try:
                found = os.fstat(opened)
                fresh = abs(self._clock.now() - max(found.st_mtime_ns, found.st_ctime_ns) // 1000) < _FRESH
                for piece in pieces(_stream(opened, found.st_size), lines_only=not file.name.lower().endswith(".json")):
                    look.doubt |= piece.line and fresh
                    if (task := _task(look, file, piece)) is not None:
                        ids.update(task.task.id.encode("utf-8", "surrogatepass") + b"\0")
                        yield task
                if stamp_of(file.name, os.fstat(opened)) != file.stamp:
                    raise TaskError("changed while it was being read; the next Run reads it again")
            finally:
                os.close(opened)
        except OSError as error:
            look.fail(file.name, f"can't be read: {error.strerror}")
        except TaskError as error:
            look.fail(file.name, str(error))
        value = file.stamp[:8] + ids.digest() + (b"?" if fresh else b"")
        yield _Note(file.name, value, same=file.note[8:16] in {b"", value[8:16]})


class _Pass:
    """What one reading opens, admits and finds missing.

    flags: as they were noted; order: the files to open; work: there are some, or some are gone; shared: some id is given by two files;
    seen: every id given so far, and the mark of the first that gave it.
    """

    def __init__(self, look: Look, known: Known, *, whole: bool) -> None:
        self.look, self._known, self.whole = look, known, whole
        self.order, self.seen = Scratch(), Scratch()
        self.flags = known.notes(_FLAGS)
        self.work = False
        self.shared = not whole and _SHARED in self.flags
        self._search = bool(known.size() or known.failing()) if whole else _UNSETTLED in self.flags  # something may be missing
        self._gone = False  # some notes are of files that are gone
        self._unopened = array("Q")  # versions, sorted

    def sort(self, files: Iterable[File]) -> None:
        """Tell the files to open from those that were read already. Raises _InDoubt."""
        met, noted, unopened = len(self.flags), self._known.note_count(), array("Q")
        for chunk in chunks(files):
            notes = self._known.notes([file.name for file in chunk]) if noted else {}
            met += len(notes)
            changed = []
            for file in chunk:
                note = notes.get(file.name, b"")
                if self.whole or note[:8] + note[16:] != file.stamp[:8]:
                    changed.append(file.pack(note))
                else:
                    unopened.append(_version(file.stamp))
            self.order.put(changed)
            self.work |= bool(changed)
        self._gone = met != noted
        self._search, self.work = self._search or self._gone, self.work or self._gone
        self._unopened = array("Q", sorted(unopened))
        if self.shared and self.work:
            raise _InDoubt

    def batch(self, page: Sequence[_Found | _Note]) -> Batch:
        """The tasks of a page that no newer file gave, and its notes. Raises _InDoubt."""
        marks = {found.task.id: found.mark for found in reversed(page) if isinstance(found, _Found)}
        if not self.whole and any(not entry.kept and self._stands(entry) for entry in self._known.entries(list(marks)).values()):
            raise _InDoubt
        first, tasks = self.seen.add(marks), dict[str, Task]()
        for task, _, name, mark in (found for found in page if isinstance(found, _Found)):
            before = first[task.id]
            if before == mark:
                tasks[task.id] = task
            elif before[:6] != mark[:6]:
                self.shared = True
            else:
                self.look.fail(name, f"id {task.id} stands twice in this file, and not the same", task.id)
        read = [note for note in page if isinstance(note, _Note)]
        self._search |= not all(note.same for note in read)
        notes = {note.name: None if note.name in self.look.bad else note.value for note in read}
        return Batch(tasks=list(tasks.values()), notes=notes | {_SHARED: b""} if self.shared else notes)

    def missing(self) -> Iterator[list[str]]:
        """Ids that no file gives any more. Raises _InDoubt."""
        for ids in chunks(chain(self._known.all_ids(), self._known.failing()) if self._search else ()):
            seen = self.seen.get(ids)
            rest = [id_ for id_ in dict.fromkeys(ids) if id_ not in seen]
            held = self._known.entries(rest)
            if missing := [id_ for id_ in rest if id_ not in held or not self._stands(held[id_])]:
                if self.shared and not self.whole:
                    raise _InDoubt
                yield missing

    def outdated(self) -> Iterator[dict[str, None]]:
        """Notes of files that are gone."""
        for notes in chunks(self._known.all_notes() if self._gone else ()):
            yield dict.fromkeys(name for name, _ in notes if name not in _FLAGS and not os.path.lexists(f"{self.look.top}/{name}"))

    def _stands(self, entry: Entry) -> bool:
        """Whether a file that was not opened gave this task."""
        version = next(iter(entry.revision.counters), -1)  # none: another kind of Source wrote it
        at = bisect_left(self._unopened, version)
        return at < len(self._unopened) and self._unopened[at] == version


def _version(stamp: bytes) -> int:
    """The 48 bits of a stamp that a Revision can hold."""
    return int.from_bytes(stamp[:6])


def _stream(opened: int, size: int) -> BinaryIO:
    head = os.read(opened, _SMALL)
    if len(head) == size:
        return BytesIO(head)
    os.lseek(opened, 0, os.SEEK_SET)
    return os.fdopen(opened, "rb", closefd=False)


def _task(look: Look, file: File, piece: Piece) -> _Found | None:
    try:
        body = cast("dict[str, object]", parse(piece.data, unique=True))
        id_, written = _id_of(body, file, piece), dumps(body)  # here, while it is at hand: a page of bodies is fetched from memory again
    except TaskError as error:
        look.fail(file.name, f"{piece.where}{error}", _told_id(file, piece, str(error)))
        return None
    activity = last_activity(body)
    revision = Revision(created_at(body), file.modified // 1000 if activity is None else activity, (_version(file.stamp),))
    mark = file.stamp[:6] + hash(piece.data).to_bytes(8, signed=True)  # compared within this process only
    return _Found(Task(id_, revision, written, counts(body)), len(piece.data), file.name, mark)


def _told_id(file: File, piece: Piece, error: str) -> str | None:
    """The id of a task that can't be represented, when it can be told all the same."""
    if error.startswith(("$.id:", "$.data_row.id:", "$.data_row:")):
        return None
    try:
        id_ = _id_of(json.loads(bytes(piece.data).decode("utf-8", "replace")), file, piece)
    except (TaskError, ValueError, RecursionError):
        return None
    return id_ if is_text(id_) else None


def _id_of(body: object, file: File, piece: Piece) -> str:
    if not isinstance(body, dict):
        raise TaskError("not a task: a JSON object is expected")
    if found := task_id(body):
        return found
    if not piece.alone:
        raise TaskError("no id: neither `id` nor `data_row.id` is there")
    if not is_text(file.name):
        raise TaskError("no id, and the file's name is not UTF-8, so it can't be the id: rename it")
    return file.name.rpartition(".")[0]


def _pages(items: Iterable[_Found | _Note]) -> Iterator[list[_Found | _Note]]:
    """As much as one Batch holds."""
    page, size = list[_Found | _Note](), 0
    for item in items:
        page.append(item)
        size += item.size
        if len(page) >= _ITEMS or size >= _PAGE:
            yield page
            page, size = [], 0
    yield page
