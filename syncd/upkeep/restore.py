"""What every restore tells of itself, and `--to-folder`: the files at their keys, and beside them what labeling tools import.

Refuses a folder that holds anything but an unfinished restore of the same thing, and keys that syncd never makes: a folder is a Target, so each
file is whole or not there, and none is outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, islice
from typing import cast

from syncd import encode, keys
from syncd.errors import SyncdError, TaskError
from syncd.keys import Layout
from syncd.run.job import OnProgress, Progress
from syncd.scratch import Scratch
from syncd.targets.base import Target
from syncd.upkeep.asof import Found
from syncd.upkeep.restore_labelbox import data_row, labels

_MARKER = "_syncd/restore.json"
_FLUSH = 500  # files


@dataclass(slots=True)
class Restored:
    """What became of one project. remarks: what isn't as it was and can't be, in words, with how often."""

    project: str
    title: str = ""
    tasks: int = 0
    files: int = 0
    size: int = 0
    new_project: str = ""
    failed: list[tuple[str, str]] = field(default_factory=list)  # task (empty: the settings), why
    remarks: dict[str, int] = field(default_factory=dict)

    def take(self, found: Found) -> bool:
        """Count a file; whether there is anything of it to restore."""
        if found.task is None:
            self.title = str(found.body.get("title") or found.body.get("name") or "")
        if found.why:
            self.fail(found.task, found.why)
        if found.data is None:
            return False
        self.files += 1
        self.size += len(found.data)
        self.tasks += found.task is not None and not keys.is_side(found.task)
        return True

    def fail(self, task: str | None, why: str) -> None:
        """Name what isn't restored, or isn't as it was."""
        self.failed.append((keys.shown(task or ""), why))

    def remark(self, what: str, count: int = 1) -> None:
        """Count what can't be as it was."""
        self.remarks[what] = self.remarks.get(what, 0) + count

    def progress(self, done: int, total: int | None = None, what: str = "") -> Progress:
        """For a bar; each `what` gets one of its own."""
        title = self.title or self.project
        return Progress(f"{self.project}{what}", f"{what} {title}".strip(), total, done, done, len(self.failed), self.size)


def begun(folder: Target, same: dict[str, object]) -> int | None:
    """`same["at"]`, or the moment of an unfinished restore there that differs in this alone: a time back from now moves on with each try."""
    told: object = None
    with suppress(TaskError):  # somebody else's
        told = encode.parse(folder.get(_MARKER) or b"")
    if isinstance(told, dict) and told | {"at": 0} == same | {"at": 0}:
        return cast("int | None", told["at"])
    return cast("int | None", same["at"])


def to_folder(
    files: Iterable[Found], folder: Target, layout: Layout, same: Mapping[str, object], *, force: bool, on_progress: OnProgress | None
) -> list[Restored]:
    """Write them there. same: what makes it the same restore. Raises SyncdError for a folder with something else, TargetError; touches nothing when
    there is nothing to write.
    """
    marker, rest = encode.dumps(dict(same)), iter(files)
    if not force and folder.get(_MARKER) != marker and any(page for page in folder.list("")):
        raise SyncdError(f"{folder.place} is neither empty nor an unfinished restore of the same thing: give another folder, or --force")
    found = list(islice(rest, 1))
    folder.sweep()
    folder.put(_MARKER, marker)
    folder.flush()
    done: list[Restored] = []
    for project, group in groupby(chain(found, rest), lambda found: found.project):
        done.append(Restored(project))
        with closing(_Project(folder, layout, done[-1])) as writer:
            for file in group:
                writer.write(file)
                if on_progress and file.project:
                    on_progress(done[-1].progress(done[-1].files))
            writer.imports()
        folder.flush()
    folder.delete([_MARKER])
    return done


class _Project:
    """Writes the files of one project."""

    def __init__(self, folder: Target, layout: Layout, done: Restored) -> None:
        self._folder, self._layout, self._done = folder, layout, done
        self._tasks = Scratch()  # keys of the tasks, in their order
        self._bodies: Callable[[], Iterator[dict[str, object]]] = lambda: (
            Found("", None, key.decode(), folder.get(key.decode())).body for _, key in self._tasks.items()
        )

    def write(self, found: Found) -> None:
        """Put one file, unless it stands there already."""
        if not self._done.take(found) or found.data is None:
            return
        try:
            if self._folder.get(found.key) != found.data:
                self._folder.put(found.key, found.data)
        except TaskError as error:
            self._done.fail(found.task, str(error))
        else:
            if found.task is not None and not keys.is_side(found.task):
                self._tasks.put([(f"{self._done.files:012}", found.key.encode())])
        if self._done.files % _FLUSH == 0:
            self._folder.flush()

    def imports(self) -> None:
        """What labeling tools import, of all tasks that stand there now."""
        first = next(self._bodies(), {})
        if "data" in first:
            self._stream("tasks.json", _list)
        elif "data_row" in first:
            self._stream("labelbox-data-rows.ndjson", partial(self._lines, data_row))
            self._stream("labelbox-labels.ndjson", partial(self._lines, partial(labels, project=self._done.project, remark=self._done.remark)))

    def _stream(self, name: str, chunks: Callable[[Iterator[dict[str, object]]], Iterator[bytes]]) -> None:
        key = self._layout.folder(self._done.project) + name
        taken = any(held.decode() == key for _, held in self._tasks.items())
        self._folder.put_stream(f"{key.rpartition('/')[0]}/_{name}" if taken else key, lambda: chunks(self._bodies()))

    def _lines(self, make: Callable[[dict[str, object]], bytes], bodies: Iterator[dict[str, object]]) -> Iterator[bytes]:
        for body in bodies:
            try:
                yield make(body)
            except (AttributeError, TypeError, LookupError):  # of somebody else's making
                self._done.remark("rows are not as Labelbox exports them: no import takes them")

    def close(self) -> None:
        self._tasks.close()


def _list(bodies: Iterator[dict[str, object]]) -> Iterator[bytes]:
    """A JSON list, one task a line."""
    before = b"[\n"
    for body in bodies:
        if body.get("meta", {}) is None:  # Label Studio's import refuses it
            del body["meta"]
        yield before + encode.dumps(body)[:-1]
        before = b",\n"
    yield b"\n]\n"
