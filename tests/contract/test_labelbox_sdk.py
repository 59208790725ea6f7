"""The vendor's own SDK takes the stand-in for Labelbox: every way to export, with params and filters, without complaint. So what syncd reads there is
what the SDK would have read.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labelbox
import pytest
from labelbox.schema.export_task import ExportTask
from lbox import exceptions

from syncd.sources.labelbox import Config
from syncd.sources.labelbox import open as source_of
from tests.fakes.follower import Follower
from tests.fakes.labelbox import Labelbox
from tests.fakes.labelbox_faults import ends, invalid_key, lost, numbers_as_strings, rate_limited, refused
from tests.fakes.labelbox_payloads import audio, image, masked, metadata, skipped, text, video
from tests.fakes.labelbox_world import Batch, Dataset, ModelRun, Project, Slice
from tests.fakes.rig import TestClock

NOON = 1_700_049_600_000_000  # 2023-11-15 12:00:00 UTC, 07:00 in New York
HOUR = 3_600_000_000
EVERYTHING = {
    "attachments": True,
    "metadata_fields": True,
    "data_row_details": True,
    "project_details": True,
    "label_details": True,
    "performance_details": True,
    "interpolated_frames": True,
}


@dataclass
class Scene:
    """Two projects that share a data row, two datasets, a slice and a model run; one data row an hour, from noon on."""

    box: Labelbox
    sdk: labelbox.Client
    cats: Project
    dogs: Project
    home: Dataset
    other: Dataset
    slice: Slice
    run: ModelRun
    batch: Batch
    ids: list[str]
    now: int = NOON

    def tick(self, hours: float = 1) -> None:
        self.now += int(hours * HOUR)


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture) -> Iterator[Scene]:
    with Labelbox() as box:
        box.clock = lambda: NOON
        cats, dogs, home, other = box.project("Cats"), box.project("Dogs", "VIDEO"), box.dataset("Home"), box.dataset("Other")
        chosen = box.slice("Keyed", lambda state: state.global_key is not None)
        sdk = labelbox.Client(box.key, endpoint=box.url, rest_endpoint=box.url.replace("/graphql", "/api/v1"))
        made = Scene(box, sdk, cats, dogs, home, other, chosen, box.model_run("Run 1"), cats.batch("batch 1"), [])
        box.clock = lambda: made.now
        specs: list[dict[str, Any]] = [
            {"labels": [image()], "global_key": "key-0"},
            {"labels": [audio(), text()], "attachments": [{"type": "TEXT", "value": "seen twice"}]},
            {"labels": [masked("m1")], "metadata_fields": [metadata("new")]},
            {"labels": [skipped()], "status": "IN_REVIEW"},
            {"external_id": "ü \u2028 }{ \\n", "global_key": "key-4"},
        ]
        for spec in specs:
            made.ids += cats.add(spec, dataset=home)
            made.tick()
        made.ids += dogs.add({"labels": [video()]}, dataset=other)
        dogs.join(made.ids[0])
        made.run.put(made.ids[0], labels=[image()], predictions=[image("perhaps a cat")], split="TEST")
        yield made
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("labelbox", "lbox"))] == []


def export(task: ExportTask) -> list[dict[str, Any]]:
    """What a user of the SDK gets, as the documents show it."""
    task.wait_till_done()
    assert task.status == "COMPLETE"
    assert not task.has_errors()
    if not task.has_result():
        return []
    rows = [output.json for output in task.get_buffered_stream()]
    assert task.get_total_lines(labelbox.StreamType.RESULT) == len(rows)
    return rows


def ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(row["data_row"]["id"] for row in rows)


def read(scene: Scene, kind: str, id_: str, folder: Path) -> dict[str, Any]:
    """What syncd reads of a Collection: bodies by id."""
    fields = {"type": "labelbox", "url": scene.box.url, "api_key": scene.box.key, "export": {"interpolated_frames": True}}
    source = source_of(Config.model_validate(fields), {kind: [id_]}, TestClock())
    (collection,) = source.collections()
    follower = Follower(source, folder / collection.id.replace("/", "-"), collection)
    assert follower.run().failed == []
    follower.close()
    source.close()
    return follower.files


def by_id(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    assert len(rows) == len(set(ids(rows)))
    return {row["data_row"]["id"]: row for row in rows}


def still(bodies: Mapping[str, Any]) -> Any:
    """Without what differs from export to export: the task's id in the addresses of masks."""
    return json.loads(re.sub(r"/tasks/[^/]+/masks/", "/tasks/*/masks/", json.dumps(bodies)))


