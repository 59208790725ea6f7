"""What a Label Studio task keeps when it is imported into another server, and whether it did.

Pure. LOST says which fields no import takes; whoever an annotation is by is found by e-mail; any other difference is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from syncd import encode

Body = Mapping[str, Any]
LOST = {
    "tasks": "id inner_id project is_labeled overlap created_at updated_at updated_by file_upload storage_filename comment_count "
    "unresolved_comment_count comment_authors last_comment_updated_at total_annotations cancelled_annotations total_predictions annotations_ids",
    "annotations": "id task project unique_id created_at updated_at draft_created_at updated_by import_id last_action last_created_by "
    "parent_prediction parent_annotation bulk_created result_count prediction",
    "predictions": "id task project created_at updated_at model model_run cluster neighbors mislabeling",
    "drafts": "id task user created_at updated_at import_id",
}
"""Fields that the server makes anew. Drafts become the token's user's."""
_LOST = {kind: frozenset(names.split()) for kind, names in LOST.items()}
PARTS = ("annotations", "predictions")


class Crowd:
    """Who annotations are by, there: `me` for who is no member. people: e-mails as they were to e-mails there."""

    def __init__(self, me: str, members: frozenset[str], people: Mapping[str, str]) -> None:
        self._me, self._members, self._people = me, members, people

    def there(self, person: object) -> str:
        """The e-mail of whom that becomes."""
        wanted = self._people.get(email(person), email(person))
        return wanted if wanted in self._members else self._me


def email(person: object) -> str:
    """What a task says of a person, as one word."""
    return str(person.get("email")) if isinstance(person, dict) else f"user {person}"


def parts(body: Body, kind: str) -> list[Body]:
    """Its annotations, predictions or drafts; some exports hold only the ids of predictions, of which nothing can be made."""
    return [part for part in body.get(kind) or () if isinstance(part, dict)]


def shape(body: Body, crowd: Crowd) -> dict[str, object]:
    """The task as the import takes it."""
    made = {name: body[name] for name in ("data", "meta", "allow_skip") if body.get(name) is not None}
    predictions = [
        {name: part[name] for name in ("score", "model_version") if name in part} | {"result": _result(part)} for part in parts(body, "predictions")
    ]
    return made | {"annotations": [_annotation(part, crowd) for part in parts(body, "annotations")], "predictions": predictions}


def _annotation(part: Body, crowd: Crowd) -> dict[str, object]:
    """Every flag is told, since the server's defaults are others; the id is kept as `import_id`."""
    made: dict[str, object] = {name: part.get(name) is True for name in ("was_cancelled", "ground_truth")}
    made |= {"completed_by": {"email": crowd.there(part.get("completed_by"))}, "result": _result(part), "lead_time": part.get("lead_time")}
    return made | {"id": part.get("id") if isinstance(part.get("id"), int) else None}


def _result(part: Body) -> object:
    return [] if part.get("result") is None else part["result"]  # none at all would be refused, and the whole task with it


def data_digest(body: Body) -> bytes:
    """The same for a task and what a server made of it: longer decimals than its numbers hold are rounded."""
    value = json.loads(encode.dumps(body["data"]))
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()


def differences(body: Body, task: Body, crowd: Crowd) -> Iterator[str]:
    """What of a backed-up task is otherwise in a restored one, beyond LOST; its parts in any order."""
    for name in sorted(body.keys() - _LOST["tasks"]):
        if name in _LOST:
            old, new, count = parts(body, name), parts(task, name), len(body.get(name) or ())
            if count != len(new):
                yield f"{name} ({len(new)} instead of {count})"
            elif _parts(name, old, old, task, crowd) != _parts(name, new, old, task, crowd):
                yield name
        elif not same(body[name], task.get(name)) and (name != "meta" or body[name] or task.get(name)):  # no meta is an empty one
            yield name


def _parts(kind: str, some: Iterable[Body], old: Iterable[Body], task: Body, crowd: Crowd) -> list[bytes]:
    """What lasts of them; old: of what they were."""
    kept = {field for part in old for field in part} - _LOST[kind]
    found = [{field: part.get(field) for field in kept} for part in some]
    origin = {part["id"]: part.get("import_id") for part in parts(task, "annotations")} if kind == "drafts" else {}
    for part in found:
        if kind == "annotations" and "completed_by" in part:
            part["completed_by"] = crowd.there(part["completed_by"])
        for name in {"lead_time", "score"} & part.keys():
            if isinstance(number := part[name], int):
                part[name] = float(number)  # as the server holds it
        if "annotation" in part and some is not old:
            part["annotation"] = origin.get(part.get("annotation"))
    return sorted(map(encode.dumps, found))


def same(one: object, other: object) -> bool:
    """Equal as JSON values, however long their numbers are."""
    return one == other or encode.dumps(one) == encode.dumps(other)
