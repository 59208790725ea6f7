"""`--to-label-studio`: tasks into new projects of a server, each once, however often the restore is killed; then all of them are read back.

Rules:
- What is restored is fixed first, in files of the work folder; from then on neither the Target nor its changes matter.
- Before a chunk is sent, the journal says so. When nobody knows whether the server took it (a kill, a timeout, a 500), the project is asked, and what
  the server did take late is found when all is read back: it is a task that the journal doesn't know and that equals one in doubt.
- A project is called `restoring ...` until it is done; by this name one is found whose creation nobody answered.
- What an import does not take is in LOST and said to people; any other difference is a failure with the task's name.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from syncd import encode, keys
from syncd.clock import Clock
from syncd.errors import AccessError, SourceError, SyncdError, TransientError
from syncd.model import Counts
from syncd.run.job import OnProgress
from syncd.scratch import Scratch
from syncd.sources import rows
from syncd.upkeep.asof import Found
from syncd.upkeep.restore import Restored

if TYPE_CHECKING:
    from syncd.sources.label_studio_import import Importer

LOST = {
    "tasks": "id inner_id project is_labeled overlap created_at updated_at updated_by file_upload storage_filename comment_count unresolved_comment_count "
    "comment_authors last_comment_updated_at total_annotations cancelled_annotations total_predictions annotations_ids",
    "annotations": "id task project unique_id created_at updated_at draft_created_at updated_by import_id last_action last_created_by "
    "parent_prediction parent_annotation bulk_created result_count prediction",
    "predictions": "id task project created_at updated_at model model_run cluster neighbors mislabeling",
    "drafts": "id task user created_at updated_at import_id",
}
"""Fields that an import does not take: the server makes them anew. Drafts become the token's user's."""
IDS = "ids.ndjson"
"""The id map in the work folder: a line for each restored task, `{"project", "task", "new_project", "new_task"}`."""
_LOST = {kind: frozenset(names.split()) for kind, names in LOST.items()}
_MOST_TASKS = 500  # larger imports may lose annotations (1.23.2 on SQLite)
_MOST_BYTES = 8_000_000
_TRIES = 3
_SETTLE = (0.5, 1.0, 2.0, 4.0)  # seconds between looks for what a server may still be committing
_TITLE = 50  # characters, as the server limits it

Body = Mapping[str, Any]


def stage(files: Iterable[Found], work: Path, same: Mapping[str, object]) -> None:
    """Fix what is to be restored in the work folder, unless that was done. Raises SyncdError for one of another restore, or for foreign files."""
    plan = work / "plan.json"
    if plan.exists():
        if _load(plan).get("same") != same:
            raise SyncdError(f"{work} holds another restore: remove it when that is over, or give another folder with --work")
        return
    _write(work / ".restore", b"")  # fails early where nothing can be written
    projects = []
    for number, (project, group) in enumerate(groupby(files, lambda found: found.project)):
        done, settings, drafts = Restored(project), {}, 0
        with (work / f"{number}.tasks.ndjson").open("wb") as out:
            for found in group:
                if not done.take(found) or keys.is_side(found.task or ""):
                    continue
                if found.task is None:
                    settings = found.body
                elif not isinstance(found.body.get("data"), dict):
                    done.fail(found.task, "no task of Label Studio: it has no data")
                else:
                    out.write(encode.dumps(found.body))  # one line, whoever wrote it
                    drafts += len(found.body.get("drafts") or ())  # type: ignore[arg-type]  # a list
            out.flush()
            os.fsync(out.fileno())
        projects.append({"done": asdict(done), "settings": settings, "drafts": drafts})
    _write(plan, encode.dumps({"same": dict(same), "projects": projects}))


def to_label_studio(
    server: Importer, clock: Clock, work: Path, people: Mapping[str, str], on_progress: OnProgress | None = None
) -> Iterator[Restored]:
    """Restore what is staged, project by project. people: e-mails as they were to e-mails there. Raises SourceError, AccessError."""
    me, members = server.whoami(), server.people()
    if unknown := sorted(set(people.values()) - members):
        raise SyncdError(f"--map: no member of {server.url}: {', '.join(unknown)}")
    with (work / IDS).open("wb") as ids:
        for number, staged in enumerate(_load(work / "plan.json")["projects"]):
            done = Restored(**{**staged["done"], "failed": [(task, why) for task, why in staged["done"]["failed"]]})
            if done.project:
                crowd = _Crowd(me, members, people, done)
                with closing(_Project(server, clock, work / str(number), staged, done, crowd)) as project:
                    project.restore(on_progress or (lambda _: None))
                    ids.writelines(map(encode.dumps, project.ids()))
            yield done


class _Crowd:
    """Who annotations are by, there."""

    def __init__(self, me: str, members: frozenset[str], people: Mapping[str, str], done: Restored) -> None:
        self._me, self._members, self._people, self._done = me, members, people, done

    def there(self, person: object) -> str:
        """The e-mail of whom that becomes; the token's user for who is unknown."""
        wanted = self._people.get(_email(person), _email(person))
        return wanted if wanted in self._members else self._me

    def note(self, person: object) -> None:
        """Count an annotation that changes hands."""
        if person is not None and (now := self.there(person)) != _email(person):
            why = f"annotations of {_email(person)} are by {now} now"
            self._done.remarks[why] = self._done.remarks.get(why, 0) + 1


