"""What a Labelbox row and a Label Studio task say of themselves: id, times, counts.

Pure. Shapes: Labelbox export v2, `{"data_row": {"id", "details": {"last_activity_at"}}, "projects": {...}}`; Label Studio's JSON export and API,
`{"id", "data", "created_at", "updated_at", "annotations", "predictions"}`. Refuses to guess: what is not there, or is not what it should be, is None.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from syncd.clock import parse_time
from syncd.model import Counts


def task_id(body: Mapping[str, object]) -> str | None:
    """`id`, an integer of any size or a text, else `data_row.id`."""
    found = body.get("id")
    if isinstance(found, orjson.Fragment):  # more than 64 bits, or a decimal that is no id
        found = orjson.dumps(found).decode()
        return found if found.lstrip("-").isdigit() else None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if found is None:
        found = part(body, "data_row").get("id")
    return found if isinstance(found, str) and found else None


def last_activity(body: Mapping[str, object]) -> int | None:
    """Microseconds: `updated_at`, else `data_row.details.last_activity_at` (in an export only if its details were asked for)."""
    stated = moment(body.get("updated_at"))
    return stated if stated is not None else moment(part(part(body, "data_row"), "details").get("last_activity_at"))


def created_at(body: Mapping[str, object]) -> int:
    """Microseconds; 0 unless it is a Label Studio task with its `data`, whose server reuses ids.

    Label Studio's flat exports name the annotation's time so, and Labelbox, which never reuses an id, names one only in some exports.
    """
    return (moment(body.get("created_at")) or 0) if isinstance(body.get("data"), dict) else 0


def counts(body: Mapping[str, object]) -> Counts:
    """One task with its annotations and predictions, where it lists them; Labelbox' labels of all projects are annotations, too."""
    annotations, predictions = body.get("annotations"), body.get("predictions")
    labels = sum(_length(part(projects, name).get("labels")) for name in projects) if (projects := part(body, "projects")) else 0
    return Counts(1, _length(annotations) + labels, _length(predictions))


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def part(body: Mapping[str, object], name: str) -> Mapping[str, object]:
    """An object in an object; empty when there is none."""
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def moment(value: object) -> int | None:
    """Microseconds of a time as either of them writes it; None when it is none."""
    try:
        return parse_time(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
