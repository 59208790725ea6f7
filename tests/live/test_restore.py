"""The restore drill: a backup of a real Label Studio into an empty one, which backed up again is the same but for what no import takes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from syncd.upkeep.restore_compare import LOST
from tests.live.backup import HOSTILE, Backup
from tests.live.compare import differences
from tests.live.event_table import seed
from tests.live.server import TOKEN, LabelStudio, Project, box, sample

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def empty() -> Iterator[LabelStudio]:
    """Another server with an empty database, where Bob is a member, too."""
    with LabelStudio() as running:
        running.api.user("bob@example.com", "Bob", "Builder")
        yield running


def everything(server: LabelStudio, project: Project) -> None:
    """All that a task can hold."""
    seed(project)
    bob = server.api.user(f"bob-{project.id}@example.com", "Bob")
    gone = server.api.user(f"gone-{project.id}@example.com", "Gone")
    ids = project.add([{"data": HOSTILE, "meta": HOSTILE, "annotations": [{"result": [box() | {"meta": HOSTILE}]}]}, *(sample(n) for n in range(20))])
    project.annotate(ids[1], completed_by=bob, ground_truth=True, lead_time=12.5)
    project.annotate(ids[1], completed_by=gone, result=[box("Dog")])
    project.annotate(ids[2], was_cancelled=True, completed_by=bob)
    first = project.annotate(ids[3])
    server.api.patch(f"/api/annotations/{first}/", {"ground_truth": True})
    project.draft(ids[3], annotation=first, result=[box("Dog", 3)])
    project.draft(ids[3], result=[box("Cat", 4)], was_postponed=True)
    prediction = project.predict(ids[4], score=0.125, model_version="m7")
    project.annotate(ids[4], parent_prediction=prediction)
    for _ in range(2):
        project.annotate(ids[5], result=[])
    project.change(maximum_annotations=2, expert_instruction="<b>look</b>", show_instruction=True, color="#617ADA", sampling="Uniform sampling")


def restore(backup: Backup, to: LabelStudio, work: Path, people: Mapping[str, str] | None = None) -> list[str | Path]:
    """The command line."""
    token = work.with_suffix(".token")
    token.write_text(TOKEN)
    mapping = work.with_suffix(".people.yaml")
    mapping.write_text(json.dumps(people or {}))
    where: list[str | Path] = ["--to-label-studio", to.url, "--token-file", token, "--work", work, "--map", mapping]
    return [sys.executable, "-m", "syncd", "restore", "live", "--json", "-c", backup.config, *where]


def run(command: list[str | Path]) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2])
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def lasting(tasks: dict[int, Any]) -> list[dict[str, Any]]:
    """Tasks in their order, less the fields that are documented as lost; annotations by e-mail, drafts with the place of their annotation."""
    found = []
    for _, task in sorted(tasks.items()):
        kept = {name: value for name, value in task.items() if name not in LOST["tasks"].split()}
        places = {annotation["id"]: number for number, annotation in enumerate(task["annotations"])}
        for kind in ("annotations", "predictions", "drafts"):
            parts = [{name: value for name, value in part.items() if name not in LOST[kind].split()} for part in task[kind]]
            for part in parts:
                if "completed_by" in part:
                    part["completed_by"] = part["completed_by"]["email"]
                if kind == "drafts":
                    part["annotation"] = places.get(part["annotation"])
            kept[kind] = sorted(parts, key=lambda part: json.dumps(part, default=str)) if kind != "annotations" else parts
        found.append(kept)
    return found


def test_the_drill(server: LabelStudio, project: Project, empty: LabelStudio, tmp_path: Path) -> None:
    everything(server, project)
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    old, gone = f"bob-{project.id}@example.com", f"gone-{project.id}@example.com"

    code, (report,), stderr = run(restore(backup, empty, tmp_path / "work", people={old: "bob@example.com"}))

    assert not report["failed"], "\n".join(map(str, report["failed"]))
    assert (code, stderr) == (0, "")
    assert report["remarks"] == {f"annotations of {old} are by bob@example.com now": 2, f"annotations of {gone} are by ann@example.com now": 1}
    new = int(report["new_project"])
    again = Backup(tmp_path / "again", empty, projects=[new])
    again.run()
    first, second = lasting(backup.tasks(project.id)), lasting(again.tasks(new))
    people = json.dumps(first, default=str).replace(old, "bob@example.com").replace(gone, "ann@example.com")
    assert not list(differences(json.loads(people), json.loads(json.dumps(second, default=str))))
    assert len(second) == 35
    told, now = backup.settings(project.id), again.settings(new)
    changed = {name for name in told if told[name] != now.get(name)}
    assert changed <= {"id", "created_at", "organization", "pinned_at"}, changed
    ids = [json.loads(line) for line in (tmp_path / "work" / "ids.ndjson").read_text().splitlines()]
    assert {int(line["task"]) for line in ids} == set(backup.tasks(project.id))
    assert {int(line["new_task"]) for line in ids} == set(again.tasks(new))

    code, (report,), _ = run(restore(backup, empty, tmp_path / "work", people={old: "bob@example.com"}))  # a second try
    assert (code, report["failed"], int(report["new_project"])) == (0, [], new)
    assert len(Project(empty.api, new).ids()) == 35


KINDS = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="box" toName="image"><Label value="Cat" background="red"/></RectangleLabels>
  <PolygonLabels name="polygon" toName="image"><Label value="Cat"/></PolygonLabels>
  <KeyPointLabels name="point" toName="image"><Label value="Eye"/></KeyPointLabels>
  <EllipseLabels name="ellipse" toName="image"><Label value="Cat"/></EllipseLabels>
  <BrushLabels name="brush" toName="image"><Label value="Sky"/></BrushLabels>
  <Choices name="mood" toName="image" choice="multiple"><Choice value="good"/><Choice value="bad"/></Choices>
  <Taxonomy name="tree" toName="image"><Choice value="Animal"><Choice value="Cat"/></Choice></Taxonomy>
  <Rating name="stars" toName="image"/>
  <Number name="count" toName="image"/>
  <DateTime name="when" toName="image" only="date"/>
  <TextArea name="notes" toName="image" perRegion="true"/>
  <Relations><Relation value="near"/></Relations>
</View>"""


