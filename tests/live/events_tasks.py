"""Events on tasks, people, settings, and deletions."""

from __future__ import annotations

from typing import Any

from tests.live.event_table import (
    BOTH,
    DONE_TWIN,
    DRAFTED,
    ONE,
    OTHER_DONE_TWIN,
    OTHER_SKIPPED_TWIN,
    OTHER_TWIN,
    PLAIN,
    SKIPPED,
    SKIPPED_TWIN,
    TWIN,
    Still,
    Table,
    first,
    flat,
)
from tests.live.server import CONFIGS, LabelStudio, Project, box, sample

event = Table()


# --- tasks ---------------------------------------------------------------------------------------------------------------


@event("activity")
def tasks_imported(server: LabelStudio, project: Project) -> None:
    before = project.ids()
    made = project.add([sample(100, annotations=2, predictions=1), sample(101)])
    assert project.ids() == before + made


@event("activity")
def task_created_by_post(server: LabelStudio, project: Project) -> None:
    made = server.api.post("/api/tasks", {"project": project.id, "data": {"image": "https://images.example.com/post.jpg"}})
    assert made["id"] in project.ids()


@event("activity")
def task_data_changed(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PLAIN]
    server.api.patch(f"/api/tasks/{task}/", {"data": {"image": "https://images.example.com/other.jpg", "big": 12345678901234567890}})
    assert project.task(task)["data"]["big"] == 12345678901234567890


@event("activity")
def task_meta_changed(server: LabelStudio, project: Project) -> None:
    task = project.ids()[PLAIN]
    server.api.patch(f"/api/tasks/{task}/", {"meta": {"batch": "b7"}})
    assert project.task(task)["meta"] == {"batch": "b7"}


@event("none")
def data_field_added_by_action(server: LabelStudio, project: Project) -> None:
    with Still(project):
        project.action("add_data_field", value_name="batch", value_type="String", value="b7")
    assert {task["data"]["batch"] for task in project.tasks()} == {"b7"}


@event("none")
def labels_cached_by_action(server: LabelStudio, project: Project) -> None:
    with Still(project):
        project.action("cache_labels", control_tag="label", with_counters="Yes", source="Annotations")
    assert project.task(project.ids()[ONE])["data"]["cache_label"] == "Cat: 1"


@event("none")
def overlap_changed(server: LabelStudio, project: Project) -> None:
    """is_labeled and overlap change on the tasks; what dates it is the project alone."""
    with Still(project):
        project.change(maximum_annotations=2)
    assert project.task(project.ids()[ONE])["is_labeled"] is False