def labels(rows: Sequence[Mapping[str, Any]], project: Project) -> dict[str, Any]:
    return {row["data_row"]["id"]: row["projects"][project.id]["labels"] for row in rows if project.id in row["projects"]}


def test_a_project_is_exported_whole(scene: Scene) -> None:
    rows = export(scene.sdk.get_project(scene.cats.id).export(params=EVERYTHING))
    assert ids(rows) == sorted(scene.ids[:5])
    assert {row["data_row"]["id"]: row["data_row"].get("global_key") for row in rows} == {
        row: state.global_key for row, state in scene.cats.members()
    }
    found = labels(rows, scene.cats)
    for row, state in scene.cats.members():
        if row != scene.ids[2]:
            assert found[row] == state.members[scene.cats.id].labels


@pytest.mark.parametrize("cut", [False, True])
def test_syncd_and_the_sdk_agree_on_every_row(scene: Scene, tmp_path: Path, cut: bool) -> None:
    if cut:
        scene.box.files.chunk_size = 7001
        scene.box.silent(scene.ids[4], external_id="no more than ASCII: the SDK spoils a character that is cut")
    scene.cats.virtual = 20
    sdk, details = scene.sdk, {"predictions": True, "model_run_details": True}
    exports = {
        ("projects", scene.cats.id): sdk.get_project(scene.cats.id).export(params=EVERYTHING),
        ("projects", scene.dogs.id): sdk.get_project(scene.dogs.id).export(params=EVERYTHING),
        ("datasets", scene.home.id): sdk.get_dataset(scene.home.id).export(params={**EVERYTHING, "all_projects": True}),
        ("slices", scene.slice.id): sdk.get_catalog_slice(scene.slice.id).export(params={**EVERYTHING, "all_projects": True}),
        ("model_runs", scene.run.id): sdk.get_model_run(scene.run.id).export(params={**EVERYTHING, **details}),
    }
    for (kind, id_), task in exports.items():
        rows = by_id(export(task))
        assert rows
        assert still(read(scene, kind, id_, tmp_path)) == still(rows), kind


def test_masks_name_the_export_they_stand_in(scene: Scene) -> None:
    project = scene.sdk.get_project(scene.cats.id)
    tasks = [project.export(filters={"data_row_ids": [scene.ids[2]]}) for _ in range(2)]
    first, second = (export(task)[0]["projects"][scene.cats.id]["labels"][0]["annotations"]["objects"][0]["composite_mask"]["url"] for task in tasks)
    assert first != second
    assert first.replace(tasks[0].uid, "") == second.replace(tasks[1].uid, "")


def test_params_decide_which_parts_a_row_has(scene: Scene) -> None:
    def parts(**params: Any) -> tuple[set[str], set[str], set[str], set[str]]:
        (row,) = export(scene.sdk.get_project(scene.cats.id).export(params=params, filters={"data_row_ids": [scene.ids[0]]}))
        (project,) = row["projects"].values()
        return set(row), set(row["data_row"]), set(project), set(project["labels"][0])

    row, data_row = {"data_row", "media_attributes", "projects"}, {"id", "global_key", "row_data"}
    project, label = {"name", "labels", "project_tags"}, {"label_kind", "version", "id", "annotations"}
    assert parts() == (row, data_row, project, label)
    assert parts(attachments=True) == (row | {"attachments"}, data_row, project, label)
    assert parts(metadata_fields=True, embeddings=True) == (row | {"metadata_fields", "embeddings"}, data_row, project, label)
    assert parts(data_row_details=True, project_details=True) == (row, data_row | {"details"}, project | {"project_details"}, label)
    assert parts(label_details=True, performance_details=True) == (row, data_row, project, label | {"label_details", "performance_details"})