def _email(person: object) -> str:
    return str(person.get("email")) if isinstance(person, dict) else f"user {person}"


class _Journal:
    """What was begun and what came of it, line by line, durably."""

    def __init__(self, path: Path) -> None:
        self.entries: list[dict[str, Any]] = []
        with suppress(FileNotFoundError):
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]  # a kill may have torn the last line
            self.entries = [json.loads(line) for line in whole.splitlines()]
            os.truncate(path, len(whole))
        self._file = path.open("ab")

    def note(self, **entry: object) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries.append(entry)

    def last(self, name: str) -> Any:
        return next((entry[name] for entry in reversed(self.entries) if name in entry), None)

    def close(self) -> None:
        self._file.close()


class _Project:
    """One project on its way. Lines are numbered as they stand in its staged file."""

    def __init__(self, server: Importer, clock: Clock, base: Path, staged: Body, done: Restored, crowd: _Crowd) -> None:
        self._server, self._clock, self._done, self._crowd = server, clock, done, crowd
        self._staged, self._settings = staged, cast("dict[str, object]", staged["settings"])
        self._tasks = base.with_suffix(".tasks.ndjson")
        self._journal = _Journal(base.with_suffix(".journal.ndjson"))
        self._ids = Scratch()  # new id: its line
        self._last = 0  # the greatest new id
        self._id = ""

    def restore(self, on_progress: OnProgress) -> None:
        """All of it, or what is left of it."""
        self._make()
        for entry in self._journal.entries:
            self._remember(entry)
        total = self._done.tasks
        for first, lines in self._chunks(self._journal_end()):
            self._send(first, lines)
            on_progress(self._done.progress(first + len(lines), total))
        for entry in self._journal.entries:
            if "refused" in entry:
                self._done.fail(entry["task"], entry["why"])
        if self._staged["drafts"] or self._doubts():
            self._mend()
        self._finish()
        self._compare(lambda count: on_progress(self._done.progress(count, total)))

    def close(self) -> None:
        self._journal.close()
        self._ids.close()

    def _make(self) -> None:
        """Find the new project, or create it."""
        if found := self._journal.last("project"):
            self._id = found
        elif mark := self._journal.last("mark"):
            self._id = self._settled(lambda: next(iter(self._server.titled(mark)), "")) or ""
        else:
            mark = f"restoring {secrets.token_hex(4)}: {self._done.title}"[:_TITLE].strip()
            self._journal.note(mark=mark)
        if not self._id:
            with suppress(TransientError):
                self._server.create(mark, self._settings)
            self._id = self._settled(lambda: next(iter(self._server.titled(mark)), "")) or ""
            if not self._id:
                raise SourceError(f"{self._server.url} made no project: run this again")
        if self._server.project(self._id) is None:
            raise SyncdError(
                f"{self._server.url}: project {self._id}, which this restore had made, is gone: to begin anew remove {self._tasks.parent}"
            )
        if not found:
            self._journal.note(project=self._id)
        self._done.new_project = self._id

    def _settled(self, look: Callable[[], Any]) -> Any:
        """What is found, though the server may still be busy with it; None in the end."""
        for pause in (*_SETTLE, 0.0):
            if found := look():
                return found
            self._clock.wait(pause)
        return None

    def _remember(self, entry: Body) -> None:
        if "took" in entry:
            self._ids.put((str(id_), str(entry["first"] + at).encode()) for at, id_ in enumerate(entry["took"]))
            self._last = max(self._last, *entry["took"])

    def _journal_end(self) -> int:
        """The first line whose fate isn't known; a chunk in doubt is settled first."""
        end = max([entry["first"] + len(entry["took"]) for entry in self._journal.entries if "took" in entry], default=0)
        end = max([end, *(entry["refused"] + 1 for entry in self._journal.entries if "refused" in entry)])
        last = self._journal.entries[-1]
        if "begin" in last:
            lines = list(islice(self._lines(last["begin"]), last["count"]))
            if ids := self._look(list(map(_body, lines)), last["after"]):
                self._took(last["begin"], ids, looked=True)
                end = last["begin"] + len(ids)
        return int(end)

    def _lines(self, first: int) -> Iterator[bytes]:
        with self._tasks.open("rb") as file:
            yield from islice(file, first, None)

    def _chunks(self, first: int) -> Iterator[tuple[int, list[bytes]]]:
        chunk: list[bytes] = []
        for line in self._lines(first):
            if chunk and (len(chunk) == _MOST_TASKS or sum(map(len, chunk)) + len(line) > _MOST_BYTES):
                yield first, chunk
                first, chunk = first + len(chunk), []
            chunk.append(line)
        if chunk:
            yield first, chunk

    def _send(self, first: int, lines: Sequence[bytes]) -> None:
        """Import these lines, in halves when the server can't take them together; name the one that it doesn't take at all."""
        bodies, why = list(map(_body, lines)), ""
        wanted = Counts(len(bodies), *(sum(len(body.get(kind) or ()) for body in bodies) for kind in ("annotations", "predictions")))
        for _ in range(_TRIES):
            after, looked = self._last, False
            self._journal.note(begin=first, count=len(bodies), after=after)
            try:
                ids, took = self._server.send(self._id, [self._shape(body) for body in bodies])
            except TransientError as error:
                why, looked = str(error), True
                ids, took = self._look(bodies, after), wanted
            except AccessError:
                raise
            except SourceError as error:
                why = str(error)
                break
            if ids and took == wanted:
                self._took(first, ids, looked=looked)
                return
            if ids:
                why = f"the server took {took} of {wanted}"
                self._server.remove_tasks(ids)
        if len(lines) > 1:
            half = len(lines) // 2
            self._send(first, lines[:half])
            self._send(first + half, lines[half:])
        elif self._server.project(self._id) is None:
            raise SyncdError(f"project {self._id} vanished while it was being restored")
        else:
            self._journal.note(refused=first, task=rows.task_id(bodies[0]) or "", why=why)

    def _took(self, first: int, ids: Sequence[int], *, looked: bool) -> None:
        self._journal.note(took=list(ids), first=first, looked=looked)
        self._remember(self._journal.entries[-1])

    def _look(self, bodies: Sequence[Body], after: int) -> list[int]:
        """The new ids of a chunk that the server may have taken; empty when it has not, or not whole: then it is removed."""
        found: list[dict[str, Any]] = self._settled(lambda: self._unknown(after)) or []
        mine: list[dict[str, Any]] = []
        for task in sorted(found, key=lambda task: (task.get("inner_id") or 0, task["id"])):
            if len(mine) < len(bodies) and _same(task["data"], bodies[len(mine)]["data"]):
                mine.append(task)
        ids = [int(task["id"]) for task in mine]
        if len(mine) == len(bodies) and all(map(self._alike, bodies, mine)):
            return ids
        self._server.remove_tasks(ids)
        return []

    def _unknown(self, after: int) -> list[dict[str, Any]]:
        """Tasks of the project that the journal doesn't know."""
        found = []
        for page in self._server.bodies(self._id, after):
            known = self._ids.get([str(task["id"]) for task in page])
            found += [task for task in page if str(task["id"]) not in known]
        return found

    def _alike(self, body: Body, task: Body) -> bool:
        """Whether nothing but drafts, which are made later, is missing."""
        return not any(_differences({**body, "drafts": []}, {**task, "drafts": []}, self._crowd))

    def _shape(self, body: Body) -> dict[str, object]:
        """The task as the import takes it; it keeps an annotation's `id` as its `import_id`."""
        shape = {name: body[name] for name in ("data", "meta", "allow_skip") if body.get(name) is not None}
        names = ("id", "result", "was_cancelled", "ground_truth", "lead_time")
        annotations = [
            {name: part.get(name) for name in names} | {"completed_by": {"email": self._crowd.there(part.get("completed_by"))}}
            for part in body.get("annotations") or ()
        ]
        predictions = [{name: part[name] for name in ("result", "score", "model_version") if name in part} for part in body.get("predictions") or ()]
        return shape | {"annotations": annotations, "predictions": predictions}

    def _doubts(self) -> set[bytes]:
        """Digests of the data of all that was ever sent without a certain answer."""
        entries, digests = self._journal.entries, set[bytes]()
        for entry, following in zip(entries, [*entries[1:], {}], strict=True):
            if "begin" in entry and ("took" not in following or following["looked"]):
                lines = islice(self._lines(entry["begin"]), entry["count"])
                digests.update(encode.digest(encode.dumps(_body(line)["data"])) for line in lines)
        return digests

    def _mend(self) -> None:
        """Remove what a server made twice, since an answer got lost; make the drafts that are missing."""
        doubts = self._doubts()
        for page in self._server.bodies(self._id):
            for task, line in self._paired(page):
                if line is not None:
                    self._drafts(_body(line), task)
                elif encode.digest(encode.dumps(task["data"])) in doubts:
                    self._server.remove_tasks([task["id"]])

    def _paired(self, page: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes | None]]:
        """Tasks of the new project with their staged lines; None for one that the journal doesn't know."""
        known = self._ids.get([str(task["id"]) for task in page])
        numbers = {id_: int(line) for id_, line in known.items()}
        wanted, low = set(numbers.values()), min(numbers.values(), default=0)
        lines = {low + at: line for at, line in enumerate(islice(self._lines(low), max(wanted, default=-1) - low + 1)) if low + at in wanted}
        for task in page:
            number = numbers.get(str(task["id"]))
            yield task, None if number is None else lines[number]

    def _drafts(self, body: Body, task: Body) -> None:
        there: set[object] = set()
        for draft in task["drafts"]:
            if draft.get("import_id") in there:
                self._server.remove_draft(draft["id"])
            there.add(draft.get("import_id"))
        annotations = {part.get("import_id"): part["id"] for part in task["annotations"]}
        for draft in body.get("drafts") or ():
            if draft.get("id") not in there:
                fields = {name: draft[name] for name in ("result", "lead_time", "was_postponed") if name in draft} | {"import_id": draft.get("id")}
                with suppress(TransientError):  # whether it was made is seen when all is compared
                    self._server.draft(task["id"], annotations.get(draft.get("annotation")), fields)

    def _finish(self) -> None:
        """Give the project its name and what else an empty one could not have."""
        if self._journal.last("named"):
            return
        title = self._done.title if len(self._done.title) > 2 else f"{self._done.title} restored"  # noqa: PLR2004 - the server's own limit
        fields = {"title": title[:_TITLE], "model_version": self._settings.get("model_version") or ""}
        try:
            self._server.change(self._id, fields)
        except AccessError:
            raise
        except SourceError:  # a model's version that no prediction has
            self._server.change(self._id, {"title": fields["title"]})
        for twin in self._server.titled(str(self._journal.last("mark"))):
            if twin != self._id and not any(self._server.bodies(twin)):
                self._server.remove(twin)
        self._journal.note(named=True)

    def _compare(self, tell: Callable[[int], None]) -> None:
        """Read everything back; whatever differs is a failure."""
        count, foreign = 0, 0
        settings = self._server.project(self._id) or {}
        for name in (*self._server.settable, "title"):
            if self._settings.get(name) is not None and not _same(settings.get(name), self._settings[name]):
                self._done.fail(None, f"the new project has another {name}")
        for page in self._server.bodies(self._id):
            for task, line in self._paired(page):
                if line is None:
                    foreign += 1
                    continue
                body, count = _body(line), count + 1
                for part in body.get("annotations") or ():
                    self._crowd.note(part.get("completed_by"))
                if found := next(_differences(body, task, self._crowd), ""):
                    self._done.fail(rows.task_id(body), f"restored as task {task['id']}, but {found} differs")
            self._ids.take([str(task["id"]) for task in page])
            tell(count)
        for id_, line in self._ids.items():
            self._done.fail(rows.task_id(_body(next(self._lines(int(line))))), f"task {id_}, as which it was restored, is gone")
        if foreign:
            self._done.remarks["tasks of the new project are not of this restore"] = foreign

    def ids(self) -> Iterator[dict[str, object]]:
        """The id map."""
        for entry in self._journal.entries:
            for new, line in zip(entry.get("took", ()), self._lines(entry.get("first", 0)), strict=False):
                yield {"project": self._done.project, "task": rows.task_id(_body(line)), "new_project": self._id, "new_task": str(new)}


