"""Labelbox as a Source, Run by Run: what people do there is in the target after one Run, and whatever goes wrong deletes nothing and is told."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from syncd.model import Kind, Report, Status
from syncd.sources import labelbox
from syncd.sources.labelbox import Labelbox as Source
from syncd.targets import local
from tests.fakes import labelbox_faults as faults
from tests.fakes.labelbox import Labelbox
from tests.fakes.labelbox_payloads import audio, image, masked, metadata, png, skipped, text, video
from tests.fakes.labelbox_rows import Wanted, render
from tests.fakes.labelbox_world import Project
from tests.fakes.rig import Rig, TestClock

DOCUMENTS = Path(__file__).parents[1] / "fakes" / "labelbox_documents.ndjson"
PARTS = ("Attachments", "Metadata", "DataRowDetails", "ProjectDetails", "PerformanceDetails", "LabelDetails", "ModelRunDetails")
EVERYTHING = {f"include{part}": True for part in PARTS}
HOUR = 3600


@dataclass
class Stage:
    """A server with the project Cats of 20 data rows, and a Sync of what `select` names."""

    box: Labelbox
    clock: TestClock
    folder: Path
    cats: Project
    ids: list[str]
    rig: Rig

    def source(self, **fields: Any) -> Source:
        config = {"type": "labelbox", "api_key": self.box.key, "url": self.box.url, "retry_for": 30.0, "export_timeout": 1200.0, **fields}
        select = {kind: names for kind, names in self.rig.rules.items() if kind in labelbox.Config.kinds}
        return labelbox.open(labelbox.Config.model_validate(config), select, self.clock)

    def configure(self, **fields: Any) -> None:
        self.rig.source.close()
        self.rig.source = self.source(**fields)

    def select(self, **names: Any) -> None:
        self.rig.rules.update(names)
        self.configure()

    def run(self, kind: Kind | None = None, *, later: float = HOUR, **options: Any) -> Report:
        self.clock.wait(later)
        return self.rig.run(kind, **options)

    def truth(self, project: Project | None = None) -> dict[str, Any]:
        """The files that ought to be there, as the server would export each row alone."""
        chosen = project or self.cats
        wanted = Wanted(EVERYTHING, "*", self.box.url.removesuffix("/graphql"), [chosen.id], None, predictions=False, frames_as_url=False)
        return {f"{chosen.id}/{row}.json": render(self.box, row, state, wanted) for row, state in chosen.members()}

    def held(self) -> dict[str, Any]:
        """The files that are there; the export that a mask's address names left out."""
        found = self.rig.tasks()
        return {key: orjson.loads(re.sub(rb"/tasks/\w+/masks/", b"/tasks/*/masks/", orjson.dumps(body))) for key, body in found.items()}

    def exports(self) -> int:
        return len(self.box.exports.tasks)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    clock = TestClock()
    with Labelbox() as box:
        box.clock = clock.now
        cats = box.project("Cats")
        spec: list[dict[str, Any]] = [{"labels": [image(f"cat {n}")], "status": "IN_REVIEW"} for n in range(18)]
        ids = cats.add(*spec, {}, {"labels": [masked("m1")]})
        target = local.Config(type="local", path=tmp_path / "backup")
        made = Stage(box, clock, tmp_path, cats, ids, None)  # type: ignore[arg-type]  # made below: it needs the stage
        made.rig = Rig(None, lambda: local.open(target, clock), tmp_path / "state", clock)  # type: ignore[arg-type]  # as above
        made.rig.source = made.source()
        yield made
        made.rig.source.close()


@pytest.fixture
def backed(stage: Stage) -> Stage:
    """Backed up once, and idle since."""
    assert stage.run().status is Status.OK
    assert stage.held() == stage.truth()
    stage.run()
    return stage


def documents() -> list[bytes]:
    """Rows of the public documents, and one of each kind of media in their shapes."""
    lines = DOCUMENTS.read_bytes().splitlines(keepends=True)
    for number, shapes in enumerate((text(), image(), audio(), video((1, 13)), skipped()["annotations"])):
        label = {"label_kind": "Video" if "frames" in shapes else "Default", "version": "1.0.0", "id": f"l{number}", "annotations": shapes}
        row = {
            "data_row": {"id": f"row{number}", "row_data": "https://x/\u2028 \U0001f408 \x85"},
            "projects": {"p": {"name": "P", "labels": [label]}},
        }
        lines.append(orjson.dumps(row) + b"\n")
    return [*lines, b'{"data_row": {"id": "exact"}, "n": [1e-320, 0.1, 123456789012345678901234567890, 0.30000000000000004441, 1.0, -0.0]}\n']


