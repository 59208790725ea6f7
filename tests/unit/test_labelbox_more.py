"""Labelbox as a Source: exports that outlive a Run, politeness, and what is not a project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from syncd.errors import SourceError, Stopped
from syncd.model import Gone, Kind, Status
from syncd.sources import labelbox, labelbox_api, labelbox_export, labelbox_queries
from syncd.sources.labelbox_reading import LAG, _Counted
from syncd.sources.labelbox_scope import Filters
from tests.fakes import labelbox_faults as faults
from tests.fakes.labelbox_payloads import image, text
from tests.fakes.labelbox_rows import virtual_id
from tests.fakes.rig import TestClock
from tests.unit.test_labelbox import HOUR, Stage, backed, heal, stage

__all__ = ["backed", "stage"]  # fixtures


def offsets(stage: Stage) -> list[int]:
    """The offsets that files were asked for at."""
    return [
        int(call.variables["offset"]) for call in stage.box.log if "exportFileFromOffset" in call.names and call.variables["streamType"] == "RESULT"
    ]


def test_an_export_that_was_running_when_syncd_stopped_is_picked_up(backed: Stage) -> None:
    before = backed.exports()
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    backed.box.plan_export(faults.stuck)

    def wait(seconds: float) -> None:
        if seconds and backed.exports() > before:  # between two looks at it, not before its id came back
            raise Stopped
        TestClock.wait(backed.clock, seconds)

    backed.clock.wait = wait  # type: ignore[method-assign]  # stops in the middle of the export
    assert backed.rig.run().exit_code == 130
    del backed.clock.wait  # the class's own again
    list(backed.box.exports.tasks.values())[-1].polls = 0
    assert backed.run().status is Status.OK
    assert backed.held() == backed.truth()
    assert backed.exports() == before + 1


@pytest.mark.parametrize("kind", [Kind.INCREMENTAL, Kind.FULL])
def test_an_export_whose_reading_failed_is_read_by_the_next_run(backed: Stage, kind: Kind) -> None:
    before = backed.exports()
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    backed.box.plan("file", faults.status(500), times=None)
    assert backed.run(kind).status is Status.FAILED
    heal(backed)
    assert backed.run(kind).status is Status.OK
    assert backed.held() == backed.truth()
    assert backed.exports() == before + 1


def test_an_export_that_is_gone_or_was_for_something_else_is_started_anew(backed: Stage) -> None:
    for change in (backed.box.exports.tasks.clear, lambda: backed.configure(export={"attachments": False})):
        backed.cats.edit_label(backed.ids[0], image(f"a dog {change}"))
        backed.box.plan("file", faults.status(500), times=None)
        assert backed.run().status is Status.FAILED
        heal(backed)
        change()
        before = backed.exports()
        assert backed.run().status is Status.OK
        assert backed.exports() == before + 1


def test_a_first_backup_goes_on_at_the_byte_where_it_stopped(stage: Stage) -> None:
    stage.cats.add(*({"labels": [text("x" * 3000)]} for _ in range(200)))
    stage.box.files.chunk_size = 100_000
    stage.box.plan("file", faults.status(500), times=None, after=4)
    assert stage.run().status is Status.FAILED
    heal(stage)
    held, asked, before = len(stage.rig.tasks()), len(offsets(stage)), stage.exports()
    assert held > 30
    report = stage.run()
    assert (report.status, report.written) == (Status.OK, 220 - held)
    assert stage.held() == stage.truth()
    assert offsets(stage)[asked] > 100_000
    assert stage.exports() == before + 1  # that of the incremental reading, for what changed behind the position


def test_a_first_backup_whose_export_is_gone_begins_anew(stage: Stage) -> None:
    stage.cats.add(*({"labels": [text("x" * 3000)]} for _ in range(200)))
    stage.box.files.chunk_size = 100_000
    stage.box.plan("file", faults.status(500), times=None, after=4)
    assert stage.run().status is Status.FAILED
    heal(stage)
    stage.box.exports.tasks.clear()
    stage.box.delete(stage.ids[0])
    assert stage.run().status is Status.OK
    assert stage.held() == stage.truth()


def test_where_no_more_exports_may_run_it_waits(backed: Stage) -> None:
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    for task in backed.box.exports.occupy(backed.cats.id, 10):
        task.polls, task.ready_at = 0, backed.clock.now() + (HOUR + 600) * 1_000_000
    assert backed.run().status is Status.OK
    assert backed.held() == backed.truth()


def test_where_no_place_becomes_free_it_says_so(backed: Stage) -> None:
    backed.box.exports.occupy(backed.cats.id, 10)
    backed.configure(export_timeout=60.0)
    report = backed.run(Kind.FULL)
    assert report.status is Status.FAILED
    assert "limit of running exports" in report.error


def test_the_budget_keeps_below_what_the_server_allows(stage: Stage) -> None:
    stage.box.per_minute = 20
    stage.configure(requests_per_minute=18)
    for _ in range(3):
        assert stage.run(later=1).status is Status.OK
    assert [call for call in stage.box.log if call.status == 429] == []


def test_a_counter_that_is_off_is_believed_after_longer_than_any_index_lags() -> None:
    counted = _Counted().after(3, 1000)
    assert counted.after(3, 1000 + LAG) == counted
    assert counted.after(2, 1000 + LAG).off == 0
    assert counted.after(3, 1001 + LAG) == _Counted(3)
    assert _Counted(3).after(3, 5) == _Counted(3).after(3, 9) == _Counted(3)
    assert counted.after(-2, 5).off == 0
    assert counted.after(-2, 5).after(-2, 6 + LAG) == _Counted(-2)
    assert _Counted(3).after(0, 5) == _Counted(0)


def test_a_counter_that_is_always_off_costs_no_full_export_for_ever(backed: Stage) -> None:
    def more(data: Any) -> None:
        data["project"]["dataRowCount"] += 2

    plan = backed.box.plan("labelCount", faults.edited(more), times=None)
    reports = [backed.run() for _ in range(4)]
    assert [report.status for report in reports] == [Status.PARTIAL, Status.PARTIAL, Status.OK, Status.OK]
    before = backed.exports()
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    backed.run()
    assert backed.exports() == before + 1
    plan.stop()
    assert backed.run().status is Status.OK
    assert backed.held() == backed.truth()


def test_a_row_that_can_never_be_read_costs_no_full_export(stage: Stage) -> None:
    (bad,) = stage.cats.add({})
    stage.box.broken.add(bad)
    assert stage.run().status is Status.PARTIAL
    stage.run()
    before = stage.exports()
    report = stage.run()
    assert ([failure.task for failure in report.failed], report.unchanged) == ([bad], 0)
    assert stage.exports() == before + 2  # what is new, and that row
    stage.box.delete(bad)
    assert stage.run().failed == []
    stage.run()
    assert stage.run().source_requests < 10


def test_thousands_of_absences_are_proved_by_groups(stage: Stage) -> None:
    stage.cats.virtual = 2500
    (cats,) = stage.rig.source.collections()
    ids = [virtual_id(number) for number in range(2600)]
    before = stage.exports()
    gone = stage.rig.source.confirm(cats, ids)
    assert gone == dict.fromkeys(ids[2500:], Gone.DELETED)
    assert stage.exports() == before + 3  # two groups, and the catalog for those that lack


def test_a_server_without_a_date_is_dated_by_its_exports(backed: Stage) -> None:
    class Dateless(labelbox_api.Api):
        def probe(self, kind: str, id_: str) -> labelbox_api.Probe:
            return super().probe(kind, id_)._replace(asked_at=None)

    backed.rig.source._api.__class__ = Dateless  # type: ignore[attr-defined]  # what a proxy that drops the header does
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    report = backed.run()
    assert backed.held() == backed.truth()
    created = list(backed.box.exports.tasks.values())[-1].created_at
    assert report.cursors[backed.cats.id][1] == created // 1000 * 1000


@given(st.lists(st.binary(max_size=3) | st.sampled_from([b"\n", b"\n\n", b"x\n", b" \n"]), max_size=12), st.integers(1, 9))
def test_lines_are_those_of_the_bytes(pieces: list[bytes], limit: int) -> None:
    joined = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelbox_export, "FIRST_PAGE", limit)
        pages = list(labelbox_export._pages(pieces, 100))
    assert [line for page in pages for line in page.lines] == [line for line in joined.split(b"\n") if line.strip()]
    ends = [page.end - 100 for page in pages]
    assert ends == sorted(ends)
    for number, page in enumerate(pages, 1):  # where a reading may go on
        rest = [line for line in joined[page.end - 100 :].split(b"\n") if line.strip()]
        assert rest == [line for later in pages[number:] for line in later.lines]


@given(st.lists(st.binary(max_size=5), max_size=8), st.data())
def test_cuts_are_those_of_the_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(pieces)
    skip = data.draw(st.integers(0, len(joined)))
    assert b"".join(labelbox_export._cut(iter(pieces), skip, len(joined) - skip)) == joined[skip:]
    if skip < len(joined):
        with pytest.raises(SourceError, match="longer than its offsets"):
            list(labelbox_export._cut(iter(pieces), skip, len(joined) - skip - 1))


OTHERS: dict[str, Callable[[Stage], tuple[str, str]]] = {
    "datasets": lambda s: ("datasets", next(iter(s.box.datasets))),
    "slices": lambda s: ("slices", s.box.slice("Keyed", lambda state: state.global_key is not None).id),
    "model_runs": lambda s: ("model_runs", s.box.model_run("Run 1").id),
}


def fill(stage: Stage, kind: str, id_: str, rows: list[str]) -> None:
    for number, row in enumerate(rows):
        if kind == "slices":
            stage.box.silent(row, global_key=f"key-{number}")
        if kind == "model_runs":
            stage.box.runs[id_].put(row, labels=[image()], predictions=[image("perhaps")], split="TEST")


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_a_project_is_kept_under_its_kind(stage: Stage, kind: str) -> None:
    _, id_ = OTHERS[kind](stage)
    fill(stage, kind, id_, stage.ids)
    stage.select(**{kind: [id_]})
    assert stage.run().status is Status.OK
    tasks = stage.rig.tasks()
    assert tasks.keys() == {f"{kind}/{id_}/{row}.json" for row in stage.ids}
    body = tasks[f"{kind}/{id_}/{stage.ids[0]}.json"]
    assert stage.cats.id in body["projects"] if kind != "model_runs" else body["experiments"]
    assert f"{kind}/{id_}/_project.json" in stage.rig.files()
    stage.run()
    before = stage.exports()
    assert stage.run().status is Status.OK
    assert stage.exports() == before  # nothing moved

    stage.cats.edit_label(stage.ids[3], image("a dog"))
    stage.box.delete(stage.ids[0])
    if kind == "slices":
        stage.box.silent(stage.ids[1], global_key=None)
    if kind == "model_runs":
        stage.box.runs[id_].remove(stage.ids[1])
    report = stage.run()
    gone = stage.ids[: 1 if kind == "datasets" else 2]
    assert (report.status, report.trashed) == (Status.OK, len(gone))
    why = {line["task"]: line["why"] for line in stage.rig.feeds() if line["op"] == "trash"}
    assert why == dict(zip(gone, ("deleted", "removed"), strict=False))
    if kind != "model_runs":
        assert "a dog" in str(stage.rig.tasks()[f"{kind}/{id_}/{stage.ids[3]}.json"])
    assert stage.run(Kind.FULL).status is Status.OK


def test_only_what_is_named_is_read(stage: Stage) -> None:
    run = stage.box.model_run("Run 1")
    stage.box.project("Dogs")
    stage.select(projects=["C*"], model_runs=["Run ?"], slices=["none"])
    assert [c.id for c in stage.rig.source.collections()] == [stage.cats.id, f"model_runs/{run.id}"]
    stage.select(datasets=["Cats data"], projects=[stage.cats.id], model_runs=[run.id])
    assert [c.title for c in stage.rig.source.collections()] == ["Cats", "Cats data", "Run 1"]


def test_more_collections_than_a_page_holds_are_all_listed(stage: Stage) -> None:
    for number in range(230):
        stage.box.project(f"P{number}")
    assert len(stage.rig.source.collections()) == 231


@pytest.mark.parametrize("answer", ["", {}, None, "none", [""], 0])
def test_what_is_no_list_is_no_empty_one(answer: object) -> None:
    with pytest.raises(SourceError, match="without a list of projects"):
        labelbox_api.objects({"projects": answer}, "projects")


@pytest.mark.parametrize("kind", ["projects", *OTHERS])
def test_a_collection_is_gone_only_when_the_server_says_so_by_its_id(stage: Stage, kind: str) -> None:
    id_ = stage.cats.id if kind == "projects" else OTHERS[kind](stage)[1]
    stage.select(**{kind: [id_]})
    (collection,) = stage.rig.source.collections()
    assert stage.rig.source.confirm_collection(collection) is False
    {"projects": stage.box.projects, "datasets": stage.box.datasets, "slices": stage.box.slices, "model_runs": stage.box.runs}[kind].pop(id_)  # type: ignore[attr-defined]
    assert stage.rig.source.confirm_collection(collection) is True
    stage.box.plan("any", faults.refused("AUTHORIZATION_ERROR"))
    with pytest.raises(SourceError):
        stage.rig.source.confirm_collection(collection)


def test_rows_that_stop_to_match_the_filters_leave(stage: Stage) -> None:
    stage.configure(filters={"workflow_status": "InReview", "batch_ids": [stage.cats.batches[0].id], "label_created_at": ["2020-01-01", None]})
    assert stage.run().written == 18
    stage.cats.set_status(stage.ids[0], "DONE")
    assert stage.run().trashed == 0
    assert stage.run(Kind.FULL).trashed == 1
    assert {line["why"] for line in stage.rig.feeds() if line["op"] == "trash"} == {"removed"}


def test_an_absence_that_the_two_exports_do_not_agree_on_proves_nothing(backed: Stage) -> None:
    source, (cats,) = backed.rig.source, backed.rig.source.collections()
    backed.box.plan_export(faults.lines(lambda _: []))
    assert source.confirm(cats, backed.ids[:3]) == {}  # the catalog shows them in the project
    for fault in (
        faults.lines(lambda lines: [*lines, b"{]\n"]),
        faults.error_lines(b'{"message": "no"}\n'),
        faults.lines(lambda lines: [*lines, b"\n"]),
    ):
        backed.box.delete(backed.ids.pop())
        backed.box.plan_export(fault)
        assert source.confirm(cats, ["gone"]) == {}
    backed.box.plan_export(faults.lines(lambda _: []), times=2)
    assert source.confirm(cats, backed.ids[:3]) == {}  # there is such a row, says the server


def test_settings_hold_the_ontology_workflow_queues_and_batches(stage: Stage) -> None:
    (cats,) = stage.rig.source.collections()
    settings: Any = stage.rig.source.settings(cats)
    assert settings["ontology"]["normalized"] == stage.cats.ontology
    assert settings["workflow"]["config"] == stage.cats.workflow
    assert settings["taskQueues"][0]["name"] == "Initial labeling task"
    assert [batch["name"] for batch in settings["batches"]] == ["batch 1"]


def test_tasks_are_backed_up_although_settings_cannot_be_read(stage: Stage) -> None:
    stage.box.plan("taskQueues", faults.refused("GRAPHQL_VALIDATION_FAILED", "Cannot query field taskQueues"))
    report = stage.run()
    assert (report.status, report.written) == (Status.PARTIAL, 20)
    assert "its settings: Labelbox: GRAPHQL_VALIDATION_FAILED" in report.failed[0].error


def test_a_wrong_config_is_told(tmp_path: Path) -> None:
    fields: dict[str, Any]
    for fields, words in (
        ({"url": "https://app.labelbox.com"}, "not the address"),
        ({"filters": {"label_created_at": ["yesterday", None]}}, "isoformat"),
        ({"filters": {"label_created_at": [None, None]}}, "both ends"),
        ({"export": {"project_ids": [str(n) for n in range(31)]}}, "at most 30"),
    ):
        with pytest.raises(ValidationError, match=words):
            labelbox.Config.model_validate({"type": "labelbox", "api_key": "k", **fields})


def test_moments_are_sent_in_whole_seconds_of_utc() -> None:
    filters = Filters.model_validate({"label_created_at": ["2023-05-23T14:30:00+05:30", "2024-01-01"]})
    assert filters.label_created_at == ("2023-05-23T09:00:00+0000", "2024-01-01T00:00:00+0000")
    condition: Any = labelbox_queries.between("labeled_at", None, "2024-01-01T00:00:00+0000")
    assert condition["value"] == {"operator": "LESS_THAN_OR_EQUAL", "timezone": "UTC", "value": "2024-01-01T00:00:00+0000"}
