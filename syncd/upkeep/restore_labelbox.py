"""A backed-up Labelbox data row in the form that Labelbox imports: the row itself, and its labels as NDJSON. Shapes of the SDK 7.17.

Pure. Refuses to invent: what has no such form (frames of videos, masks, whose pixels need the key, relationships, answers by the millisecond) is left
out and counted; it is in the row's own file. A row without a global key gets its old id as one, which is how its labels find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from syncd import encode
from syncd.sources.rows import part

_SAME = ("row_data", "external_id", "media_type")
_SHAPES = {"bounding_box": "bbox", "polygon": "polygon", "line": "line", "point": "point", "location": "location"}
_KNOWN = ("classifications", "objects")
_ABOUT = frozenset({"segments", "key_frame_feature_map"})  # about annotations, which stand elsewhere


def data_row(body: Mapping[str, Any]) -> bytes:
    """The line that `Dataset.create_data_rows` takes; nothing for what is no data row with its data."""
    row = part(body, "data_row")
    if "row_data" not in row:
        return b""
    line: dict[str, object] = {name: row[name] for name in _SAME if row.get(name) is not None} | {"global_key": _global_key(row)}
    if attachments := body.get("attachments"):
        line["attachments"] = [{name: item[name] for name in ("type", "value", "name") if item.get(name)} for item in attachments]
    if fields := body.get("metadata_fields"):
        line["metadata_fields"] = [{"name": field.get("schema_name"), "value": field.get("value")} for field in fields]
    return encode.dumps(line)


def labels(body: Mapping[str, Any], project: str, remark: Callable[[str, int], None]) -> bytes:
    """The lines that `LabelImport` takes into one project. remark: is told what is left out, and how much of it."""
    lines, left = [], 0
    home = {"dataRow": {"globalKey": _global_key(part(body, "data_row"))}}
    labels_of = {name: inner.get("labels") or () for name, inner in body.get("projects", {}).items()}
    for label in labels_of.pop(project, ()):
        annotations = part(label, "annotations")
        left += sum(bool(value) for name, value in annotations.items() if name not in {*_KNOWN, *_ABOUT})
        for kind in _KNOWN:
            for annotation in annotations.get(kind) or ():  # type: ignore[attr-defined]  # likewise
                made = _object(annotation) if kind == "objects" else _classification(annotation)
                lines.append(encode.dumps(made | home) if made else b"")
                left += made is None
    for what, count in (("annotations have no form that Labelbox imports", left), ("labels of other projects", sum(map(len, labels_of.values())))):
        if count:
            remark(f"{what}: they are in the files of their rows alone", count)
    return b"".join(lines)


def _global_key(row: Mapping[str, object]) -> object:
    return row.get("global_key") or row.get("id")


def _object(found: Mapping[str, Any]) -> dict[str, object] | None:
    shape = next((name for name in _SHAPES if name in found), None)
    if shape is None:
        return None
    made: dict[str, object] = {"name": found.get("name"), _SHAPES[shape]: found[shape]}
    inner = list(filter(None, map(_classification, found.get("classifications") or ())))
    return made | ({"classifications": inner} if inner else {})


def _classification(found: Mapping[str, Any]) -> dict[str, object] | None:
    name = found.get("name")
    if "text_answer" in found:
        return {"name": name, "answer": found["text_answer"].get("content", "")}
    if "radio_answer" in found:
        return {"name": name, "answer": _answer(found["radio_answer"])}
    if "checklist_answers" in found:
        return {"name": name, "answer": list(map(_answer, found["checklist_answers"]))}
    return None


def _answer(found: Mapping[str, Any]) -> dict[str, object]:
    inner = list(filter(None, map(_classification, found.get("classifications") or ())))
    return {"name": found.get("name")} | ({"classifications": inner} if inner else {})