@event("counters")
def annotations_propagated(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    with Still(project):
        project.action("propagate_annotations", [ids[PLAIN], ids[TWIN]], source_annotation_id=first(project, ids[ONE]))
    assert project.task(ids[PLAIN])["annotations"][0]["parent_annotation"] == first(project, ids[ONE])


@event("none", prepare=annotations_propagated)
def parent_of_propagated_annotations_deleted(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    date = project.task(ids[PLAIN])["updated_at"]
    server.api.delete(f"/api/annotations/{first(project, ids[ONE])}/")
    child = project.task(ids[PLAIN])
    assert (child["annotations"][0]["parent_annotation"], child["updated_at"]) == (None, date)


# --- people and settings -------------------------------------------------------------------------------------------------


def _annotated_by_somebody(server: LabelStudio, project: Project) -> None:
    person = server.api.user(f"bob{project.id}@example.com", "Bob", "Jones")
    project.add([{"data": {"image": "https://images.example.com/bob.jpg"}, "annotations": [{"result": [box()], "completed_by": person}]}])


def _somebody(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = project.task(project.ids()[-1])["annotations"][0]["completed_by"]
    return found


@event("none", prepare=_annotated_by_somebody)
def person_renamed(server: LabelStudio, project: Project) -> None:
    with Still(project):
        server.api.patch(f"/api/users/{_somebody(project)['id']}/", {"first_name": "Robert"})
    assert _somebody(project)["first_name"] == "Robert"


@event("none", prepare=_annotated_by_somebody)
def person_deleted(server: LabelStudio, project: Project) -> None:
    person = _somebody(project)["id"]
    with Still(project):
        server.api.delete(f"/api/users/{person}/")
    assert person not in {user["id"] for user in server.api.get("/api/users/")}


@event("settings")
def title_changed(server: LabelStudio, project: Project) -> None:
    with Still(project):
        project.change(title="Another title")
    assert server.api.get(f"/api/projects/{project.id}/")["title"] == "Another title"


@event("settings")
def label_config_changed(server: LabelStudio, project: Project) -> None:
    config = CONFIGS["bbox"].replace('<Label value="Dog"/>', '<Label value="Dog"/><Label value="Emu"/>')
    with Still(project):
        project.change(label_config=config)
    assert server.api.get(f"/api/projects/{project.id}/")["label_config"] == config


# --- deletions -----------------------------------------------------------------------------------------------------------


@event("deletion")
def task_deleted(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    server.api.delete(f"/api/tasks/{ids[BOTH]}/")
    assert project.ids() == [task for task in ids if task != ids[BOTH]]


@event("deletion")
def first_and_last_task_deleted(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    for task in (ids[0], ids[-1]):
        server.api.delete(f"/api/tasks/{task}/")
    assert project.ids() == ids[1:-1]


@event("deletion")
def tasks_deleted_by_action(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    project.action("delete_tasks", [ids[ONE], ids[DRAFTED], ids[SKIPPED]])
    assert len(project.ids()) == len(ids) - 3


@event("deletion")
def one_task_deleted_and_another_imported(server: LabelStudio, project: Project) -> None:
    """The count of tasks stays the same; on SQLite the newest task's id is given again, so an older one is deleted here."""
    ids = project.ids()
    server.api.delete(f"/api/tasks/{ids[ONE]}/")
    made = project.add([sample(200, annotations=1)])
    assert project.ids() == [task for task in ids if task != ids[ONE]] + made


@event("deletion")
def newest_task_deleted_and_its_id_used_again(server: LabelStudio, project: Project) -> None:
    last = project.ids()[-1]
    project.api.delete(f"/api/tasks/{last}/")
    assert project.add([sample(300, annotations=1)]) == [last], "SQLite gives the same id again"
    assert project.task(last)["data"]["n"] == 300


@event("deletion")
def unannotated_duplicates_removed(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    with Still(project):
        project.action("remove_duplicates", [ids[TWIN], ids[OTHER_TWIN]])
    assert len(project.ids()) == len(ids) - 1


@event("deletion")
def annotated_duplicates_removed(server: LabelStudio, project: Project) -> None:
    """The annotation moves onto the task that is kept, whose date does not move."""
    ids = project.ids()
    with Still(project):
        project.action("remove_duplicates", [ids[DONE_TWIN], ids[OTHER_DONE_TWIN]])
    assert ids[OTHER_DONE_TWIN] not in project.ids()
    assert len(project.task(ids[DONE_TWIN])["annotations"]) == 2


@event("deletion")
def duplicates_with_a_skip_removed(server: LabelStudio, project: Project) -> None:
    """The kept task gets a skipped annotation: its date and its total_annotations stay."""
    ids = project.ids()
    with Still(project):
        project.action("remove_duplicates", [ids[SKIPPED_TWIN], ids[OTHER_SKIPPED_TWIN]])
    kept = flat(project, ids[SKIPPED_TWIN])
    assert (kept["total_annotations"], kept["cancelled_annotations"], len(kept["annotations"])) == (1, 1, 2)
    assert ids[OTHER_SKIPPED_TWIN] not in project.ids()


@event("deletion")
def duplicate_deleted_and_another_task_imported(server: LabelStudio, project: Project) -> None:
    ids = project.ids()
    with Still(project):
        project.action("remove_duplicates", [ids[DONE_TWIN], ids[OTHER_DONE_TWIN]])
    project.add([sample(400)])
    assert len(project.ids()) == len(ids)


# --- nothing at all ------------------------------------------------------------------------------------------------------


@event("activity")
def task_looked_at(server: LabelStudio, project: Project) -> None:
    """Reading and locking the next task changes nothing that belongs into a backup."""
    with Still(project):
        server.api.get(f"/api/projects/{project.id}/next/")
        project.task(project.ids()[ONE])