def _differences(body: Body, task: Body, crowd: _Crowd) -> Iterator[str]:
    """What of a backed-up task is otherwise in a restored one, beyond LOST; parts in any order."""
    for name in body.keys() - _LOST["tasks"]:
        if name not in _LOST:
            if not _same(body[name], task.get(name)) and (name != "meta" or body[name] or task.get(name)):  # no meta is an empty one
                yield name
            continue
        old, new = ([dict(part) for part in side.get(name) or ()] for side in (body, task))
        kept = {field for part in old for field in part} - _LOST[name]
        for part in old:
            if "completed_by" in part:
                part["completed_by"] = crowd.there(part["completed_by"])
        for part in new:
            if "completed_by" in part:
                part["completed_by"] = _email(part["completed_by"])
        if name == "drafts":
            back = {part["id"]: part.get("import_id") for part in task.get("annotations") or ()}
            new = [part | {"annotation": back.get(part.get("annotation"))} for part in new]
        sides = [sorted(encode.dumps({field: part.get(field) for field in kept}) for part in side) for side in (old, new)]
        if sides[0] != sides[1]:
            yield name if len(old) == len(new) else f"{name} ({len(new)} of {len(old)})"


def _same(one: object, other: object) -> bool:
    return one == other or encode.dumps(one) == encode.dumps(other)


def _body(line: bytes) -> dict[str, Any]:
    return cast("dict[str, Any]", encode.parse(line))


def _load(path: Path) -> dict[str, Any]:
    return _body(path.read_bytes())


def _write(path: Path, data: bytes) -> None:
    """Whole, durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    with half.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
