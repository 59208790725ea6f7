"""What stood in a Target: now, at some time, or in its trash; from the Target alone.

Refuses to take one version for another: what stood at a time is told by the change feed, and bytes are believed by their digest only. They are where
they were put, else in the history, else in the trash. What stood and can't be found is named. Memory stays flat.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from typing import NamedTuple

from syncd import encode, keys
from syncd.clock import Clock, format_time
from syncd.errors import SyncdError, TaskError
from syncd.keys import Layout
from syncd.scratch import Scratch
from syncd.sources import rows
from syncd.sources.base import selected
from syncd.targets.base import Target
from syncd.upkeep.changes import changes

_GONE, _UNTOLD = "-", "?"
_AHEAD = 4  # files read ahead for each thread


@dataclass(frozen=True, slots=True)
class Question:
    """What is wanted: projects by id or title pattern and tasks by id (empty: all), as they are, as they stood `at` a time, or from the trash."""

    projects: Sequence[str] = ()
    tasks: Sequence[str] = ()
    at: int | None = None
    trashed: bool = False


class Found(NamedTuple):
    """One file. task None: the Collection's settings; data None: it can't be restored, and `why`. With both: it is given as it stands now."""

    project: str
    task: str | None
    key: str
    data: bytes | None
    why: str = ""

    @property
    def body(self) -> dict[str, object]:
        """A file that holds JSON, as a value; it was found to be an object."""
        value = encode.parse(self.data or b"{}")
        return value if isinstance(value, dict) else {}


def find(target: Target, layout: Layout, clock: Clock, question: Question) -> Iterator[Found]:
    """Every wanted file, project by project: its settings first, then its tasks by id. Raises SyncdError when nothing is there, TargetError."""
    with closing(_listed(target, layout, clock, question)) as listed, ThreadPoolExecutor(target.concurrency, "syncd-restore") as pool:
        fetch = _Fetch(target, layout, question.at)
        known, hit = list[str](), False
        wanted = {part if "~~" in (part := keys.encode(task)) else task for task in question.tasks}
        missing = set(wanted)
        files = (_File.unpack(layout, value) for _, value in listed.items())
        for project, group in groupby(files, lambda file: file.project):
            rest = iter(group)
            first, second = next(rest), next(rest, None)
            if first.digest == _UNTOLD and first.task is None and second is None:  # settings of a project that came later
                continue
            settings = fetch(first) if first.task is None else None
            title = str(settings.body.get("title") or settings.body.get("name") or "") if settings else ""
            known.append(f"{project} ({title})" if title else project)
            if not selected(question.projects or None, project, title):
                continue
            hit = True
            if settings:
                yield settings
            tasks_of = chain(() if settings else (first,), (second,) if second else (), rest)
            mine = (file for file in tasks_of if not wanted or file.owner in wanted)
            while some := list(islice(mine, _AHEAD * target.concurrency)):
                missing.difference_update(file.owner for file in some)
                yield from pool.map(fetch, some)
        if not hit:
            raise SyncdError(_nothing(target, known, question))
        yield from (Found("", task, "", None, f"no such task stands {_moment(question)}") for task in sorted(missing))


def _nothing(target: Target, known: Sequence[str], question: Question) -> str:
    if not known:
        return f"{target.place}: no task {_moment(question)}" + ("" if question.trashed else "; is it the right place?")
    return f"{target.place}: no project {', '.join(question.projects)} {_moment(question)}; there are: {', '.join(known[:20])}"


def _moment(question: Question) -> str:
    return "in the trash" if question.trashed else "there" if question.at is None else f"there at {format_time(question.at)}"


class _File(NamedTuple):
    """key: where it belongs; digest: hex, as far as known, `?` when the feed says too little; places: keys its bytes may be at."""

    project: str
    task: str | None
    key: str
    digest: str
    places: Sequence[str]

    @property
    def owner(self) -> str:
        """The task that it is, or stands beside."""
        return (self.task or "").partition(keys.SIDE)[0]

    @staticmethod
    def pack(key: str, digest: str, places: Iterable[str] = ()) -> bytes:
        return "\n".join((key, digest, *places)).encode("utf-8", "surrogatepass")

    @classmethod
    def unpack(cls, layout: Layout, value: bytes) -> _File:
        key, digest, *places = value.decode("utf-8", "surrogatepass").split("\n")
        project, task = layout.named(key) or ("", "")
        return cls(project, task, key, digest, places)


def _rank(project: str, task: str | None) -> str:
    """Settings first, numbers by their value."""
    return f"{project}\0" if task is None else f"{project}\0{min(len(task), 9999):04}{task}"


def _listed(target: Target, layout: Layout, clock: Clock, question: Question) -> Scratch:
    found = Scratch()
    if question.trashed:
        _trashed(target, layout, found)
    elif question.at is not None:
        _then(target, layout, clock, question.at, found)
    else:
        for page in target.list(""):
            names = ((stat.key, layout.named(stat.key)) for stat in page)
            found.put((_rank(*ids), _File.pack(key, "", [key])) for key, ids in names if ids)
    return found


def _then(target: Target, layout: Layout, clock: Clock, at: int, found: Scratch) -> None:
    """Replay the change feeds up to that time. What only later lines tell of, and not as new, stood before as nobody knows what."""
    until, marks = format_time(at), Scratch()
    for line in changes(target, clock):
        key, op = str(line.get("key")), line.get("op")
        if layout.named(key) is None:
            continue
        if str(line.get("at")) > until:
            marks.add({key: (_GONE if line.get("why") == "new" else _UNTOLD).encode()})
        elif op != "keep":
            marks.put([(key, str(line.get("digest")).encode() if op == "put" else _GONE.encode())])
    for page in target.list(""):  # what no line tells of came otherwise, somewhen
        marks.add({stat.key: _UNTOLD.encode() for stat in page if layout.named(stat.key)})
    held = ((key, value.decode()) for key, value in marks.items())
    found.put((_rank(*ids), _File.pack(key, digest, [key])) for key, digest in held if digest != _GONE and (ids := layout.named(key)))


def _trashed(target: Target, layout: Layout, found: Scratch) -> None:
    """The newest copies of each task, and the settings of its project."""
    for page in target.list(""):
        for key in (stat.key for stat in page):
            if (trashed := layout.trashed(key)) is None:
                continue
            folder, _, rest = key.partition("/_trash/")  # as it is written, since ids may be shortened there
            found.add({_rank(trashed.project, None): _File.pack(f"{folder}/_project.json", "")})
            home = f"{folder}/{_home(layout, rest.rpartition('/')[2].rsplit('.', 2)[0])}"
            rank = _rank(trashed.project, None if home.endswith("/_project.json") else trashed.task)
            held = found.get([rank]).get(rank)
            others = _File.unpack(layout, held).places if held else ()
            day = max((copy.day for place in others if (copy := layout.trashed(place))), default="")
            if day <= trashed.day:
                found.put([(rank, _File.pack(home, "", [*(others if day == trashed.day else ()), key]))])


def _home(layout: Layout, part: str) -> str:
    """Where, in the folder of its project, the file with this name in the trash belongs."""
    if part == "_project":
        return "_project.json"
    owner, side, name = keys.decode(part).partition(keys.SIDE)
    path = layout.template.partition("{project}")[2].partition("/")[2].replace("{task}", keys.encode(owner) if side else part)
    return f"{path.removesuffix('.json')}/{keys.encode(name)}" if side else path


class _Fetch:
    """The bytes of a file, wherever they are; may be called from many threads."""

    def __init__(self, target: Target, layout: Layout, at: int | None) -> None:
        self._target, self._layout, self._at = target, layout, at
        self._lock = threading.Lock()
        self._trash: dict[str, Scratch] = {}

    def __call__(self, file: _File) -> Found:
        found = partial(Found, file.project, file.task, file.key)
        try:
            data = self._told(file) if file.digest else self._newest(file)
            if data is not None:
                self._check(file, data)
                return found(data)
            why = f"the change feed doesn't tell what it was at {format_time(self._at or 0)}"
            if file.digest != _UNTOLD:
                why = f"its bytes of {format_time(self._at or 0)} (sha256 {file.digest[:12]}...) are kept nowhere" if file.digest else "it vanished"
            present = self._target.get(file.key) if file.task is None else None  # better other settings than none; said by name
            return found(present, f"{why}; given as it is now" if present else why)
        except TaskError as error:
            return found(None, str(error))

    def _check(self, file: _File, data: bytes) -> None:
        """Raises TaskError for what is no JSON object, or another task, where one belongs."""
        if keys.is_side(file.task or ""):
            return
        body = encode.parse(data)
        if not isinstance(body, dict):
            raise TaskError("it is damaged: no JSON object")
        told = rows.task_id(body) if file.task is not None else None
        if told is not None and "~~" not in file.key and self._layout.task(file.project, told) != file.key:
            raise TaskError(f"it is damaged: it is task {told}")

    def _newest(self, file: _File) -> bytes | None:
        """Of several copies that came to the trash on one day, the one with the last activity; settings rather as they stand."""
        if file.task is None and (present := self._target.get(file.key)) is not None:
            return present
        copies = []
        for place in file.places:
            data = self._target.get(place)
            if data is not None and self._layout.trashed(place) and encode.digest(data).hex()[:12] != place[-17:-5]:
                raise TaskError(f"{place} is damaged: it has not the digest in its name")
            copies += [] if data is None else [data]
        if len(copies) > 1:
            copies.sort(key=lambda data: rows.last_activity(Found("", None, "", data).body) or 0)
        return copies[-1] if copies else None

    def _told(self, file: _File) -> bytes | None:
        """The bytes with that digest."""
        if file.digest == _UNTOLD:
            return None
        for place in chain(file.places, self._history(file), self._from_trash(file)):
            data = self._target.get(place)
            if data is not None and encode.digest(data).hex() == file.digest:
                return data
        return None

    def _history(self, file: _File) -> Iterator[str]:
        """Each was copied there when it was replaced: the first after that time is most likely, then its neighbours."""
        if file.task is None:
            return
        part = file.owner if "~~" in file.owner and file.owner in file.key else keys.encode(file.owner)  # a shortened id is known as that alone
        listed = (stat.key for page in self._target.list(f"{self._folder(file)}_history/{part}/") for stat in page)
        times = [(past.at - (self._at or 0), key) for key in listed if (past := self._layout.historied(key)) and past.task == file.task]
        yield from (key for _, key in sorted(times, key=lambda found: (found[0] <= 0, abs(found[0]))))

    def _from_trash(self, file: _File) -> Iterator[str]:
        """Whatever there has this digest in its name: the bytes tell."""
        with self._lock:
            if file.project not in self._trash:
                held = self._trash[file.project] = Scratch()
                for page in self._target.list(f"{self._folder(file)}_trash/"):
                    held.put((stat.key[-17:-5], stat.key.encode("utf-8", "surrogatepass")) for stat in page)
            found = self._trash[file.project].get([file.digest[:12]])
        yield from (key.decode("utf-8", "surrogatepass") for key in found.values())

    def _folder(self, file: _File) -> str:
        """Of its Collection."""
        return "/".join(file.key.split("/")[: self._layout.folder(file.project).count("/")]) + "/"
