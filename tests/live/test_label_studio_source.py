"""The Label Studio Source against the real server: whatever happens there, one Run later the backup equals the server's own answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from syncd.model import Status
from tests.live.backup import HOSTILE, Backup, equal_after, same_project, same_values
from tests.live.event_table import Event, seed
from tests.live.events import EVENTS
from tests.live.server import LabelStudio, Project, box, sample

pytestmark = pytest.mark.live


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.signal}-{event.name}")
def test_one_run_after_any_event_the_backup_is_equal_again(server: LabelStudio, project: Project, tmp_path: Path, event: Event) -> None:
    equal_after(event, server, project, tmp_path)


def test_two_projects_of_mixed_kinds_and_a_new_one_as_it_appears(server: LabelStudio, tmp_path: Path) -> None:
    """Through the real command line, all projects, nothing named in the config."""
    boxes, words = server.api.project("Boxes"), server.api.project("Words", "choices")
    seed(boxes)
    mood = {"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": ["good"]}}
    words.add([{"data": {"text": f"review {n}"}, "annotations": [{"result": [mood]}] * (n % 2), "meta": {"source": "mail"}} for n in range(30)])
    backup = Backup(tmp_path, server)
    code, report, _ = backup.cli()
    assert (code, report["status"], report["written"]) == (0, "ok", 44)
    later = server.api.project("Sounds", "audio")
    later.add([{"data": {"audio": "https://sounds.example.com/1.wav"}}])
    code, report, _ = backup.cli()
    assert (code, report["written"], report["unchanged"]) == (0, 1, 2)
    for project in (boxes, words, later):
        same_project(backup, project)
        project.remove()


def test_title_patterns_choose_projects(server: LabelStudio, tmp_path: Path) -> None:
    chosen, other = server.api.project("Cats 1"), server.api.project("Dogs 1")
    for project in (chosen, other):
        project.add([sample(1)])
    backup = Backup(tmp_path, server, projects=["Cats *"])
    backup.run()
    assert (len(backup.tasks(chosen.id)), len(backup.tasks(other.id))) == (1, 0)
    for project in (chosen, other):
        project.remove()


def test_labeled_only_follows_tasks_that_gain_and_lose_their_annotation(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    ids = project.add([sample(n, annotations=n % 2) for n in range(40)])
    backup = Backup(tmp_path, server, projects=[project.id], source={"labeled_only": True})
    backup.run()
    assert set(backup.tasks(project.id)) == set(ids[1::2])
    project.annotate(ids[0])
    server.api.delete(f"/api/annotations/{project.task(ids[1])['annotations'][0]['id']}/")
    project.annotate(ids[2], was_cancelled=True)
    report = backup.run()
    assert (report.status, set(backup.tasks(project.id))) == (Status.OK, {ids[0], *ids[3::2]})


def test_drafts_of_everybody_are_kept(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    """A list of tasks holds those of the token's own user alone."""
    own, both = project.add([sample(n) for n in range(2)])
    made = [project.draft(task) for task in (own, both, both)]
    server.give_draft(made[-1], server.api.user("eve@example.com"))
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    assert [1, 1] == [len(task["drafts"]) for task in project.tasks()]
    assert [made[:1], made[1:]] == [[draft["id"] for draft in backup.tasks(project.id)[task]["drafts"]] for task in (own, both)]


