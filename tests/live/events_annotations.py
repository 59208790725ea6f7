"""Events on annotations, predictions and drafts."""

from __future__ import annotations

from tests.live.event_table import BOTH, DRAFTED, ONE, PLAIN, PREDICTED, SKIPPED, TWO, Still, Table, first, flat
from tests.live.server import LabelStudio, Project, box

event = Table()


# --- annotations ---------------------------------------------------------------------------------------------------------


@event("activity")
def annotation_created(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PLAIN]
    made = project.annotate(task)
    assert first(project, task) == made


@event("activity")
def annotation_changed(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    server.api.patch(f"/api/annotations/{first(project, task)}/", {"result": [box("Dog", 77)]})
    assert project.task(task)["annotations"][0]["result"][0]["value"]["x"] == 77


@event("activity")
def annotation_saved_without_a_change(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    before = project.task(task)
    server.api.patch(f"/api/annotations/{first(project, task)}/", {"result": before["annotations"][0]["result"]})
    assert project.task(task)["updated_at"] > before["updated_at"]


@event("activity")
def annotation_cleared(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    server.api.patch(f"/api/annotations/{first(project, task)}/", {"result": []})
    assert project.task(task)["annotations"][0]["result"] == []


@event("activity")
def ground_truth_moved_to_another_annotation(server: LabelStudio, project: Project) -> None:
    task = project.ids()[TWO]
    annotations = project.task(task)["annotations"]
    for annotation in (*annotations, annotations[0]):
        server.api.patch(f"/api/annotations/{annotation['id']}/", {"ground_truth": True})
    truth = {annotation["id"]: annotation["ground_truth"] for annotation in project.task(task)["annotations"]}
    assert truth == {annotations[0]["id"]: True, annotations[1]["id"]: False}


@event("activity")
def ground_truth_off(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    server.api.patch(f"/api/annotations/{first(project, task)}/", {"ground_truth": False})
    assert project.task(task)["annotations"][0]["ground_truth"] is False


@event("activity")
def annotation_deleted(server: LabelStudio, project: Project) -> None:
    task = project.ids()[TWO]
    server.api.delete(f"/api/annotations/{first(project, task)}/")
    assert len(project.task(task)["annotations"]) == 1


@event("activity")
def task_skipped(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PLAIN]
    project.annotate(task, was_cancelled=True)
    assert flat(project, task)["cancelled_annotations"] == 1


@event("activity")
def annotation_turned_into_a_skip(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    server.api.patch(f"/api/annotations/{first(project, task)}/", {"was_cancelled": True})
    assert (flat(project, task)["cancelled_annotations"], flat(project, task)["total_annotations"]) == (1, 0)


@event("activity")
def skip_taken_back(server: LabelStudio, project: Project) -> None:
    task = project.ids()[SKIPPED]
    server.api.patch(f"/api/annotations/{first(project, task)}/", {"was_cancelled": False})
    assert (flat(project, task)["cancelled_annotations"], flat(project, task)["total_annotations"]) == (0, 1)


@event("activity")
def one_skip_deleted_and_another_made(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    server.api.delete(f"/api/annotations/{first(project, ids[SKIPPED])}/")
    project.annotate(ids[PLAIN], was_cancelled=True)
    assert [flat(project, ids[n])["cancelled_annotations"] for n in (SKIPPED, PLAIN)] == [0, 1]


@event("activity")
def one_annotation_deleted_and_another_made(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    server.api.delete(f"/api/annotations/{first(project, ids[ONE])}/")
    project.annotate(ids[PLAIN])
    assert [flat(project, ids[n])["total_annotations"] for n in (ONE, PLAIN)] == [0, 1]


@event("activity")
def draft_submitted(server: LabelStudio, project: Project) -> None:
    task = project.ids()[DRAFTED]
    project.annotate(task, draft_id=first(project, task, "drafts"))
    found = project.task(task)
    assert (len(found["annotations"]), found["drafts"]) == (1, [])


@event("activity")
def annotation_converted_to_a_draft(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    server.api.post(f"/api/annotations/{first(project, task)}/convert-to-draft")
    found = project.task(task)
    assert (found["annotations"], len(found["drafts"])) == ([], 1)


@event("activity")
def annotations_deleted_by_action(server: LabelStudio, project: Project) -> None:
    tasks = [project.ids()[n] for n in (ONE, TWO, BOTH)]
    project.action("delete_tasks_annotations", tasks)
    found = [flat(project, task) for task in tasks]
    assert [task["annotations"] for task in found] == [[], [], []]
    assert len({task["updated_at"] for task in found}) == 1, "one shared date is what makes paging by time lose tasks"


@event("activity")
def labels_renamed(server: LabelStudio, project: Project) -> None:
    project.action("rename_labels", control_tag="label", old_label_name="Cat", new_label_name="Dog")
    assert project.task(project.ids()[ONE])["annotations"][0]["result"][0]["value"]["rectanglelabels"] == ["Dog"]


@event("activity")
def counters_overwritten_by_a_client(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    server.api.patch(f"/api/tasks/{task}/", {"total_annotations": 7})
    assert flat(project, task)["total_annotations"] == 7


# --- predictions ---------------------------------------------------------------------------------------------------------


@event("activity")
def prediction_created(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PLAIN]
    made = project.predict(task)
    assert first(project, task, "predictions") == made


@event("activity")
def prediction_changed(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PREDICTED]
    server.api.patch(f"/api/predictions/{first(project, task, 'predictions')}/", {"score": 0.75})
    assert project.task(task)["predictions"][0]["score"] == 0.75


@event("activity")
def prediction_deleted(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PREDICTED]
    server.api.delete(f"/api/predictions/{first(project, task, 'predictions')}/")
    assert project.task(task)["predictions"] == []


@event("activity")
def predictions_made_annotations(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PREDICTED]
    project.action("predictions_to_annotations", [task])
    assert project.task(task)["annotations"][0]["parent_prediction"] == first(project, task, "predictions")


@event("counters")
def predictions_imported_in_bulk(server: LabelStudio, project: Project) -> None:
    tasks = [project.ids()[n] for n in (PLAIN, ONE)]
    with Still(project):
        server.api.post(
            f"/api/projects/{project.id}/import/predictions", [{"task": task, "result": [box()], "model_version": "m2"} for task in tasks]
        )
    assert [len(project.task(task)["predictions"]) for task in tasks] == [1, 1]


@event("none")
def predictions_deleted_by_action(server: LabelStudio, project: Project) -> None:
    """Mostly total_predictions moves; but the server leaves it as it was when its first writes were of another kind, and then nothing tells."""
    task = project.ids()[PREDICTED]
    with Still(project):
        project.action("delete_tasks_predictions", [task])
    assert project.task(task)["predictions"] == []


@event("none")
def predictions_deleted_on_one_task_and_imported_on_another(server: LabelStudio, project: Project) -> None:
    """The totals of a range that holds both stay the same."""
    ids = project.ids()
    with Still(project):
        project.action("delete_tasks_predictions", [ids[PREDICTED]])
        server.api.post(f"/api/projects/{project.id}/import/predictions", [{"task": ids[PLAIN], "result": [box()], "model_version": "m2"}])
    assert [len(project.task(ids[n])["predictions"]) for n in (PREDICTED, PLAIN)] == [0, 1]


@event("none")
def predictions_replaced_in_bulk(server: LabelStudio, project: Project) -> None:
    """A new model's predictions instead of the old one's, on the same task: every count is as before."""
    task = project.ids()[PREDICTED]
    with Still(project):
        project.action("delete_tasks_predictions", [task])
        server.api.post(f"/api/projects/{project.id}/import/predictions", [{"task": task, "result": [box("Dog", 5)], "model_version": "m2"}])
    assert [prediction["model_version"] for prediction in project.task(task)["predictions"]] == ["m2"]


# --- drafts --------------------------------------------------------------------------------------------------------------


@event("drafts")
def draft_created(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PLAIN]
    with Still(project):
        made = project.draft(task)
    assert first(project, task, "drafts") == made


@event("drafts")
def draft_of_an_annotation_created(server: LabelStudio, project: Project) -> None:
    task = project.ids()[ONE]
    with Still(project):
        made = project.draft(task, annotation=first(project, task))
    assert first(project, task, "drafts") == made


@event("drafts")
def draft_changed(server: LabelStudio, project: Project) -> None:
    task = project.ids()[DRAFTED]
    with Still(project):
        server.api.patch(f"/api/drafts/{first(project, task, 'drafts')}/", {"result": [box("Dog", 55)]})
    assert project.task(task)["drafts"][0]["result"][0]["value"]["x"] == 55


@event("drafts")
def draft_deleted(server: LabelStudio, project: Project) -> None:
    task = project.ids()[DRAFTED]
    with Still(project):
        server.api.delete(f"/api/drafts/{first(project, task, 'drafts')}/")
    assert project.task(task)["drafts"] == []


@event("drafts")
def draft_of_a_draft_only_task_deleted_by_action(server: LabelStudio, project: Project) -> None:
    task = project.ids()[DRAFTED]
    with Still(project):
        project.action("delete_tasks_annotations", [task])
    assert project.task(task)["drafts"] == []