def test_frames_between_key_frames_are_there_only_when_asked_for(scene: Scene) -> None:
    def frames(*, interpolated: bool) -> set[str]:
        (row,) = export(
            scene.sdk.get_project(scene.dogs.id).export(params={"interpolated_frames": interpolated}, filters={"data_row_ids": [scene.ids[5]]})
        )
        return set(row["projects"][scene.dogs.id]["labels"][0]["annotations"]["frames"])

    assert frames(interpolated=False) == {"1", "5"}
    assert frames(interpolated=True) == {"1", "2", "3", "4", "5"}


def test_a_dataset_shows_labels_only_of_the_projects_asked_for(scene: Scene) -> None:
    home = scene.sdk.get_dataset(scene.home.id)
    assert home.row_count == 5
    bare = export(home.export())
    assert ids(bare) == sorted(scene.ids[:5])
    assert not any("projects" in row or "experiments" in row for row in bare)
    dogs = export(home.export(params={"project_ids": [scene.dogs.id]}))
    assert ids(dogs) == sorted(scene.ids[:5])
    assert set(labels(dogs, scene.dogs)) == {scene.ids[0]}
    assert labels(dogs, scene.cats) == {}
    everything = export(home.export(params={"all_projects": True, "all_model_runs": True, "predictions": True, **EVERYTHING}))
    assert set(labels(everything, scene.cats)) == set(scene.ids[:5])
    experiment = next(row["experiments"] for row in everything if row["experiments"])[scene.run.model_id]
    assert experiment["runs"][scene.run.id]["predictions"][0]["annotations"]["classifications"][0]["text_answer"]["content"] == "perhaps a cat"


def test_a_slice_a_catalog_and_single_rows(scene: Scene) -> None:
    found = scene.sdk.get_catalog_slice(scene.slice.id)
    assert ids(export(found.export(params={"all_projects": True}))) == sorted([scene.ids[0], scene.ids[4]])
    assert sorted(each.id.key for each in found.get_data_row_identifiers()) == sorted([scene.ids[0], scene.ids[4]])
    assert [each.name for each in scene.sdk.get_catalog_slices()] == ["Keyed"]
    assert ids(export(scene.sdk.get_catalog().export())) == sorted(scene.ids)
    assert ids(export(labelbox.DataRow.export(scene.sdk, data_rows=scene.ids[:2], params={"all_projects": True}))) == sorted(scene.ids[:2])
    assert sorted(row.uid for row in scene.sdk.get_dataset(scene.home.id).data_rows()) == sorted(scene.ids[:5])