def test_values_survive_exactly(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    same_values(server, project, tmp_path)


def test_a_task_with_a_lone_surrogate_fails_by_name_and_the_others_go_on(project: Project, server: LabelStudio, tmp_path: Path) -> None:
    ids = project.add([sample(n, annotations=1) for n in range(30)])
    server.api.call("POST", f"/api/projects/{project.id}/import", raw=b'[{"data":{"image":"\\ud800"}}]')
    bad = project.ids()[-1]
    ids += project.add([sample(n) for n in range(30, 45)])
    backup = Backup(tmp_path, server, projects=[project.id])
    for full in (False, False, True):  # the first Run, an incremental one and a full one
        report = backup.run(full=full)
        assert (report.status, [failure.task for failure in report.failed]) == (Status.PARTIAL, [str(bad)])
        assert set(backup.tasks(project.id)) == set(ids)
    server.api.patch(f"/api/tasks/{bad}/", {"data": {"image": "mended"}})
    assert backup.run().status is Status.OK
    same_project(backup, project)


def test_a_removed_project_waits_for_a_person_and_one_with_its_task_ids_is_another(server: LabelStudio, tmp_path: Path) -> None:
    """SQLite gives a removed project's task ids to the next one: nothing of the old tasks may pass for the new ones."""
    first = server.api.project("Twin")
    ids = first.add([sample(n, annotations=1) for n in range(5)])
    backup = Backup(tmp_path, server, projects=["Twin"])
    backup.run()
    first.remove()
    second = server.api.project("Twin")
    assert second.add([sample(n + 100, annotations=1) for n in range(5)]) == ids
    report = backup.run()
    assert (report.status, report.written, set(backup.tasks(first.id))) == (Status.GUARDED, 5, set(ids))
    same_project(backup, second)
    confirmed = backup.run(confirm=report.plan_id)
    assert (confirmed.status, confirmed.trashed, backup.trashed(first.id)) == (Status.OK, 5, set(ids))
    assert backup.tasks(first.id) == {}
    same_project(backup, second)
    second.remove()


def test_all_tasks_deleted_trips_the_guard(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    ids = project.add([sample(n) for n in range(5)])
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    server.api.delete(f"/api/projects/{project.id}/tasks/")
    report = backup.run()
    assert (report.status, report.trashed, set(backup.tasks(project.id))) == (Status.GUARDED, 0, set(ids))
    assert backup.run(confirm=report.plan_id).trashed == 5
    same_project(backup, project)


def test_deletions_scattered_over_a_larger_project_cost_little(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    ids = project.add([sample(n) for n in range(1500)])
    backup = Backup(tmp_path, server, projects=[project.id], max_delete={"fraction": 0.05, "at_least": 20})
    backup.run()
    gone = {ids[3], ids[700], ids[1499]}
    for task in gone:
        server.api.delete(f"/api/tasks/{task}/")
    report = backup.run()
    assert (report.trashed, backup.trashed(project.id)) == (3, gone)
    assert set(backup.tasks(project.id)) == set(ids) - gone
    assert report.source_requests < 60, "bisection, not a listing"


def test_a_server_that_limits_its_pages_is_backed_up_all_the_same(tmp_path: Path) -> None:
    with LabelStudio(env={"TASK_API_PAGE_SIZE_MAX": "30"}) as small:
        project = small.api.project("Many")
        ids = project.add([sample(n, annotations=n % 2) for n in range(200)])
        backup = Backup(tmp_path, small, projects=[project.id], source={"concurrency": 3})
        assert backup.run().written == 200
        for task in ids[:70]:
            project.annotate(task)
        small.api.delete(f"/api/tasks/{ids[100]}/")
        report = backup.run()
        assert (report.status, report.written, report.trashed) == (Status.OK, 70, 1)
        same_project(backup, project)


def test_a_task_that_can_not_be_read_may_lose_its_label(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    """Whether it is still labeled is asked for without its body."""
    ids = project.add([sample(n, annotations=1) for n in range(5)])
    backup = Backup(tmp_path, server, projects=[project.id], source={"labeled_only": True})
    backup.run()
    annotation = server.api.get(f"/api/tasks/{ids[2]}/annotations/")[0]["id"]
    where, content = f"/api/tasks/{ids[2]}/", b'{"data":{"image":"\\ud800"}}'
    server.api.http.patch(where, content=content, headers={"Content-Type": "application/json"})  # stored, and then not shown: 500
    assert server.api.http.get(where).status_code == 500
    server.api.delete(f"/api/annotations/{annotation}/")
    report = backup.run()
    assert (report.status, report.trashed, set(backup.tasks(project.id))) == (Status.OK, 1, {*ids} - {ids[2]})


class TestTokens:
    def test_a_personal_access_token_works(self, server: LabelStudio, project: Project, tmp_path: Path) -> None:
        project.add([sample(1)])
        backup = Backup(tmp_path, server, token=server.pat(), projects=[project.id])
        assert backup.run().status is Status.OK
        same_project(backup, project)

    def test_a_disabled_legacy_token_says_what_to_do(self, server: LabelStudio, project: Project, tmp_path: Path) -> None:
        project.add([sample(1)])
        backup = Backup(tmp_path, server, projects=[project.id])
        assert backup.run().status is Status.OK
        server.allow_legacy_tokens(allowed=False)
        try:
            code, report, stderr = backup.cli()
        finally:
            server.allow_legacy_tokens(allowed=True)
        assert (code, report["status"], report["trashed"]) == (12, "failed", 0)
        assert "personal access token" in stderr
        assert "Traceback" not in stderr

    @pytest.mark.parametrize("shape", ["0" * 40, "not.a.token"])
    def test_a_wrong_token_is_refused_without_being_shown(self, server: LabelStudio, tmp_path: Path, shape: str) -> None:
        code, report, stderr = Backup(tmp_path, server, token=shape).cli()
        assert (code, report["status"]) == (12, "failed")
        assert shape not in stderr + json.dumps(report)

    def test_a_revoked_personal_access_token_is_named_as_such(self, server: LabelStudio, tmp_path: Path) -> None:
        backup = Backup(tmp_path, server, token=server.pat())
        server.revoke_pat()
        code, _, stderr = backup.cli()
        assert code == 12
        assert "revoked" in stderr


def test_task_files_import_again_with_equal_results(server: LabelStudio, project: Project, tmp_path: Path) -> None:
    """What a restore relies on: the file is what the server's own import takes."""
    seed(project)
    project.add([{"data": HOSTILE, "meta": HOSTILE, "annotations": [{"result": [box()]}], "predictions": [{"result": [box("Dog")], "score": 0.5}]}])
    backup = Backup(tmp_path, server, projects=[project.id])
    backup.run()
    files = [json.loads(path.read_text()) for path in sorted((backup.folder / str(project.id)).glob("[0-9]*.json"), key=lambda path: int(path.stem))]
    fresh = server.api.project("Again")
    fresh.add(files)

    def kept(task: dict[str, Any]) -> dict[str, Any]:
        names = ("result", "was_cancelled", "ground_truth", "lead_time", "completed_by")
        annotations = [{name: annotation[name] for name in names} for annotation in task["annotations"]]
        predictions = [{name: prediction[name] for name in ("result", "score", "model_version")} for prediction in task["predictions"]]
        return {"data": task["data"], "meta": task["meta"], "annotations": annotations, "predictions": predictions}

    assert [kept(task) for task in project.tasks()] == [kept(task) for task in fresh.tasks()]
    fresh.remove()
