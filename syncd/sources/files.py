"""A folder of exports as Source: each first-level sub-folder a Collection, the files of the root the Collection `default`.

Reads *.json, *.ndjson and *.jsonl at any depth of their Collection, whatever they hold: an array of tasks, one task, or one task per line; memory is
bounded by the largest task, whatever the file's size. Refuses to write, and to follow a folder into itself; hidden files are ignored.

Rules:
- An incremental reading opens changed files only: a note per file holds its stamp (size, times, inode) and, if it held exactly one task, its id.
- An id given by two files is the newest one's (time of modification, then name). Whatever notes can't decide is decided by a whole reading: a changed
  or removed file of several tasks, an id that another file gave before. So the order in which files came never matters.
- Nothing is absent (I4) unless every file of the Collection was read to its end and none failed; `confirm` lists all of them again and wants the very
  same stamps. A file of lines written a moment ago may still be growing: it proves nothing either.
- A missing id stays noted until its Entry is gone: the Guard may stop its deletion for many Runs.
- The Cursor is the time of the newest file; stamps decide, not the Cursor. `requests` counts files opened and folders listed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, cast

from syncd.clock import Clock
from syncd.encode import parse
from syncd.errors import TaskError
from syncd.fields import Fields
from syncd.known import Known
from syncd.model import Collection, Gone, Revision, Task
from syncd.scratch import Scratch
from syncd.sources.base import Batch, Selection, selected
from syncd.sources.folder import File, Folder, Look, is_text, stamp_of
from syncd.sources.rows import counts, created_at, last_activity, task_id
from syncd.sources.split import Piece, pieces

T = TypeVar("T")

_CHUNK = 500  # tasks or notes handled at a time
_PAGE = 2 << 20  # bytes of tasks in one Batch
_UNSETTLED = bytes(8)  # a stamp that no file has
_SHARED = "/shared"  # note: some id is given by two files (names of files never begin with a slash)
_OWED = "/owed"  # note: a reading could not prove what is absent; the first that might is a whole one
_FLAGS = (_SHARED, _OWED)
_GONE = "/gone/"  # note: this id was missing, and which files proved it


class Config(Fields):
    """A folder of exports, from Label Studio, Labelbox or your own tools."""

    type: Literal["files"]
    path: Path
    """The folder. Each sub-folder is a Collection; files beside them make the Collection `default`."""


def open(config: Config, select: Selection, clock: Clock) -> Source:  # noqa: A001 - every edge is opened by this name
    """The Source of that folder."""
    return Source(config.path, select, clock)


class _Found(NamedTuple):
    task: Task
    size: int
    digest: bytes


@dataclass(slots=True)
class _Page:
    """A Batch in the making."""

    tasks: list[Task]
    notes: dict[str, bytes | None]
    size: int = 0

    def add(self, found: Sequence[_Found]) -> None:
        self.tasks += (one.task for one in found)
        self.size += sum(one.size for one in found)


class _ReadAll(Exception):  # noqa: N818 - a turn, not an error
    """Notes can't tell what changed here: everything must be read."""


class _Proof(NamedTuple):
    """files: `Look.proof` of what was read; lacks: those of some ids that are not there."""

    files: bytes
    lacks: Callable[[Sequence[str]], list[str]]


_Admit = Callable[[File, Sequence[_Found]], Sequence[_Found]]