def test_a_model_run(scene: Scene) -> None:
    run = scene.sdk.get_model_run(scene.run.id)
    (row,) = export(run.export(params={"predictions": True, "model_run_details": True, "data_row_details": True}))
    shape = row["experiments"][scene.run.model_id]["runs"][scene.run.id]
    held = scene.box.state(scene.ids[0]).runs[scene.run.id]
    assert (shape["labels"], shape["predictions"], shape["split"]) == (held.labels, held.predictions, "TEST")
    (row,) = export(run.export())
    assert set(row["experiments"][scene.run.model_id]["runs"][scene.run.id]) == {"name", "run_data_row_id", "labels"}
    (model,) = scene.sdk.get_models()
    assert [each.uid for each in model.model_runs()] == [scene.run.id]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"last_activity_at": ["2023-11-15T13:00:00+0000", "2023-11-15T15:00:00+0000"]}, [1, 2, 3]),  # both ends count
        ({"last_activity_at": ["2023-11-15T15:00:01+0000", None]}, [0, 4]),  # 0 was sent to the other project at the end
        ({"last_activity_at": [None, "2023-11-15T14:00:00+0000"]}, [1, 2]),
        ({"last_activity_at": ["2023-11-15 08:00:00", "2023-11-15 09:00:00"]}, [1, 2]),  # in the time zone of the key's owner
        ({"last_activity_at": ["2023-11-16", None]}, []),
        ({"last_activity_at": ["2023-11-15T18:30:00+0530", None]}, []),  # the SDK drops the offset: this should have been 13:00
        ({"label_created_at": ["2023-11-15T12:00:00+0000", "2023-11-15T13:59:59+0000"]}, [0, 1]),
        ({"data_row_ids": [0, 3, "unknown"]}, [0, 3]),
        ({"global_keys": ["key-4", "unknown"]}, [4]),
        ({"batch_ids": ["unknown"]}, []),
        ({"workflow_status": "Done"}, [0, 1, 2]),
        ({"workflow_status": "InReview"}, [3]),
        ({"workflow_status": "ToLabel"}, [4]),
        ({"workflow_status": "Done", "data_row_ids": [0, 4]}, [0]),  # all of them must agree
    ],
)
def test_filters(scene: Scene, filters: dict[str, Any], expected: list[int]) -> None:
    asked = {name: [scene.ids[each] if isinstance(each, int) else each for each in value] for name, value in filters.items() if name.endswith("ids")}
    rows = export(scene.sdk.get_project(scene.cats.id).export(filters=filters | asked))
    assert ids(rows) == sorted(scene.ids[place] for place in expected)


def test_a_batch_is_a_filter_too(scene: Scene) -> None:
    project = scene.sdk.get_project(scene.cats.id)
    (new,) = scene.cats.add({}, dataset=scene.home, batch=scene.cats.batch("batch 2"))
    first, second = project.batches()
    assert (first.size, second.size) == (5, 1)
    assert ids(export(project.export(filters={"batch_ids": [second.uid]}))) == [new]


def test_the_older_way_to_export(scene: Scene) -> None:
    with pytest.warns(DeprecationWarning, match="export_v2"):
        task = scene.sdk.get_project(scene.cats.id).export_v2(params=EVERYTHING)
    assert ids(task.result) == sorted(scene.ids[:5])
    assert task.errors is None
    with pytest.warns(DeprecationWarning, match="export_v2"):
        assert len(scene.sdk.get_model_run(scene.run.id).export_v2().result) == 1


def test_files_that_end_in_the_middle_of_a_line(scene: Scene) -> None:
    scene.box.files.chunk_size = 333
    scene.box.silent(scene.ids[4], external_id="no more than ASCII: the SDK spoils a character that is cut")
    assert ids(export(scene.sdk.get_project(scene.cats.id).export(params=EVERYTHING))) == sorted(scene.ids[:5])
    assert scene.box.count("file") > 20


def test_rows_made_from_their_number(scene: Scene) -> None:
    scene.cats.virtual = 500
    rows = export(scene.sdk.get_project(scene.cats.id).export(params=EVERYTHING))
    assert len(set(ids(rows))) == len(rows) == 505
    assert scene.sdk.get_project(scene.cats.id).data_row_count == 505


def test_what_cannot_be_exported_is_on_the_other_stream(scene: Scene) -> None:
    scene.box.broken.add(scene.ids[3])
    task = scene.sdk.get_project(scene.cats.id).export()
    task.wait_till_done()
    assert task.has_errors()
    assert ids([output.json for output in task.get_buffered_stream()]) == sorted({*scene.ids[:5]} - {scene.ids[3]})
    (error,) = [output.json for output in task.get_buffered_stream(labelbox.StreamType.ERRORS)]
    assert error["data_row_id"] == scene.ids[3]


