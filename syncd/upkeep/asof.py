"""What stood in a Target: now, at some time, or in its trash; from the Target alone.

Refuses to take one version for another: what stood at a time is told by the change feed, and bytes are believed by their digest only. They are where
they were put, else in the history, else in the trash, else among the store's own versions. What stood and can't be found is named. Memory stays flat.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple

from syncd import encode, keys
from syncd.clock import Clock, format_time
from syncd.errors import SyncdError, TaskError
from syncd.keys import Layout, Named
from syncd.scratch import Scratch, chunks
from syncd.sources import rows
from syncd.sources.base import selected
from syncd.targets.base import Target, Versioned
from syncd.upkeep.changes import Line, changes

_GONE, _UNTOLD = "-", "?"
_AHEAD = 256  # files read at a time, and held


@dataclass(frozen=True, slots=True)
class Question:
    """What is wanted: projects by id or title pattern and tasks by id (empty: all), as they are, as they stood `at` a time, or from the trash.

    bucket: what stood is also looked for among the versions that the store keeps itself.
    """

    projects: Sequence[str] = ()
    tasks: Sequence[str] = ()
    at: int | None = None
    trashed: bool = False
    bucket: bool = False


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
    with closing(_files(target, layout, clock, question)) as files, ThreadPoolExecutor(target.concurrency, "syncd-restore") as pool:
        fetch = partial(_fetch, target, layout, question)
        known, hit = list[str](), False
        wanted = {keys.decode(keys.encode(task)) for task in question.tasks}  # as keys show them
        projects = [named.project for project in question.projects if (named := layout.named(layout.settings(project)))]
        missing = set(wanted)
        for project, group in groupby(files, lambda file: file.project):
            rest = iter(group)
            first, second = next(rest), next(rest, None)
            if second is None and first.task is None and (first.digest == _UNTOLD or (question.trashed and first.places == [first.key])):
                continue  # the project came later, or has nothing in the trash
            settings = fetch(first) if first.task is None else None
            title = str(settings.body.get("title") or settings.body.get("name") or "") if settings else ""
            known.append(f"{project} ({title})" if title else project)
            if not selected(projects or None, project, title):
                continue
            hit = True
            if settings:
                yield settings
            tasks_of = chain(() if settings else (first,), (second,) if second else (), rest)
            mine = (file for file in tasks_of if not wanted or file.owner in wanted)
            for some in chunks(mine, _AHEAD):
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
    """key: where it belongs; places: keys its bytes may be at, the likeliest first; digest: hex, `?` when the feed says too little, else empty."""

    project: str
    task: str | None
    key: str
    places: Sequence[str]
    digest: str = ""

    @property
    def owner(self) -> str:
        """The task that it is, or stands beside."""
        return (self.task or "").partition(keys.SIDE)[0]


def _files(target: Target, layout: Layout, clock: Clock, question: Question) -> Generator[_File]:
    """All that may be wanted, project by project: settings first, then tasks by id."""
    with closing(Scratch()) as listed, closing(Scratch()) as told, closing(Scratch()) as copies:
        if question.at is not None:
            _replay(changes(target, clock), layout, question.at, told)
            listed.put(_row(named, key) for key, _ in told.items() if (named := layout.named(key)))  # it may stand nowhere any more
        for page in target.list(""):
            names = [(stat.key, named) for stat in page if (named := layout.named(stat.key))]
            listed.put(_row(named, key) for key, named in names)
            copies.put((f"{named.project}/{key[-17:-5]}", key.encode()) for key, named in names if named.where == "trash")
        found = ((named, key.decode()) for _, key in listed.items() if (named := layout.named(key.decode())))
        for _, places in groupby(found, key=lambda each: each[0].home):
            if file := _wanted(list(places), question, told, copies):
                yield file


def _wanted(places: Sequence[tuple[Named, str]], question: Question, told: Scratch, copies: Scratch) -> _File | None:
    """The file that has these places, if it is asked for. copies: the key of one with each digest, as names in the trash tell it."""
    (project, task, home, *_), at = places[0][0], question.at
    stands = any(not named.where for named, _ in places)
    if question.trashed:
        day = max((named.at for named, _ in places if named.where == "trash"), default=0)
        newest = [key for named, key in places if (named.where, named.at) == ("trash", day)]
        return _File(project, task, home, [home, *newest] if task is None else newest) if newest or task is None else None
    if at is None:
        return _File(project, task, home, [home]) if stands else None
    digest = told.get([home]).get(home, _UNTOLD.encode()).decode()
    if not stands or digest == _GONE:
        return None
    # each was copied to the history when it was replaced: the first after that time is most likely, then its neighbours
    past = sorted((named.at <= at, abs(named.at - at), key) for named, key in places if named.where == "history")
    others = [*(key for *_, key in past), *(key.decode() for key in copies.get([f"{project}/{digest[:12]}"]).values())]
    return _File(project, task, home, [home, *others], digest)


def _row(named: Named, key: str) -> tuple[str, bytes]:
    """Settings first, numbers by their value; what has one home together, though an id may read like another's that is shortened."""
    rank = "" if named.task is None else f"{min(len(named.task), 9999):04}{named.task}"
    return f"{named.project}\0{rank}\0\0{named.home}\0{key}", key.encode()


