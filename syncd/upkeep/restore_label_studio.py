"""`--to-label-studio`: staged tasks into new projects of a server, each once, however often the restore is killed; then all of them are read back.

Rules:
- Before a chunk is sent, the journal says so. When nobody knows whether the server took it (a kill, a timeout, a 500), the project is asked. What a
  server takes later still is found when all is compared: a task that the journal doesn't know and that equals one in doubt is removed.
- A project is called `restoring ...` until it is done; by this name one is found whose creation nobody answered.
- What no import takes is in `restore_compare.LOST`; any other difference is a failure with the task's name.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncd import encode
from syncd.clock import Clock
from syncd.errors import AccessError, SourceError, SyncdError, TransientError
from syncd.model import Counts
from syncd.run.job import OnProgress
from syncd.sources import rows
from syncd.upkeep.restore import Restored
from syncd.upkeep.restore_compare import PARTS, Body, Crowd, data_digest, differences, email, parts, same, shape
from syncd.upkeep.restore_work import Staged, staged

if TYPE_CHECKING:
    from syncd.sources.label_studio_import import Importer

IDS = "ids.ndjson"
"""The id map in the work folder: a line for each restored task, `{"project", "task", "new_project", "new_task"}`."""
_MOST_TASKS = 500  # larger imports may lose annotations (1.23.2 on SQLite)
_MOST_BYTES = 8_000_000
_TRIES = 2
_TROUBLE = 20  # failures in a row that are no single task's fault any more
_SETTLE = (0.5, 1.0, 2.0, 4.0)  # seconds between looks for what a server may still be committing
_TITLE = (3, 50)  # characters, as the server limits it


def to_label_studio(server: Importer, clock: Clock, work: Path, crowd: Crowd, on_progress: OnProgress | None) -> Iterator[Restored]:
    """Restore what is staged, project by project. Raises SourceError, AccessError; then a second try goes on."""
    with (work / IDS).open("wb") as ids:
        for project in staged(work):
            with closing(project):
                if project.done.project:
                    restoring = _Project(server, clock, project, crowd)
                    restoring.restore(on_progress or (lambda _: None))
                    ids.writelines(map(encode.dumps, restoring.ids()))
                yield project.done


class _Project:
    """One project on its way."""

    def __init__(self, server: Importer, clock: Clock, project: Staged, crowd: Crowd) -> None:
        self._server, self._clock, self._staged, self._crowd = server, clock, project, crowd
        self._done, self._journal = project.done, project.journal
        self._lines: dict[int, int] = {}  # new id: its line; the journal is held in memory, too
        self._last = 0  # the greatest new id
        self._refused: dict[int, str] = {}  # lines that the server has not taken, and why
        self._trouble = 0  # failures in a row
        self._id = ""

    def restore(self, on_progress: OnProgress) -> None:
        """All of it, or what is left of it."""
        self._make()
        for entry in self._journal.entries:
            self._remember(entry)
        first = self._settled_end()
        for number in [*self._refused]:
            self._send(number, number + 1)
        while first < len(self._staged):
            end = self._chunk_end(first)
            self._send(first, end)
            first = end
            on_progress(self._done.progress(first, len(self._staged)))
        for number, why in self._refused.items():
            self._done.fail(self._task(number), why)
        self._name()
        self._compare(lambda count: on_progress(self._done.progress(count, len(self._staged), "reading back")))
        self._remove_twins()

    def ids(self) -> Iterator[dict[str, object]]:
        """The id map."""
        for new, number in self._lines.items():
            yield {"project": self._done.project, "task": self._task(number), "new_project": self._id, "new_task": str(new)}

    def _task(self, number: int) -> str | None:
        return rows.task_id(self._staged.body(number))

    def _make(self) -> None:
        """Find the new project, or create it."""
        mark, found = self._journal.last("mark"), self._journal.last("project")
        if found is None:
            found = mark and self._settled(lambda: self._server.titled(mark))
            if mark is None:
                mark = f"restoring {secrets.token_hex(4)}"
                self._journal.note(mark=mark)
            if not found:
                with suppress(TransientError):
                    self._server.create(f"{mark}: {self._done.title}"[: _TITLE[1]].strip(), self._staged.settings)
                found = self._settled(lambda: self._server.titled(mark))
            if not found:
                raise SourceError(f"{self._server.url}: the new project is not there: run this again")
            found = found[0]
            self._journal.note(project=found)
        elif self._server.project(found) is None:
            raise SyncdError(f"{self._server.url}: project {found}, made by this restore, is gone: remove the work folder to begin anew")
        self._id = self._done.new_project = found

    def _settled(self, look: Callable[[], Any]) -> Any:
        """What is found, though the server may still be busy with it; nothing in the end."""
        for pause in _SETTLE:
            if found := look():
                return found
            self._clock.wait(pause)
        return look()

    def _remember(self, entry: Body) -> None:
        for number, new in enumerate(entry.get("took", ()), entry.get("first", 0)):
            self._lines[new] = number
            self._last = max(self._last, new)
            self._refused.pop(number, None)
        if "refused" in entry:
            self._refused[entry["refused"]] = entry["why"]

    def _note(self, **entry: object) -> None:
        self._journal.note(**entry)
        self._remember(entry)

    def _settled_end(self) -> int:
        """The first line that is not there yet; a chunk in doubt is looked for."""
        last = self._journal.entries[-1]
        if "begin" in last:
            self._look(last["begin"], last["end"], last["after"])
        return max((*self._lines.values(), *self._refused), default=-1) + 1

    def _chunk_end(self, first: int) -> int:
        end = first + 1
        while end < len(self._staged) and end - first < _MOST_TASKS and self._staged.size(first, end + 1) <= _MOST_BYTES:
            end += 1
        return end

    def _send(self, first: int, end: int) -> None:
        """Import these lines, in halves when the server can't take them together; the one that it doesn't take at all is refused."""
        for _ in range(_TRIES):
            why, final = self._try(first, end)
            if not why:
                self._trouble = 0
                return
            if final:
                break
            self._trouble += 1
            if self._trouble > _TROUBLE:
                raise SourceError(f"{why}; too often in a row: run this again when the server is well")
        if self._server.project(self._id) is None:
            raise SyncdError(f"{self._server.url}: project {self._id} vanished while it was being restored")
        if end - first > 1:
            half = (first + end) // 2
            self._send(first, half)
            self._send(half, end)
        else:
            self._note(refused=first, why=why)

    def _try(self, first: int, end: int) -> tuple[str, bool]:
        """Why it failed, empty when it didn't; and whether another try is of no use."""
        bodies, after = [self._staged.body(number) for number in range(first, end)], self._last
        self._journal.note(begin=first, end=end, after=after)
        try:
            ids, took = self._server.send(self._id, [shape(body, self._crowd) for body in bodies])
        except TransientError as error:
            return "" if self._look(first, end, after) else str(error), False
        except AccessError:
            raise
        except SourceError as error:
            return str(error), True
        if took != (wanted := Counts(len(bodies), *(sum(len(parts(body, kind)) for body in bodies) for kind in PARTS))):
            self._server.remove_tasks(ids)
            return f"the server took {took} instead of {wanted}", False
        self._note(took=ids, first=first)
        return "", False

    def _look(self, first: int, end: int, after: int) -> bool:
        """Whether the server took these lines after all. It takes all of them or none, but may have dropped their parts: then they are removed."""
        found: list[dict[str, Any]] = self._settled(lambda: self._unknown(after))
        bodies, mine = [self._staged.body(number) for number in range(first, end)], list[dict[str, Any]]()
        for task in sorted(found, key=lambda task: (task.get("inner_id") or 0, task["id"])):
            if len(mine) < len(bodies) and data_digest(task) == data_digest(bodies[len(mine)]):
                mine.append(task)
        ids = [int(task["id"]) for task in mine]
        if len(mine) == len(bodies) and all(map(_has_parts, mine, bodies)):
            self._note(took=ids, first=first)
            return True
        self._server.remove_tasks(ids)
        self._journal.note(doubt=[first, end])  # it may take them yet
        return False

    def _unknown(self, after: int) -> list[dict[str, Any]]:
        """Tasks of the project that the journal doesn't know."""
        return [task for page in self._server.bodies(self._id, after) for task in page if task["id"] not in self._lines]

    def _with_drafts(self, body: Body, task: Body) -> Body:
        """The new task, after those that are missing were made: no import takes drafts."""
        there: set[object] = set()
        for draft in task["drafts"]:
            if draft.get("import_id") in there - {None}:  # made twice; one without is by somebody who works there already
                self._server.remove_draft(draft["id"])
            there.add(draft.get("import_id"))
        annotations = {part.get("import_id"): part["id"] for part in task["annotations"]}
        for draft in parts(body, "drafts"):
            if draft.get("id") not in there:
                fields = {name: draft[name] for name in ("result", "lead_time", "was_postponed") if name in draft} | {"import_id": draft.get("id")}
                with suppress(TransientError):  # whether it was made is seen now
                    self._server.draft(task["id"], annotations.get(draft.get("annotation")), fields)
        return next(chain.from_iterable(self._server.bodies(self._id, among=[task["id"]])), task)

    def _name(self) -> None:
        """Give the project its title, and what one without tasks could not have."""
        if self._journal.last("named"):
            return
        title = self._done.title if len(self._done.title) >= _TITLE[0] else f"{self._done.title} restored".strip()
        version = self._staged.settings.get("model_version") or ""
        with suppress(SourceError):  # the version of a model that no prediction has
            self._server.change(self._id, {"model_version": version})
        self._server.change(self._id, {"title": title[: _TITLE[1]]})
        self._journal.note(named=True)

    def _remove_twins(self) -> None:
        """Empty projects that the server made for a request nobody waited for any more."""
        for twin in self._server.titled(str(self._journal.last("mark"))):
            if twin != self._id and not any(self._server.bodies(twin)):
                self._server.remove(twin)

    def _compare(self, tell: Callable[[int], None]) -> None:
        """Read everything back and make drafts; whatever differs is a failure."""
        settings, missing = self._server.project(self._id) or {}, dict(self._lines)
        doubts = {line for entry in self._journal.entries if "doubt" in entry for line in range(*entry["doubt"])}
        doubted = {data_digest(self._staged.body(number)) for number in doubts}
        for name in ("title", *self._server.settable):
            wanted = self._staged.settings.get(name)
            if wanted is not None and not same(settings.get(name), wanted):
                self._done.fail(None, f"the new project has another {name}")
        for page in self._server.bodies(self._id):
            for task in page:
                if (number := missing.pop(task["id"], None)) is not None:
                    self._compare_one(number, task)
                elif data_digest(task) in doubted:
                    self._server.remove_tasks([task["id"]])
                else:
                    self._done.remark("tasks of the new project are not of this restore")
            tell(len(self._lines) - len(missing))
        for new, number in missing.items():
            self._done.fail(self._task(number), f"task {new}, as which it was restored, is gone")

    def _compare_one(self, number: int, task: Body) -> None:
        body = self._staged.body(number)
        if parts(body, "drafts"):
            task = self._with_drafts(body, task)
        for part in parts(body, "annotations"):
            was, now = email(part.get("completed_by")), self._crowd.there(part.get("completed_by"))
            if was != now:
                self._done.remark(f"annotations of {was} are by {now} now")
        if b"/data/upload/" in self._staged.line(number):
            self._done.remark("tasks show files that were uploaded to the old server: copy its media folder, too")
        if found := ", ".join(differences(body, task, self._crowd)):
            self._done.fail(rows.task_id(body), f"restored as task {task['id']}, but not as it was: {found}")


def _has_parts(task: Body, body: Body) -> bool:
    return all(len(task[kind]) == len(parts(body, kind)) for kind in PARTS)