def every_kind() -> list[dict[str, Any]]:
    """A result of each kind, as Label Studio's own page makes them."""

    def region(name: str, kind: str, **value: Any) -> dict[str, Any]:
        size = {"original_width": 640, "original_height": 480, "image_rotation": 0}
        return {"id": f"r-{name}", "from_name": name, "to_name": "image", "type": kind, "origin": "manual", "value": value} | size

    return [
        region("box", "rectanglelabels", x=1.5, y=2, width=3, height=4, rotation=12.25, rectanglelabels=["Cat"]),
        region("polygon", "polygonlabels", points=[[1, 2], [3.5, 4], [5, 6.125]], closed=True, polygonlabels=["Cat"]),
        region("point", "keypointlabels", x=10, y=20, width=0.3, keypointlabels=["Eye"]),
        region("ellipse", "ellipselabels", x=10, y=20, radiusX=3, radiusY=4.5, rotation=0, ellipselabels=["Cat"]),
        region("brush", "brushlabels", format="rle", rle=[0, 0, 255, 16, 3], brushlabels=["Sky"]),
        region("mood", "choices", choices=["good", "bad"]),
        region("tree", "taxonomy", taxonomy=[["Animal", "Cat"]]),
        region("stars", "rating", rating=4),
        region("count", "number", number=2.5),
        region("when", "datetime", datetime="2026-11-20"),
        region("notes", "textarea", text=["a\u2028b", "\U0001f600"]) | {"id": "r-box"},
        {"type": "relation", "from_id": "r-box", "to_id": "r-polygon", "direction": "right", "labels": ["near"]},
    ]


def test_every_kind_of_result_comes_back(server: LabelStudio, empty: LabelStudio, tmp_path: Path) -> None:
    made = server.api.post("/api/projects/", {"title": "Every kind", "label_config": KINDS, "description": "every kind", "show_skip_button": False})
    project, result = Project(server.api, int(made["id"])), every_kind()
    prediction = {"result": result, "score": 0.25, "model_version": "m1"}
    ids = project.add([{"data": {"image": "https://x/1.jpg"}, "annotations": [{"result": result}], "predictions": [prediction]} for _ in range(3)])
    project.draft(ids[0], result=result)
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    code, (report,), stderr = run(restore(backup, empty, tmp_path / "work"))
    assert not report["failed"], "\n".join(map(str, report["failed"]))
    assert (code, stderr) == (0, "")
    again = Backup(tmp_path / "again", empty, projects=[int(report["new_project"])])
    again.run()
    assert not list(differences(lasting(backup.tasks(project.id)), lasting(again.tasks(int(report["new_project"])))))
    project.remove()


def test_the_list_of_a_folder_is_what_its_own_page_imports(server: LabelStudio, project: Project, empty: LabelStudio, tmp_path: Path) -> None:
    """As a file that somebody uploads."""
    seed(project)
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    out = tmp_path / "out"
    code, (report,), _ = run([sys.executable, "-m", "syncd", "restore", "live", "--json", "-c", backup.config, "--to-folder", out])
    assert (code, report["tasks"]) == (0, 14)
    fresh = empty.api.project("Uploaded")
    with (out / str(project.id) / "tasks.json").open("rb") as file:
        answer = empty.api.http.post(f"/api/projects/{fresh.id}/import", files={"file": ("tasks.json", file, "application/json")})
    assert answer.status_code == 201, answer.text[:500]
    told = answer.json()
    assert (told["task_count"], told["annotation_count"], told["prediction_count"]) == (14, 10, 2)
    assert [task["data"] for task in fresh.tasks()] == [task["data"] for task in project.tasks()]
    fresh.remove()


def test_killed_on_the_way_nothing_is_there_twice(server: LabelStudio, project: Project, empty: LabelStudio, tmp_path: Path) -> None:
    """Kills at moments of which each is likely to be in another phase; the first ones come while the server is busy with what was sent."""
    ids = project.add([sample(n, annotations=1 + n % 2, predictions=n % 2, filling="x" * 200) for n in range(4000)])
    for task in ids[::100]:
        project.draft(task)
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    before = len(empty.api.get("/api/projects/", page_size=100)["results"])
    command, chance = restore(backup, empty, tmp_path / "work"), random.Random(5)
    journal = tmp_path / "work" / "0.journal.ndjson"
    for more in (1, 1, 2, 2, 3):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
        while child.poll() is None and (journal.read_bytes().count(b"\n") if journal.exists() else 0) < lines + more:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.25)
        child.kill()
        _, stderr = child.communicate()
        assert child.returncode == -signal.SIGKILL, f"it ended before it was killed: {stderr}"
    code, (report,), stderr = run(command)
    assert not report["failed"], "\n".join(map(str, report["failed"]))
    assert (code, stderr) == (0, "")
    restored = Project(empty.api, int(report["new_project"]))
    tasks = restored.tasks()
    assert [task["data"] for task in tasks] == [task["data"] for task in project.tasks()]
    assert sum(len(task["drafts"]) for task in tasks) == len(ids[::100])
    assert sum(len(task["annotations"]) for task in tasks) == 6000
    assert len(empty.api.get("/api/projects/", page_size=100)["results"]) == before + 1