def _replay(lines: Iterable[Line], layout: Layout, at: int, told: Scratch) -> None:
    """What stood then, by key. What only later lines tell of, and not as new, stood before as nobody knows what."""
    until = format_time(at)
    for line in lines:
        key, op = str(line.get("key")), line.get("op")
        if (named := layout.named(key)) is None or named.where:
            continue
        if str(line.get("at")) > until:
            told.add({key: (_GONE if line.get("why") == "new" else _UNTOLD).encode()})
        elif op != "keep":
            told.put([(key, str(line.get("digest") if op == "put" else _GONE).encode())])


def _fetch(target: Target, layout: Layout, question: Question, file: _File) -> Found:
    """The bytes of a file, wherever they are; may be called from many threads."""
    found, at = partial(Found, file.project, file.task, file.key), format_time(question.at or 0)
    try:
        data = _bytes(target, file)
        if data is None and question.bucket and isinstance(target, Versioned) and file.digest not in {"", _UNTOLD}:
            data = next((old.data for old in target.versions(file.key) if encode.digest(old.data).hex() == file.digest), None)
        if data is not None:
            _check(layout, file, data)
            return found(data)
        why = f"the change feed doesn't tell what it was at {at}"
        if file.digest != _UNTOLD:
            why = f"its bytes of {at} (sha256 {file.digest[:12]}...) are kept nowhere" if file.digest else "it vanished"
        present = target.get(file.key) if file.task is None else None  # better other settings than none; said by name
        return found(present, f"{why}; given as it is now" if present else why)
    except TaskError as error:
        return found(None, str(error))


def _bytes(target: Target, file: _File) -> bytes | None:
    """Those with its digest. Where none is known: as it stands, else of all that came to the trash on one day what has the last activity."""
    copies = []
    for place in file.places if file.digest != _UNTOLD else ():
        data = target.get(place)
        digest = "" if data is None else encode.digest(data).hex()
        if data is None or (file.digest and digest != file.digest):
            continue
        if file.digest or place == file.key:
            return data
        if digest[:12] != place[-17:-5]:
            raise TaskError(f"{place} is damaged: it has not the digest in its name")
        copies.append(data)
    if len(copies) > 1 and not keys.is_side(file.task or ""):
        copies.sort(key=lambda data: rows.last_activity(Found("", None, "", data).body) or 0)
    return copies[-1] if copies else None


def _check(layout: Layout, file: _File, data: bytes) -> None:
    """Raises TaskError for what is no JSON object, or another task, where one belongs."""
    if keys.is_side(file.task or ""):
        return
    body = encode.parse(data)
    if not isinstance(body, dict):
        raise TaskError("it is damaged: no JSON object")
    told = rows.task_id(body) if file.task is not None else None
    if told is not None and "~~" not in file.key and layout.task(file.project, told) != file.key:
        raise TaskError(f"it is damaged: it is task {told}")