@pytest.mark.parametrize("size", [1, 977, 1 << 20])
def test_rows_of_the_documents_go_through_value_for_value(stage: Stage, size: int) -> None:
    rows = documents()
    if size == 1:
        rows = rows[-1:]  # each byte is a request
    stage.box.delete(*stage.ids[len(rows) :])
    stage.box.files.chunk_size = size
    stage.box.plan_export(faults.lines(lambda _: rows))
    report = stage.run()
    assert (report.status, report.written, report.failed) == (Status.OK, len(rows), [])
    sent = {orjson.loads(row)["data_row"]["id"]: row for row in rows}
    files = stage.rig.files()
    assert {Path(key).stem: files[key] for key in stage.rig.tasks()} == sent  # byte for byte


def swap(stage: Stage) -> None:
    stage.cats.add({})
    stage.cats.remove(stage.ids[7])


EDITS: dict[str, Callable[[Stage], object]] = {
    "touched": lambda s: s.cats.touch(s.ids[0]),
    "label edited": lambda s: s.cats.edit_label(s.ids[1], image("a dog")),
    "label added": lambda s: s.cats.label(s.ids[18], image("one more")),
    "label deleted": lambda s: s.cats.delete_label(s.ids[2]),
    "reviewed": lambda s: s.cats.review(s.ids[8]),
    "metadata edited": lambda s: s.box.edit_metadata(s.ids[3], metadata("new")),
    "status set": lambda s: s.cats.set_status(s.ids[4], "DONE"),
    "rows added": lambda s: s.cats.add({}, {"labels": [text()]}),
    "row deleted": lambda s: s.box.delete(s.ids[5]),
    "row removed": lambda s: s.cats.remove(s.ids[6]),
    "row of another project added": lambda s: s.cats.join(s.box.add(next(iter(s.box.datasets.values())), {})[0]),
    "one added, one removed": swap,
    "all at once": lambda s: [edit(s) for name, edit in EDITS.items() if name != "all at once"],
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_people_do_is_there_after_one_run(backed: Stage, edit: str) -> None:
    EDITS[edit](backed)
    report = backed.run()
    assert (report.kind, report.status, report.failed) == (Kind.INCREMENTAL, Status.OK, [])
    assert backed.held() == backed.truth()


SILENT: dict[str, Callable[[Stage], object]] = {
    "attachments": lambda s: s.box.silent(s.ids[0], attachments=[{"type": "TEXT", "value": "seen"}]),
    "keys": lambda s: s.box.silent(s.ids[0], external_id="other", global_key="key"),
    "row data": lambda s: s.box.silent(s.ids[0], row_data="https://media.example.com/other.jpg"),
    "priority": lambda s: s.cats.set_priority(s.ids[0], 1),
    "feature renamed": lambda s: s.cats.rename_feature("cat", "feline"),
}


@pytest.mark.parametrize("edit", SILENT)
def test_what_no_filter_tells_is_there_after_one_full_run(backed: Stage, edit: str) -> None:
    SILENT[edit](backed)
    assert backed.run(Kind.FULL).status is Status.OK
    assert backed.held() == backed.truth()


def test_a_label_deleted_without_a_date_is_missed_by_the_count_of_labels(backed: Stage) -> None:
    backed.box.deleting_labels_is_activity = False
    backed.cats.edit_label(backed.ids[1], image("a dog"))
    backed.cats.delete_label(backed.ids[0])
    assert backed.run().status is Status.OK
    assert backed.held() == backed.truth()


def test_deleted_and_removed_are_told_apart(backed: Stage) -> None:
    backed.box.delete(backed.ids[0])
    backed.cats.remove(backed.ids[1])
    assert backed.run().trashed == 2
    assert {(line["task"], line["why"]) for line in backed.rig.feeds() if line["op"] == "trash"} == {
        (backed.ids[0], "deleted"), (backed.ids[1], "removed"),
    }  # fmt: skip


def test_nothing_moved_means_no_export(backed: Stage) -> None:
    before = backed.exports()
    for _ in range(3):
        assert backed.run(later=60).source_requests == 4  # the listing, two for settings, the probe
    assert backed.exports() == before


def test_a_full_run_rewrites_nothing_although_masks_have_other_addresses(backed: Stage) -> None:
    before = backed.rig.files()
    report = backed.run(Kind.FULL)
    assert (report.written, report.healed, report.unchanged) == (0, 0, 20)
    assert before == {key: data for key, data in backed.rig.files().items() if key in before}


def test_a_lost_checkpoint_costs_no_put_but_of_rows_with_masks(backed: Stage) -> None:
    shutil.rmtree(backed.rig.state)
    report = backed.run(take_over=True)
    assert (report.status, report.adopted, report.written) == (Status.OK, 19, 1)  # of 20, one has a mask
    assert backed.held() == backed.truth()


def test_a_change_under_an_index_that_lags_comes_with_a_later_run(backed: Stage) -> None:
    backed.box.index_lag = 300
    backed.cats.edit_label(backed.ids[0], image("late"))
    assert backed.run(later=1).status is Status.OK
    assert backed.held() != backed.truth()
    assert backed.run(later=300).status is Status.OK
    assert backed.held() == backed.truth()


def test_rows_that_the_index_lacks_are_told_and_come_later(backed: Stage) -> None:
    backed.box.index_lag = 300
    backed.cats.add({})
    report = backed.run(later=1)
    assert report.status is Status.PARTIAL
    assert [failure.error for failure in report.failed] == ["a full export holds 20 of 21 data rows; nothing is taken for deleted"]
    assert backed.run(later=300).status is Status.OK
    assert backed.held() == backed.truth()


def test_two_changes_within_a_second_with_a_run_between_them(backed: Stage) -> None:
    """A row's last activity has whole seconds: it tells the second change from the first no more."""
    moment = backed.clock.now()
    backed.box.clock = lambda: moment
    backed.cats.edit_label(backed.ids[0], image("first"))
    assert backed.run(later=0).written == 1
    backed.cats.edit_label(backed.ids[0], image("second"))
    backed.box.clock = backed.clock.now
    assert backed.run(later=60).written == 1
    assert backed.held() == backed.truth()


def test_a_removed_row_that_the_index_still_shows_leaves_with_a_later_run(backed: Stage) -> None:
    """Its counter is ahead of the index, not wrong: a full Run in between must not take the difference for granted."""
    backed.box.index_lag = 240
    backed.cats.remove(backed.ids[0])
    assert backed.run(Kind.FULL, later=1).trashed == 0
    assert backed.run(later=HOUR).trashed == 1
    assert backed.held() == backed.truth()


def test_an_error_line_that_names_no_row_says_nothing_about_the_counter(backed: Stage) -> None:
    backed.cats.remove(backed.ids[0])
    backed.box.plan_export(faults.error_lines(b'{"message": "something"}\n'))
    report = backed.run(Kind.FULL)
    assert (report.status, report.trashed) == (Status.PARTIAL, 0)
    assert backed.run().trashed == 1
    assert backed.held() == backed.truth()


# Faults: a Run during which `plant` has something go wrong, after a change. RECOVERED: nobody notices.
RECOVERED: dict[str, Callable[[Stage], object]] = {
    "429 with Retry-After": lambda s: s.box.plan("graphql", faults.rate_limited("7"), times=2, after=3),
    "429 without": lambda s: s.box.plan("graphql", faults.rate_limited(), times=3),
    "500 burst": lambda s: s.box.plan("any", faults.status(500), times=3, after=2),
    "503": lambda s: s.box.plan("project", faults.status(503), times=2),
    "INTERNAL_SERVER_ERROR in a 200": lambda s: s.box.plan("graphql", faults.refused("INTERNAL_SERVER_ERROR"), times=3, after=1),
    "dropped questions": lambda s: s.box.plan("graphql", faults.drop, times=3, after=4),
    "dropped files": lambda s: s.box.plan("file", faults.drop, times=3),
    "file cut off by a reset": lambda s: s.box.plan("file", faults.cut(700), times=5),
    "file cut at once": lambda s: s.box.plan("file", faults.cut(0), times=2),
    "file that is too short": lambda s: s.box.plan("file", faults.short(500), times=3),
    "file with 500": lambda s: s.box.plan("file", faults.status(500), times=2),
    "expired address": lambda s: s.box.plan("file", faults.expired, times=3),
    "numbers as strings": lambda s: s.box.plan("graphql", faults.numbers_as_strings, times=None),
    "lost answer to the mutation": lambda s: s.box.plan("exportDataRowsInProject", faults.lost(500), times=1),
    "lost connection at the mutation": lambda s: s.box.plan("exportDataRowsInProject", faults.lost(None), times=1),
    "slow export": lambda s: setattr(s.box.exports, "seconds", 600.0),
    "duplicate rows": lambda s: s.box.plan_export(faults.lines(lambda lines: lines + lines), times=1),
    "tiny files": lambda s: setattr(s.box.files, "chunk_size", 100),
}


@pytest.mark.parametrize("kind", [Kind.INCREMENTAL, Kind.FULL])
@pytest.mark.parametrize("fault", RECOVERED)
def test_what_passes_is_survived(backed: Stage, fault: str, kind: Kind) -> None:
    before = backed.exports()
    backed.cats.edit_label(backed.ids[0], image("a \U0001f408, \u2028 changed"))
    backed.cats.add({"external_id": "ü" * 300})
    RECOVERED[fault](backed)
    report = backed.run(kind)
    assert (report.status, report.failed, report.trashed) == (Status.OK, [], 0)
    assert backed.held() == backed.truth()
    assert backed.exports() == before + 1  # never a second one


def torn(lines: list[bytes]) -> list[bytes]:
    return [*lines[1:], *(line[:-9] + b"\n" for line in lines[:1])]


# REPORTED: the Run says exactly what is wrong. (fault, status, exit code, words)
REPORTED: dict[str, tuple[Callable[[Stage], object], Status, int, str]] = {
    "401": (lambda s: s.box.plan("graphql", faults.invalid_key, times=None), Status.FAILED, 12, "the key is refused"),
    "403": (lambda s: s.box.plan("graphql", faults.status(403), times=None), Status.FAILED, 12, "403 Forbidden"),
    "not allowed to see": (
        lambda s: s.box.plan("project", faults.refused("AUTHORIZATION_ERROR"), times=None), Status.FAILED, 12, "may not read this",
    ),
    "500 for ever": (lambda s: s.box.plan("graphql", faults.status(500), times=None), Status.FAILED, 1, "gave up after"),
    "nobody there": (lambda s: s.box.plan("any", faults.drop, times=None), Status.FAILED, 1, "gave up after"),
    "a login page": (lambda s: s.box.plan("graphql", faults.html, times=None), Status.FAILED, 1, "text/html instead of JSON"),
    "another shape": (lambda s: s.box.plan("dataRowCount", faults.edited(lambda data: {"project": {}})), Status.FAILED, 1, "without"),
    "an unknown query": (lambda s: s.box.plan("labelCount", faults.refused("GRAPHQL_VALIDATION_FAILED", "Unknown")), Status.FAILED, 1, "Unknown"),
    "FAILED": (lambda s: s.box.plan_export(faults.ends("FAILED")), Status.FAILED, 1, "is FAILED"),
    "CANCELED": (lambda s: s.box.plan_export(faults.ends("CANCELED")), Status.FAILED, 1, "is CANCELED"),
    "stuck": (lambda s: s.box.plan_export(faults.stuck), Status.FAILED, 1, "still IN_PROGRESS after 1200 s and is cancelled"),
    "files never whole": (lambda s: s.box.plan("file", faults.short(500), times=None), Status.FAILED, 1, "ends before it"),
    "no row in a full export": (
        lambda s: s.box.plan_export(faults.lines(lambda _: []), times=None), Status.PARTIAL, 3, "holds 0 of 20 data rows",
    ),
    "rows lacking": (
        lambda s: s.box.plan_export(faults.lines(lambda lines: lines[3:]), times=None), Status.PARTIAL, 3, "holds 17 of 20 data rows",
    ),
    "null header": (lambda s: s.box.plan("exportMetadataHeader", faults.null_header, times=None), Status.PARTIAL, 3, "holds 0 of 20 data rows"),
    "zero header": (lambda s: s.box.plan("exportMetadataHeader", faults.zero_header, times=None), Status.PARTIAL, 3, "holds 0 of 20 data rows"),
    "fewer lines than promised": (
        lambda s: s.box.plan_export(faults.lines(lambda lines: [*lines[1:], b"\n"]), times=None), Status.PARTIAL, 3, "20 data rows and held 19",
    ),
    "a row that is no JSON": (
        lambda s: s.box.plan_export(faults.lines(torn), times=None), Status.PARTIAL, 3, "not JSON",
    ),
    "a row without a name": (
        lambda s: s.box.plan_export(faults.lines(lambda lines: [*lines[1:], b'{"x": 1}\n']), times=None), Status.PARTIAL, 3, "not a data row",
    ),
    "a row on the error stream": (lambda s: s.box.broken.add(s.ids[1]), Status.PARTIAL, 3, "Failed to export data row"),
    "an error without a name": (
        lambda s: s.box.plan_export(faults.error_lines(b'{"message": "no"}\n'), times=None), Status.PARTIAL, 3, "could not export it",
    ),
}  # fmt: skip


def heal(stage: Stage) -> None:
    for plan in stage.box._plans._all:
        plan.stop()
    stage.box.broken.clear()


@pytest.mark.parametrize("fault", REPORTED)
def test_what_does_not_pass_is_told_and_deletes_nothing(backed: Stage, fault: str) -> None:
    plant, status, code, words = REPORTED[fault]
    before = backed.held()
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    plant(backed)
    report = backed.run(Kind.FULL)
    assert (report.status, report.exit_code) == (status, code)
    said = report.error or " ".join(failure.error for failure in report.failed)
    assert words in said
    assert backed.box.key not in said
    assert "Signature" not in said
    assert status is Status.FAILED or len(report.failed) == 1
    assert report.trashed == report.deleted == 0
    assert backed.held().keys() == before.keys()
    heal(backed)
    healthy = backed.run()
    assert (healthy.status, healthy.failed) == (Status.OK, [])
    assert backed.held() == backed.truth()


@pytest.mark.parametrize("fault", REPORTED)
def test_the_first_backup_is_complete_with_the_next_healthy_run(stage: Stage, fault: str) -> None:
    plant, status, code, _ = REPORTED[fault]
    plant(stage)
    report = stage.run()
    assert (report.status, report.exit_code) == (status, code)
    heal(stage)
    healthy = stage.run()
    assert (healthy.status, healthy.failed) == (Status.OK, [])
    assert stage.held() == stage.truth()


def test_masks_and_frames_stand_beside_their_row(stage: Stage) -> None:
    stage.box.exports.frames_as_url = True
    films, nothing = stage.cats.add({"labels": [video((1, 5))]}, {"labels": [skipped() | {"annotations": video()}]})
    label = stage.box.state(films).members[stage.cats.id].labels[0]["id"]
    stage.configure(masks=True)
    assert stage.run().status is Status.OK
    files = stage.rig.files()
    assert files[f"{stage.cats.id}/{stage.ids[19]}/mask-m1-1.png"] == png("m1")
    assert [orjson.loads(line)["frameNumber"] for line in files[f"{stage.cats.id}/{films}/frames-{label}.ndjson"].splitlines()] == [1, 5]
    assert not [key for key in files if f"/{nothing}/" in key]
    assert stage.box.count("frames") == 2
    assert stage.run(Kind.FULL).unchanged == 22
    assert stage.box.count("mask") == 1  # held, and nothing changed
    stage.box.delete(films)
    stage.run()
    assert not [key for key in stage.rig.files() if f"/{films}/" in key and "_trash" not in key]


def test_a_file_of_a_row_that_cannot_be_had_is_one_failure_until_it_can(stage: Stage) -> None:
    stage.configure(masks=True)
    stage.box.plan("mask", faults.status(404), times=None)
    for _ in range(2):
        report = stage.run()
        assert (report.status, len(report.failed)) == (Status.PARTIAL, 1)
    heal(stage)
    assert stage.run().status is Status.OK
    assert f"{stage.cats.id}/{stage.ids[19]}/mask-m1-1.png" in stage.rig.files()
    assert stage.run().status is Status.OK
