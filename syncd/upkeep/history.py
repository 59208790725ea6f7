"""`syncd history`: the versions of one task, and what changed from each to the next; from the Target alone.

Refuses to guess: a version says when it stood as exactly as its place tells (of a file in the trash that is the day), and who changed something only
where the task itself names them. Of a version that is gone, as of the one before the oldest, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

from syncd import encode, keys
from syncd.clock import SECOND, parse_time
from syncd.errors import TaskError
from syncd.keys import Layout
from syncd.targets.base import Target, Version, Versioned

_DAY = 86400 * SECOND
_LISTS = {"annotations": "annotation", "predictions": "prediction", "drafts": "draft", "labels": "label"}
_OWNERS = {"projects": "project", "experiments": "model", "runs": "model run"}  # Labelbox: mappings by id, which hold labels
_NOTHING = object()
# what moves with an annotation, and is told only when it is all there is
_FOLLOW = {"updated_at", "total_annotations", "cancelled_annotations", "total_predictions", "is_labeled", "annotations_ids"}


@dataclass(frozen=True, slots=True)
class Change:
    """What differs in one part of a task. op: added, removed or changed; kind: annotation, prediction, draft, label, data, ...; by: e-mail or id of
    who is said to have done it, of a removed part who had made it; at: as the task says it; fields: the names of what changed in it.
    """

    op: str
    kind: str
    id: str
    by: str = ""
    at: str = ""
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stood:
    """One version. since None: unknown; until None: it stands now; changes: to the version before, None for the oldest there is."""

    where: str
    since: int | None
    until: int | None
    size: int
    digest: bytes
    changes: list[Change] | None


def versions_of(target: Target, layout: Layout, project: str, task: str, *, bucket: bool = False) -> Iterator[Stood]:
    """Newest first; two of them are in memory at a time. bucket: the versions that the store keeps. Raises TargetError."""
    found: Iterator[tuple[str, Version]] = _kept(target, layout, project, task)
    if bucket and isinstance(target, Versioned):
        found = (("bucket", version) for version in target.versions(layout.task(project, task)))
    for (where, version), before in pairwise(chain(found, [("", None)])):
        if version is not None:
            was, older = before
            since = version.since or (older.until if older is not None and was != "trash" else None)
            changes = compare(_document(older.data), _document(version.data)) if older is not None else None
            yield Stood(where, since, version.until, len(version.data), encode.digest(version.data), changes)


def holders(target: Target, layout: Layout, task: str) -> list[str]:
    """The Collections with something of this task, from one listing of everything."""
    found: dict[str, None] = {}
    for page in target.list(""):
        for stat in page:
            ids = layout.ids(stat.key) or ((other.project, other.task) if (other := layout.trashed(stat.key) or layout.historied(stat.key)) else None)
            if ids is not None and ids[1] == task:
                found[ids[0]] = None
    return sorted(found)


def compare(old: object, new: object) -> list[Change]:
    """What changed from one document of a task to the next: parts that people make first, then data and other fields."""
    before, after = dict(_parts(old)), dict(_parts(new))
    users = [_mapping(each, "completed_by") for each in [*before.values(), *after.values()]]
    people = {_text(user["id"]): user["email"] for user in users if {"id", "email"} <= user.keys()}  # `updated_by` is an id
    changes = []
    for kind, id_ in dict.fromkeys([*after, *before]):
        was, now = before.get((kind, id_), _NOTHING), after.get((kind, id_), _NOTHING)
        fields = _differing(was, now)
        if fields is not None:
            op = "added" if was is _NOTHING else "removed" if now is _NOTHING else "changed"
            part = was if now is _NOTHING else now
            changes.append(Change(op, kind, id_, _who(part, people), _when(part), fields if op == "changed" else ()))
    telling = [change for change in changes if change.kind != "field" or change.id not in _FOLLOW]
    return sorted(telling or changes, key=lambda change: change.kind in {"data", "field"})


def _parts(document: object, kind: str = "", where: str = "") -> Iterator[tuple[tuple[str, str], object]]:
    """Kind and id of each part of a document, and the part. kind, where: of what this is itself a part of, and the ids it stands under."""
    rest: dict[str, object] = {}
    for name, value in document.items() if isinstance(document, Mapping) else [("content", document)]:
        if name in _LISTS and isinstance(value, list):
            yield from (((_LISTS[name], where + id_), item) for id_, item in _named(value))
        elif name in _OWNERS and isinstance(value, Mapping):
            for id_, inner in value.items():
                yield from _parts(inner, _OWNERS[name], f"{where}{id_}/")
        elif name == "data" and not kind and isinstance(value, Mapping):
            yield from ((("data", key), field) for key, field in value.items())
        elif kind:
            rest[name] = value
        else:
            yield ("field", name), value
    if kind:
        yield (kind, where[:-1]), rest


def _named(items: list[object]) -> Iterator[tuple[str, object]]:
    """Each with its id, or its number where it has none or one that was there already."""
    seen = {"null"}
    for number, item in enumerate(items, 1):
        id_ = _text(item.get("id") if isinstance(item, Mapping) else item)
        yield f"#{number}" if id_ in seen else id_, item
        seen.add(id_)


def _differing(was: object, now: object) -> tuple[str, ...] | None:
    """The names of the fields that differ, () for what has none; None: it is the same."""
    if was is _NOTHING or now is _NOTHING:
        return ()
    if encode.dumps(was) == encode.dumps(now):
        return None
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        return ()
    return tuple(name for name in {**was, **now} if encode.dumps([was.get(name)]) != encode.dumps([now.get(name)]) and name not in _FOLLOW)


def _who(part: object, people: Mapping[str, object]) -> str:
    told = {**_mapping(part), **_mapping(part, "label_details")}
    for name in ("updated_by", "completed_by", "user", "created_by", "model_version"):
        if (value := told.get(name)) is not None:
            user = _mapping(value)
            return _text((user.get("email") or user.get("id")) if user else people.get(_text(value), value))
    return ""


def _when(part: object) -> str:
    told = {**_mapping(part), **_mapping(part, "label_details")}
    return str(told.get("updated_at") or told.get("created_at") or "")


def _mapping(value: object, *names: str) -> Mapping[str, object]:
    for name in names:
        value = _mapping(value).get(name)
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else encode.dumps(value).decode().strip()


def _document(data: bytes) -> object:
    try:
        return encode.parse(data)
    except TaskError:
        return f"{len(data)} bytes that are no JSON, sha256 {encode.digest(data).hex()}"


def _kept(target: Target, layout: Layout, project: str, task: str) -> Iterator[tuple[str, Version]]:
    """What stands there now, in the history and in the trash, newest first."""
    now = target.get(layout.task(project, task))
    if now is not None:
        yield "now", Version(0, None, now)
    trash: Version | None = None
    for until, where, key in sorted(_places(target, layout, project, task), reverse=True):
        if (data := target.get(key)) is None:
            continue
        if trash is not None and trash.data != data:  # else the history tells of the same one, and better when
            yield "trash", trash
        trash = Version(0, until, data) if where == "trash" else None
        if trash is None:
            yield where, Version(0, until, data)
    if trash is not None:
        yield "trash", trash


def _places(target: Target, layout: Layout, project: str, task: str) -> Iterator[tuple[int, str, str]]:
    """Until when, where and at which key. Of the trash the end of the day is meant."""
    for page in target.list(layout.histories(project, task)):
        for stat in page:
            earlier = layout.historied(stat.key)
            if earlier is not None and layout.history(project, task, earlier.at) == stat.key:
                yield earlier.at, "history", stat.key
    for page in target.list(f"{layout.folder(project)}_trash/"):
        for stat in page:
            trashed = layout.trashed(stat.key)
            if trashed is not None and stat.key.rpartition("/")[2].rsplit(".", 2)[0] == keys.encode(task):
                yield parse_time(trashed.day) + _DAY, "trash", stat.key