def test_an_export_that_takes_its_time_and_one_picked_up_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    scene.box.exports.polls = 3
    task = scene.sdk.get_project(scene.cats.id).export()
    assert task.status == "IN_PROGRESS"
    with pytest.raises(ExportTask.ExportTaskException, match="not ready"):
        task.has_result()
    assert len(export(task)) == 5
    assert len([each for each in waits if each]) == 3
    assert len(export(ExportTask.get_task(scene.sdk, task.uid))) == 5


def test_an_export_is_canceled(scene: Scene) -> None:
    scene.box.exports.polls = 99
    task = scene.sdk.get_project(scene.cats.id).export()
    assert scene.sdk.cancel_task(task.uid)
    assert ExportTask.get_task(scene.sdk, task.uid).status == "CANCELED"


def test_failures_are_the_sdks_own(scene: Scene) -> None:
    scene.box.plan_export(ends("FAILED"))
    with pytest.raises(ExportTask.ExportTaskException, match="failed"):
        scene.sdk.get_project(scene.cats.id).export().has_result()
    for fault, error in (
        (invalid_key, exceptions.AuthenticationError),
        (refused("AUTHORIZATION_ERROR"), exceptions.AuthorizationError),
        (rate_limited("3"), exceptions.ApiLimitError),
        (refused("MALFORMED_REQUEST"), exceptions.MalformedQueryException),
    ):
        scene.box.plan("projects", fault)
        with pytest.raises(error):
            list(scene.sdk.get_projects())
    for find in (scene.sdk.get_project, scene.sdk.get_dataset, scene.sdk.get_data_row, scene.sdk.get_model_run, scene.sdk.get_catalog_slice):
        with pytest.raises(exceptions.ResourceNotFoundError):
            find("nobody")
    with pytest.raises(exceptions.AuthenticationError):
        labelbox.Client("another key", endpoint=scene.box.url).get_user()


def test_too_many_exports_at_a_time_are_refused(scene: Scene) -> None:
    others = scene.box.exports.occupy(scene.cats.id, 10)
    project = scene.sdk.get_project(scene.cats.id)
    with pytest.raises(exceptions.OperationNotAllowedException):
        project.export()
    assert len(export(scene.sdk.get_dataset(scene.home.id).export())) == 5
    others[0].polls = 0
    assert len(export(project.export())) == 5


def test_a_mutation_that_took_effect_is_sent_again(scene: Scene) -> None:
    """The SDK starts a second export when the answer to the first is lost; a client can do better."""
    project = scene.sdk.get_project(scene.cats.id)
    scene.box.plan("exportDataRowsInProject", lost())
    assert len(export(project.export())) == 5
    assert len(scene.box.exports.tasks) == 2


def test_numbers_may_come_as_strings(scene: Scene) -> None:
    scene.box.plan("exportMetadataHeader", numbers_as_strings, times=2)
    scene.box.plan("exportFileFromOffset", numbers_as_strings)
    assert len(export(scene.sdk.get_project(scene.cats.id).export())) == 5


def test_listings_and_settings(scene: Scene) -> None:
    for number in range(200):
        scene.box.project(f"P{number}")
    assert len({project.uid for project in scene.sdk.get_projects()}) == 202
    assert [dataset.name for dataset in scene.sdk.get_datasets()] == ["Home", "Other"]
    project = scene.sdk.get_project(scene.cats.id)
    assert {queue.name: queue.data_row_count for queue in project.task_queues()} == {
        "Initial labeling task": 1,
        "Initial review task": 1,
        "Rework (all rejected)": 0,
        "Done": 3,
    }
    assert project.ontology().normalized == scene.cats.ontology
    assert [tool.name for tool in project.ontology().tools()] == ["cat", "sky", "car"]
    with pytest.warns(UserWarning, match="Workflow"):
        assert project.get_workflow().config == scene.cats.workflow
    assert project.last_activity_time.timestamp() == (scene.now - HOUR) / 1e6
