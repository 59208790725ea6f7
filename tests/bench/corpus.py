"""Label Studio tasks as its own JSON export writes them, about 2 KB each, the same for the same number; written one per file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

WRITTEN_AT = 1_711_929_600  # 1 April 2024: exports are older than the overlap of the Run that reads them


def write(folder: Path, count: int) -> Path:
    """Write `<folder>/cats/<id>.json` for ids 1 to count; returns the folder. Never holds more than one task."""
    inside = folder / "cats"
    inside.mkdir(parents=True)
    for number in range(1, count + 1):
        path = inside / f"{number}.json"
        path.write_bytes(json.dumps(task(number)).encode())
        os.utime(path, (WRITTEN_AT, WRITTEN_AT))
    return folder


def export(folder: Path, count: int, data: str | None = None) -> Path:
    """Write `<folder>/cats/export.json`, one array of so many tasks that differ by their id; data: an image's text. Returns the folder."""
    (folder / "cats").mkdir(parents=True)
    content = task(1)
    if data:
        content["data"] = {"image": data}
    middle = json.dumps(content).removeprefix('{"id": 1')
    with (folder / "cats/export.json").open("w") as file:
        for number in range(1, count + 1):
            file.write(f'{"[" if number == 1 else ","}{{"id": {number}{middle}')
        file.write("]")
    os.utime(folder / "cats/export.json", (WRITTEN_AT, WRITTEN_AT))
    return folder


def task(number: int) -> dict[str, object]:
    random = Random(number)
    at = f"2024-03-{number % 28 + 1:02}T10:{number % 60:02}:{number // 60 % 60:02}.{random.randrange(10**6):06}Z"
    return {
        "id": number,
        "annotations": [
            {
                "id": number * 7,
                "completed_by": random.randrange(1, 40),
                "result": [_region(random) for _ in range(4)],
                "was_cancelled": False,
                "ground_truth": number % 50 == 0,
                "created_at": at,
                "updated_at": at,
                "lead_time": random.uniform(2, 90),
                "prediction": {},
                "result_count": 4,
                "unique_id": f"{random.getrandbits(128):032x}",
                "task": number,
                "project": 1,
                "updated_by": 1,
                "parent_prediction": None,
                "parent_annotation": None,
            }
        ],
        "file_upload": None,
        "drafts": [],
        "predictions": [],
        "data": {
            "image": f"s3://pictures/cats/{random.getrandbits(64):016x}.jpg",
            "caption": "Two cats asleep on a wall, late in the day",
            "batch": number // 500,
        },
        "meta": {},
        "created_at": at,
        "updated_at": at,
        "inner_id": number,
        "total_annotations": 1,
        "cancelled_annotations": 0,
        "total_predictions": 0,
        "comment_count": 0,
        "unresolved_comment_count": 0,
        "last_comment_updated_at": None,
        "project": 1,
        "updated_by": 1,
        "comment_authors": [],
    }


def _region(random: Random) -> dict[str, object]:
    value = {side: random.uniform(0, 50) for side in ("x", "y", "width", "height")}
    return {
        "original_width": 1920,
        "original_height": 1080,
        "image_rotation": 0,
        "value": {**value, "rotation": 0, "rectanglelabels": [random.choice(["Cat", "Dog", "Somebody else"])]},
        "id": f"{random.getrandbits(50):x}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "origin": "manual",
    }
