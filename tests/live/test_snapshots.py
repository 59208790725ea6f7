"""A first Run by snapshots against the real server: each TaskFile is, byte by byte, the one that the task list's way writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncd.sources import label_studio_snapshot as snapshots
from syncd.sources.label_studio_snapshot import TITLE
from tests.live.backup import HOSTILE, Backup
from tests.live.event_table import seed
from tests.live.server import LabelStudio, Project, box, sample

pytestmark = pytest.mark.live

VIDEO = """<View><Video name="video" value="$video"/><VideoRectangle name="track" toName="video"/><Labels name="label" toName="video">
<Label value="Cat"/></Labels></View>"""

VALUES: dict[str, Any] = {
    "rectanglelabels": {"x": 1 / 3, "y": 5e-07, "width": 30, "height": 40.5, "rotation": 0, "rectanglelabels": ["Cat"]},
    "polygonlabels": {"points": [[0.1, 2], [3.5, 99.99999999999999], [7, 8]], "closed": True, "polygonlabels": ["Cat"]},
    "keypointlabels": {"x": 12.5, "y": 1, "width": 0.3, "keypointlabels": ["Cat"]},
    "brushlabels": {"format": "rle", "rle": [0, 1, 255, 16, 97], "brushlabels": ["Cat"]},
    "ellipselabels": {"x": 1, "y": 2, "radiusX": 3.25, "radiusY": 1e-7, "rotation": 12, "ellipselabels": ["Cat"]},
    "labels": {"start": 0, "end": 3, "text": "\U0001f600 \u05e9\u05dc", "labels": ["PER"]},
    "choices": {"choices": ["good"]},
    "taxonomy": {"taxonomy": [["a"], ["a", "b"]]},
    "textarea": {"text": ["one\ntwo", "", "\u2028"]},
    "rating": {"rating": 4},
    "number": {"number": 12345678901234567890},
    "datetime": {"datetime": "2024-02-29"},
    "videorectangle": {
        "framesCount": 90,
        "duration": 3.003,
        "sequence": [{"frame": f, "enabled": True, "rotation": 0, "x": f / 7, "y": 1, "width": 2, "height": 3, "time": f / 30} for f in (1, 30, 90)],
        "labels": ["Cat"],
    },
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several snapshots of a project of a few tasks, whatever their kinds."""
    monkeypatch.setattr(snapshots, "LARGEST", 12)
    monkeypatch.setattr(snapshots, "SMALLEST", 2)
    monkeypatch.setattr(snapshots, "ODD", 1.0)


def region(kind: str) -> dict[str, Any]:
    where = ("track", "video") if kind == "videorectangle" else ("label", "image")
    size = {"original_width": 640, "original_height": 480}
    return {"id": kind[:3], "type": kind, "from_name": where[0], "to_name": where[1], **size, "value": VALUES[kind]}


def seed_pictures(server: LabelStudio, project: Project) -> None:
    """Annotations of every kind that Label Studio has, tasks in every state, by several people."""
    people = [server.api.user(f"{name}{project.id}@example.com", name.title(), "Lee") for name in ("bob", "cho")]
    regions = [region(kind) for kind in VALUES if kind != "videorectangle"]
    plain = {"image": "https://images.example.com/1.jpg"}
    project.add([{"data": {**plain, "n": n}} for n in range(25)])  # the list's own first page
    kinds: list[dict[str, Any]] = [{"data": {**plain, "kind": r["type"]}, "annotations": [{"result": [r], "lead_time": 1.25}]} for r in regions]
    odd: list[dict[str, Any]] = [
        {"data": plain, "predictions": [{"result": [box()], "score": 1 / 3, "model_version": "m1"}, {"result": [], "score": None}]},
        {"data": HOSTILE, "meta": HOSTILE, "annotations": [{"result": [box() | {"meta": HOSTILE}]}]},
        {"data": {**plain, "text": "x" * 70_000}},
        {
            "data": plain,
            "annotations": [
                {"result": [box()], "completed_by": person, "ground_truth": n == 1, "was_cancelled": n == 2}  # three by two people
                for n, person in enumerate([*people, people[0]])
            ],
        },
    ]
    ids = project.add([*kinds, *odd, *(sample(n, annotations=n % 3, predictions=n % 2) for n in range(9))])
    seed(project)
    project.annotate(ids[0], was_cancelled=True)
    project.annotate(ids[1], ground_truth=True, result=[])
    project.predict(ids[2])
    project.draft(ids[3])
    for number, change in ((4, {"meta": {"a": 1}}), (5, {"is_labeled": True, "total_annotations": 7}), (6, {"overlap": 3})):
        server.api.patch(f"/api/tasks/{ids[number]}/", change)
    server.api.post(f"/api/annotations/{project.task(ids[7])['annotations'][0]['id']}/convert-to-draft")
    uploaded = {"file": ("tasks.json", b'[{"image": "https://images.example.com/9.jpg"}]')}
    assert server.api.http.post(f"/api/projects/{project.id}/import", files=uploaded).status_code == 201


def seed_videos(project: Project) -> None:
    """Key frames, which a snapshot fills up unless told not to."""
    project.change(label_config=VIDEO)
    project.add([{"data": {"video": f"https://example.com/{n}.mp4"}, "annotations": [{"result": [region("videorectangle")]}]} for n in range(40)])


def files(backup: Backup, project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (backup.folder / str(project.id)).glob("[0-9]*.json")}


def both_ways(server: LabelStudio, projects: list[Project], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Asserts that two first Runs, by the list and by snapshots alone, write the same bytes, and that nothing is left at the server."""
    ids = [project.id for project in projects]
    plain, fast = Backup(folder / "list", server, projects=ids), Backup(folder / "auto", server, source={"bulk": "auto"}, projects=ids)
    slow = plain.run()
    with caplog.at_level("INFO", "syncd.label_studio"):
        quick = fast.run()
    assert [record.getMessage() for record in caplog.records if "snapshots" in record.getMessage()] == []
    assert (slow.written, slow.failed) == (quick.written, quick.failed)
    for each in projects:
        expected, found = files(plain, each), files(fast, each)
        assert len(expected) == len(each.ids())
        assert {name for name in expected | found if expected.get(name) != found.get(name)} == set()
        left = server.api.get(f"/api/projects/{each.id}/exports/"), server.api.get("/api/dm/views/", project=each.id)
        assert [one for one in (*left[0], *left[1]) if TITLE in str(one)] == []
    assert fast.run(full=True).written == 0


def test_every_kind_of_task_is_byte_by_byte_what_the_list_gives(
    server: LabelStudio, project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = server.api.project("videos")
    seed_pictures(server, project)
    seed_videos(videos)
    both_ways(server, [project, videos], tmp_path, caplog)
    videos.remove()


def test_the_order_in_which_postgresql_finds_rows_makes_no_difference(
    pair: tuple[LabelStudio, LabelStudio], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, _ = pair
    project = server.api.project("edited")
    for task in project.add([sample(n, annotations=3, predictions=2) for n in range(50)])[::4]:
        parts = project.task(task)
        server.api.patch(f"/api/annotations/{parts['annotations'][0]['id']}/", {"result": [box("Dog")]})
        server.api.patch(f"/api/predictions/{parts['predictions'][0]['id']}/", {"score": 0.75})
    both_ways(server, [project], tmp_path, caplog)
    project.remove()
