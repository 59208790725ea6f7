"""The parts of a Labelbox export: labels, annotations of each kind of media, ontologies. Their shapes are those of the public documents' samples."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

EMAIL = "ann@example.com"
MASK = "mask:"  # a value of this and an id becomes that mask's URL, which names the export task it stands in
_FEATURES = itertools.count(1)


def label(label_id: str, at: str, annotations: Mapping[str, Any], *, kind: str = "Default", skipped: bool = False) -> dict[str, Any]:
    """A label with everything an export may show of it."""
    details = {"created_at": at, "updated_at": at, "created_by": EMAIL, "content_last_updated_at": at, "reviews": []}
    return {
        "label_kind": kind,
        "version": "1.0.0",
        "id": label_id,
        "label_details": details,
        "performance_details": {"seconds_to_create": 12, "seconds_to_review": 0, "skipped": skipped},
        "annotations": dict(annotations),
    }


def skipped(label_kind: str = "Default") -> dict[str, Any]:
    """What `Project.add` takes as a skipped label: it has no annotations."""
    return {
        "label_kind": label_kind,
        "performance_details": {"seconds_to_create": 3, "seconds_to_review": 0, "skipped": True},
        "annotations": {"objects": [], "classifications": [], "relationships": []},
    }


def _feature(name: str, **value: Any) -> dict[str, Any]:
    number = next(_FEATURES)
    return {"feature_id": f"cf{number:023d}", "feature_schema_id": f"cs{zlib.crc32(name.encode()):023d}", "name": name, "value": name} | value


def text_answer(content: str, name: str = "notes") -> dict[str, Any]:
    return _feature(name, text_answer={"content": content, "classifications": []})


def radio(answer: str, name: str = "mood") -> dict[str, Any]:
    return _feature(name, radio_answer=_feature(answer, classifications=[]))


def checklist(*answers: str, name: str = "seen") -> dict[str, Any]:
    return _feature(name, checklist_answers=[_feature(answer, classifications=[]) for answer in answers])


def box(name: str, top: float, left: float, height: float = 20, width: float = 30) -> dict[str, Any]:
    place = {"top": top, "left": left, "height": height, "width": width}
    return _feature(name, annotation_kind="ImageBoundingBox", classifications=[], bounding_box=place)


def image(content: str = "a cat") -> dict[str, Any]:
    """A bounding box, a classification in free text."""
    return {"objects": [box("cat", 10.5, 20)], "classifications": [text_answer(content)], "relationships": []}


def masked(mask: str) -> dict[str, Any]:
    """A segmentation: its pixels are a PNG that needs the key."""
    pixels = {"url": MASK + mask, "color_rgb": [255, 0, 77]}
    segment = _feature("sky", annotation_kind="ImageSegmentationMask", classifications=[], composite_mask=pixels)
    return {"objects": [segment], "classifications": [], "relationships": []}


def text(content: str = "a note") -> dict[str, Any]:
    entity = _feature("person", annotation_kind="TextEntity", classifications=[], location={"start": 3, "end": 11})
    return {"objects": [entity], "classifications": [text_answer(content), checklist("first", "second")], "relationships": []}


def audio(moments: Sequence[int] = (90697, 23890, 6157)) -> dict[str, Any]:
    """Classifications for the whole, and temporal ones: by millisecond, with the span each lasts."""
    spoken, mood = text_answer("said", "speech"), radio("calm")
    moods = [mood] if len(moments) > 1 else []
    times = {str(at): {"classifications": [spoken, *moods] if at == max(moments) else [spoken]} for at in moments}
    segments = {spoken["feature_id"]: [[min(moments), max(moments)]]} | {one["feature_id"]: [[max(moments), max(moments)]] for one in moods}
    return {"classifications": [text_answer("whole"), radio("one"), checklist("one", "two")], "timestamp": times, "segments": segments}


def video(frames: Sequence[int] = (1, 5)) -> dict[str, Any]:
    """One object on its key frames; what lies between is interpolated only if asked for."""
    moving = box("car", 10, 10)
    feature = moving["feature_id"]

    def frame(at: int) -> dict[str, Any]:
        return {"objects": {feature: moving | {"bounding_box": moving["bounding_box"] | {"left": 10.0 * at}}}, "classifications": []}

    return {
        "frames": {str(at): frame(at) for at in frames},
        "segments": {feature: [[min(frames), max(frames)]]},
        "key_frame_feature_map": {feature: {str(at): True for at in frames}},
        "classifications": [radio("day")],
    }


def ontology() -> dict[str, Any]:
    """As the field `normalized` of an ontology."""

    def schema(name: str) -> dict[str, Any]:
        number = zlib.crc32(name.encode())
        return {"schemaNodeId": f"cn{number:023d}", "featureSchemaId": f"cs{number:023d}", "name": name, "required": False, "archived": 0}

    kinds = (("cat", "rectangle", "#ff0000"), ("sky", "raster-segmentation", "#00ff00"), ("car", "rectangle", "#0000ff"))
    tools = [schema(name) | {"tool": tool, "color": color, "classifications": []} for name, tool, color in kinds]
    notes = schema("notes") | {"type": "text", "instructions": "notes", "options": [], "scope": "global"}
    return {"tools": tools, "classifications": [notes], "relationships": []}


def metadata_schema(name: str) -> dict[str, Any]:
    return {"id": f"cm{zlib.crc32(name.encode()):023d}", "name": name, "kind": "CustomMetadataString", "reserved": False, "options": []}


def metadata(value: str, name: str = "tag") -> dict[str, Any]:
    """A metadata field of a data row."""
    schema = metadata_schema(name)
    return {"schema_id": schema["id"], "schema_name": name, "schema_kind": schema["kind"], "value": value}


def workflow() -> dict[str, Any]:
    """As the field `config` of a project's workflow."""
    kinds = ("initial_labeling_task", "review_task", "done")
    edges = [{"id": f"edge-{n}", "source": f"node-{n}", "target": f"node-{n + 1}"} for n in range(len(kinds) - 1)]
    return {"nodes": [{"id": f"node-{n}", "type": kind, "data": {"label": kind}} for n, kind in enumerate(kinds)], "edges": edges}


def png(mask: str) -> bytes:
    """A small picture of its own for each mask."""
    color = zlib.crc32(mask.encode())
    pixels = b"".join(b"\0" + bytes((color >> 16 & 255, color >> 8 & 255, color & 255)) * 4 for _ in range(4))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
