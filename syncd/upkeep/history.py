"""`syncd history`: the versions of one task, and what changed from each to the next; from the Target alone.

Refuses to guess: a version says when it stood as exactly as its place tells (of a file in the trash that is the day), and who changed something only
where the task itself names them. Of a version that is gone, as of the one before the oldest, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

from syncd import encode, keys
from syncd.clock import DAY
from syncd.errors import TaskError
from syncd.keys import Layout
from syncd.targets.base import Target, Version, Versioned

_PARTS = {"annotations": "annotation", "predictions": "prediction", "drafts": "draft", "labels": "label"}
_INNER = ("projects", "experiments")  # Labelbox: labels stand somewhere in these
# what moves with an annotation
_FOLLOW = {"updated_at", "total_annotations", "cancelled_annotations", "total_predictions", "is_labeled", "annotations_ids"}


@dataclass(frozen=True, slots=True)
class Change:
    """What differs in one part of a task. op: added, removed or changed; kind: annotation, prediction, draft, label or field; by: e-mail or id of who
    is named there, of a removed one who had made it; at: as the task says it; fields: the names of what changed in it.
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
    found, shown = set[str](), keys.decode(keys.encode(task))
    for page in target.list(""):
        found.update(named.project for stat in page if (named := layout.named(stat.key)) is not None and named.task == shown)
    return sorted(found)


def compare(old: object, new: object) -> list[Change]:
    """What changed from one document of a task to the next: parts that people make first, then other fields."""
    before, after = _parts(old), _parts(new)
    people = {}  # `updated_by` is an id
    for value in [*before.values(), *after.values()]:
        if isinstance(user := _mapping(value).get("completed_by"), Mapping) and user.get("email"):
            people[_text(user.get("id"))] = _text(user["email"])
    changes = []
    for part in dict.fromkeys([*after, *before]):
        was, now = before.get(part), after.get(part)
        if part not in after:
            changes.append(Change("removed", *part, *_who_and_when(was, people)))
        elif part not in before:
            changes.append(Change("added", *part, *_who_and_when(now, people)))
        elif encode.dumps(was) != encode.dumps(now):
            names = dict.fromkeys([*_mapping(was), *_mapping(now)])
            differ = (name for name in names if encode.dumps([_mapping(was).get(name)]) != encode.dumps([_mapping(now).get(name)]))
            changes.append(Change("changed", *part, *_who_and_when(now, people), tuple(name for name in differ if name not in _FOLLOW)))
    return sorted(changes, key=lambda change: change.kind == "field")


def _parts(document: object) -> dict[tuple[str, str], object]:
    """Each part of a document by kind and id; a part of an inner mapping by the names that lead to it, too."""
    parts: dict[tuple[str, str], object] = {}

    def rest(value: Mapping[str, object], where: str) -> dict[str, object]:
        """What is no part."""
        left: dict[str, object] = {}
        for name, inner in value.items():
            if name in _PARTS and isinstance(inner, list):
                parts.update(((_PARTS[name], where + id_), item) for id_, item in _named(inner))
            elif isinstance(inner, Mapping) and (where or name in _INNER):
                left[name] = rest(inner, f"{where}{name}/")
            elif name not in _FOLLOW:
                left[name] = inner
        return left

    fields = rest(document if isinstance(document, Mapping) else {"content": document}, "")
    return parts | {("field", name): value for name, value in fields.items()}


def _named(items: list[object]) -> Iterator[tuple[str, object]]:
    """Each with its id, or its number where it has none or one that was there already."""
    seen = {"null"}
    for number, item in enumerate(items, 1):
        id_ = _text(item.get("id") if isinstance(item, Mapping) else item)
        yield f"#{number}" if id_ in seen else id_, item
        seen.add(id_)


def _who_and_when(part: object, people: Mapping[str, str]) -> tuple[str, str]:
    told = {**_mapping(part), **_mapping(_mapping(part).get("label_details"))}
    who = next((told[name] for name in ("updated_by", "completed_by", "user", "created_by", "model_version") if told.get(name) is not None), "")
    who = _text(_mapping(who).get("email") or _mapping(who).get("id") or who)
    return people.get(who, who), str(told.get("updated_at") or told.get("created_at") or "")


def _mapping(value: object) -> Mapping[str, object]:
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
    places = sorted(_places(target, layout, project, task), reverse=True)
    kept = ((where, Version(0, until, data)) for until, where, key in places if (data := target.get(key)) is not None)
    for (where, version), (_, older) in pairwise(chain(kept, [("", None)])):
        if version is not None and not (where == "trash" and older is not None and older.data == version.data):  # then the history tells it better
            yield where, version


def _places(target: Target, layout: Layout, project: str, task: str) -> Iterator[tuple[int, str, str]]:
    """Until when, where and at which key. Of the trash the end of the day is meant."""
    for page in chain(target.list(layout.histories(project, task)), target.list(f"{layout.folder(project)}_trash/")):
        for stat in page:
            if (found := layout.named(stat.key)) is not None and found.where and found.home == layout.task(project, task):
                yield found.at + (DAY if found.where == "trash" else 0), found.where, stat.key