class Source:
    """One folder."""

    def __init__(self, root: Path, select: Selection, clock: Clock) -> None:
        self._folder = Folder(root, clock)
        self._select = select
        self._proofs: dict[str, _Proof] = {}  # by Collection

    @property
    def requests(self) -> int:
        """Files opened and folders listed."""
        return self._folder.requests

    def collections(self) -> list[Collection]:
        """Sub-folders by name, and `default` when the root holds files. Raises SourceError."""
        wanted = self._select.get("projects")
        return [Collection(name, name) for name in sorted(self._folder.names()) if selected(wanted, name, name)]

    def changes(
        self, collection: Collection, since: int | None, known: Known, *, position: str | None = None, drafts: bool = True
    ) -> Iterator[Batch]:
        """See `base.Source`; never resumes at a position: digests keep what is right from being written again."""
        del position, drafts
        self._folder.names()  # raises when there is no folder: then nothing below it is absent
        given = Scratch()
        if since is not None:
            try:
                yield from self._changed(collection, known, given)
                return
            except _ReadAll:
                pass
        yield from self._whole(collection, known, given)

    def confirm(self, collection: Collection, tasks: Sequence[str]) -> dict[str, Gone]:
        """Those that the last reading did not find, if the files are still the very same ones; else everything is read once more."""
        self._folder.names()
        if not tasks:
            return {}
        held = self._proofs.get(collection.id)
        if held is None or held.files != self._files_now(collection):
            held = self._scan(collection)
        return dict.fromkeys(held.lacks(tasks), Gone.DELETED) if held is not None else {}

    def confirm_collection(self, collection: Collection) -> bool:
        """Whether its folder (of `default`: every file of the root) is gone while the root can be read."""
        return self._folder.gone(collection)

    def settings(self, collection: Collection) -> Mapping[str, object]:
        """The title alone: a folder has no settings."""
        self._folder.names()
        return {"title": collection.title}

    def close(self) -> None:
        """Nothing is held open."""

    def _files_now(self, collection: Collection) -> bytes | None:
        look = Look(collection)
        deque(self._folder.walk(look), 0)
        return None if look.doubt else look.proof

    def _scan(self, collection: Collection) -> _Proof | None:
        """Which ids there are, and nothing else."""
        look = Look(collection)
        seen = _Seen(look, Scratch())
        for file in chain.from_iterable(self._folder.walk(look)):
            for group in self._read(look, file):
                seen.admit(file, group)
        return None if look.doubt else self._proved(look, seen.lacks)

    def _proved(self, look: Look, lacks: Callable[[Sequence[str]], list[str]]) -> _Proof:
        self._proofs[look.collection.id] = proof = _Proof(look.proof, lacks)
        return proof

    def _read(self, look: Look, file: File) -> Iterator[list[_Found]]:
        """The file's tasks in groups, at least one (maybe empty) when it was read to its end."""
        self._folder.requests += 1
        group: list[_Found] = []
        size = 0
        try:
            # never waits, should the file have become a pipe
            with os.fdopen(os.open(self._folder.path(look.collection) / file.name, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
                for piece in pieces(stream, lines_only=not file.name.lower().endswith(".json")):
                    look.doubt |= piece.line and file.fresh
                    if (found := self._task(look, file, piece)) is not None:
                        group.append(found)
                        size += found.size
                    if len(group) >= _CHUNK or size >= _PAGE:
                        yield group
                        group, size = [], 0
                unchanged = stamp_of(os.fstat(stream.fileno())) == file.stamp
        except OSError as error:
            look.fail(file.name, f"can't be read: {error.strerror}")
        except TaskError as error:
            look.fail(file.name, str(error))
        else:
            if unchanged:
                yield group
            else:
                look.fail(file.name, "changed while it was being read; the next Run reads it again")
            return
        if group:
            yield group

    def _task(self, look: Look, file: File, piece: Piece) -> _Found | None:
        try:
            body = cast("dict[str, object]", parse(piece.data, unique=True))
            id_ = _id_of(body, file, piece)
        except TaskError as error:
            look.fail(file.name, f"{piece.where}{error}")
            return None
        activity = last_activity(body)
        revision = Revision(created_at(body), file.modified // 1000 if activity is None else activity, (file.origin,))
        return _Found(Task(id_, revision, body, counts(body)), len(piece.data), blake2b(piece.data, digest_size=8).digest())

    def _batches(self, look: Look, files: Iterable[File], admit: _Admit) -> Iterator[Batch]:
        """What these files give; a file's note comes with its last task. What was admitted is yielded even when _ReadAll follows."""
        page = _Page([], {})
        try:
            for file in files:
                single, number, before = b"", 0, len(look.failed)
                for group in self._read(look, file):
                    page.add(admit(file, group))
                    number += len(group)
                    single = _text(group[0].task.id) if group else single
                    if len(page.tasks) >= _CHUNK or page.size >= _PAGE:
                        look.split = True
                        yield Batch(tasks=page.tasks, notes={**page.notes, _OWED: b""})  # should its end, and its note, never come
                        page = _Page([], {})
                if len(look.failed) > before:
                    page.notes[_OWED] = b""
                else:
                    page.notes[file.name] = (_UNSETTLED if file.fresh else file.stamp) + (single if number == 1 else b"")
        except _ReadAll:
            yield Batch(tasks=page.tasks, notes=page.notes)
            raise
        yield Batch(tasks=page.tasks, notes=page.notes)

    def _changed(self, collection: Collection, known: Known, given: Scratch) -> Iterator[Batch]:
        """An incremental reading by notes; what it yields is put into `given`. Raises _ReadAll when notes can't tell."""
        look, missing = Look(collection), Scratch()
        news = _News(known, given)
        yield from self._batches(look, news.files(self._folder.walk(look)), news.admit)
        # a task of a file that was read in parts may have failed after the file's note was recorded; what an earlier reading could not prove is owed
        if news.failing or (_OWED in news.flags and not look.doubt):
            raise _ReadAll
        yield Batch(failed=look.failed)
        if news.met != news.expected and not look.doubt:
            for notes in _chunks(known.all_notes()):
                lost, over = self._lost(look, known, dict(notes), shared=_SHARED in news.flags)
                missing.put((ascii(id_), b"") for id_ in lost)
                yield _missed(look, lost, over)
            self._proved(look, lambda ids: _held(missing, ids))
        owed: dict[str, bytes | None] = {_OWED: b""} if look.doubt else {_OWED: None} if look.split else {}
        yield Batch(notes=owed, cursor=look.newest)

    def _lost(self, look: Look, known: Known, notes: dict[str, bytes], *, shared: bool) -> tuple[list[str], dict[str, bytes | None]]:
        """Ids whose file is gone, or that an earlier reading missed; and the notes to forget."""
        folder, proof = self._folder.path(look.collection), look.proof
        missed = {name: name.removeprefix(_GONE) for name in notes if name.startswith(_GONE)}
        removed = {name: _id(note[8:]) for name, note in notes.items() if name[0] != "/" and not os.path.lexists(folder / name)}
        live = {id_ for id_, entry in known.entries([*missed.values(), *removed.values()]).items() if not entry.kept}
        if any(shared or len(notes[name]) == len(_UNSETTLED) for name in removed):
            raise _ReadAll  # another file may have the task, or more than one is lost
        if any(id_ in live and notes[name] != proof for name, id_ in missed.items()):
            raise _ReadAll  # files came or went since: the id may be back
        return sorted(live), dict.fromkeys([*removed, *(name for name, id_ in missed.items() if id_ not in live)])

    def _whole(self, collection: Collection, known: Known, given: Scratch) -> Iterator[Batch]:
        """Every file, newest first, so that the first to give an id is the one that counts."""
        look, order, later = Look(collection), Scratch(), Scratch()
        for chunk in self._folder.walk(look):
            order.put((file.newest_first(), file.pack()) for file in chunk)
        seen = _Seen(look, given)
        for batch in self._batches(look, (File.unpack(packed) for _, packed in order.items()), seen.admit):
            # recorded at the end alone: a reading that was killed must be repeated, or what it would have missed is never found
            later.put((os.fsencode(name).hex(), note) for name, note in batch.notes.items() if note)
            yield replace(batch, notes={_OWED: b""})
        yield Batch(failed=look.failed)
        if not look.doubt:
            for ids in _chunks(chain(known.all_ids(), known.failing())):
                yield _missed(look, seen.lacks(ids), {})
            self._proved(look, seen.lacks)
            for notes in _chunks(known.all_notes()):
                yield Batch(notes=dict.fromkeys(self._over(look, known, seen, [name for name, _ in notes])))
        for pairs in _chunks(later.items()):
            yield Batch(notes={os.fsdecode(bytes.fromhex(name)): note for name, note in pairs})
        yield Batch(notes={_SHARED: b"" if seen.shared else None, _OWED: b"" if look.doubt else None}, cursor=look.newest)

    def _over(self, look: Look, known: Known, seen: _Seen, names: Sequence[str]) -> list[str]:
        """Notes of files that are gone, and of missing ids that came back or whose Entry is gone."""
        folder = self._folder.path(look.collection)
        ids = {name.removeprefix(_GONE): name for name in names if name.startswith(_GONE)}
        lacking, held = seen.lacks(list(ids)), known.entries(list(ids))
        kept = {id_ for id_ in lacking if id_ in held and not held[id_].kept}
        over = [name for id_, name in ids.items() if id_ not in kept]
        return over + [name for name in names if name[0] != "/" and not os.path.lexists(folder / name)]


class _News:
    """Which files an incremental reading opens, and whether what they give can be told from notes and Entries."""

    def __init__(self, known: Known, given: Scratch) -> None:
        self._known = known
        self._given = given
        self.expected = known.note_count()  # before this reading records its own
        self.flags = known.notes(_FLAGS)
        self.met = len(self.flags)
        self.failing = set(known.failing())

    def files(self, chunks: Iterable[Sequence[File]]) -> Iterator[File]:
        for chunk in chunks:
            notes = self._known.notes([file.name for file in chunk])
            self.met += len(notes)
            for file in chunk:
                note = notes.get(file.name, b"")
                if note[:8] == file.stamp:
                    continue
                if note and (_SHARED in self.flags or len(note) == len(_UNSETTLED)):
                    raise _ReadAll
                yield file._replace(note=note)

    def admit(self, file: File, group: Sequence[_Found]) -> Sequence[_Found]:
        ids = [found.task.id for found in group]
        keys = [ascii(id_) for id_ in ids]
        held = [] if file.note else [entry for entry in self._known.entries(ids).values() if not entry.kept]
        if file.note and [_text(id_) for id_ in ids] != [file.note[8:]]:
            raise _ReadAll  # the one task it gave is lost, or it gives more now
        if any(len(ids) > 1 or entry.revision.counters != (file.origin,) for entry in held):
            raise _ReadAll  # another file gave it, or this one may have given more
        if len(set(ids)) < len(ids) or self._given.get(keys):
            raise _ReadAll
        self._given.put((key, _mark(file, found)) for key, found in zip(keys, group, strict=True))
        self.failing.difference_update(ids)
        return group


class _Seen:
    """The ids a whole reading met. shared: some of them in two files; given: what was yielded already, not to be yielded again."""

    def __init__(self, look: Look, given: Scratch) -> None:
        self._look = look
        self._given = given
        self._ids = Scratch()
        self.shared = False

    def admit(self, file: File, group: Sequence[_Found]) -> Sequence[_Found]:
        keys = [ascii(found.task.id) for found in group]
        held, given = self._ids.get(keys), self._given.get(keys)
        first: dict[str, _Found] = {}
        for key, found in zip(keys, group, strict=True):
            mark = _mark(file, found)
            before = held.setdefault(key, mark)
            if before is mark:
                first[key] = found
            elif before[:6] != mark[:6]:
                self.shared = True
            elif before != mark:
                self._look.fail(file.name, f"id {found.task.id} stands twice in this file, and not the same", task=found.task.id)
        self._ids.put((key, held[key]) for key in first)
        return [found for key, found in first.items() if given.get(key) != held[key]]

    def lacks(self, ids: Sequence[str]) -> list[str]:
        held = set(_held(self._ids, ids))
        return [id_ for id_ in ids if id_ not in held]


def _held(scratch: Scratch, ids: Sequence[str]) -> list[str]:
    found = scratch.get([ascii(id_) for id_ in ids])
    return [id_ for id_ in ids if ascii(id_) in found]


def _mark(file: File, found: _Found) -> bytes:
    """Which file gave a task, and which bytes."""
    return file.origin.to_bytes(6) + found.digest


def _missed(look: Look, missing: Sequence[str], over: Mapping[str, bytes | None]) -> Batch:
    return Batch(missing=missing, notes={**over, **{_GONE + id_: look.proof for id_ in missing}})


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


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


def _text(id_: str) -> bytes:
    return id_.encode("utf-8", "surrogatepass")


def _id(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
