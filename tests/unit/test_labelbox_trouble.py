"""Labelbox as a Source: deletions that the Guard holds, files that vanished from the Target, and answers that nobody should give."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.checkpoint import sqlite
from syncd.errors import TaskError
from syncd.model import Kind, Status
from syncd.sources.labelbox_rows import row_of
from syncd.targets import local
from syncd.upkeep.repair import repair
from syncd.upkeep.verify import verify
from tests.fakes import labelbox_faults as faults
from tests.fakes.labelbox_payloads import image, masked
from tests.fakes.mortal import Died, Life
from tests.unit.test_labelbox import HOUR, Stage, backed, heal, stage

__all__ = ["backed", "stage"]  # fixtures


def test_deletions_that_the_guard_holds_cost_no_export_each_run(stage: Stage) -> None:
    stage.rig.rules["max_delete"] = {"fraction": 0.0, "at_least": 1}
    assert stage.run().status is Status.OK
    stage.box.delete(*stage.ids[:3])
    first = stage.run()
    assert (first.status, first.trashed) == (Status.GUARDED, 0)
    before = stage.exports()
    for _ in range(3):
        again = stage.run()
        assert (again.status, again.plan_id) == (Status.GUARDED, first.plan_id)
    assert stage.exports() == before
    stage.cats.edit_label(stage.ids[4], image("a dog"))
    edited = stage.run()
    assert (edited.status, edited.plan_id, edited.written) == (Status.GUARDED, first.plan_id, 1)
    assert stage.exports() == before + 1  # of what changed
    stage.box.delete(stage.ids[5])
    assert stage.run().plan_id != first.plan_id
    stage.run()
    before = stage.exports()
    confirmed = stage.run(confirm_deletes=stage.run().plan_id)
    assert (confirmed.status, confirmed.trashed) == (Status.OK, 4)
    assert stage.exports() == before + 2  # they are asked for by their ids, and in the whole catalog
    assert stage.held() == stage.truth()
    assert stage.run().status is Status.OK
    assert stage.exports() == before + 2


def test_a_row_that_comes_back_while_the_guard_holds_it_is_no_deletion_any_more(stage: Stage) -> None:
    stage.rig.rules["max_delete"] = {"fraction": 0.0, "at_least": 1}
    stage.run()
    stage.cats.remove(*stage.ids[:3])
    held = stage.run()
    assert held.status is Status.GUARDED
    stage.cats.join(stage.ids[0])
    fewer = stage.run()
    assert (fewer.status, fewer.plan_id == held.plan_id) == (Status.GUARDED, False)
    stage.cats.join(stage.ids[1])
    assert (stage.run().trashed, stage.run().status) == (1, Status.OK)
    assert stage.held() == stage.truth()


def test_files_of_rows_that_are_missing_in_the_target_are_mended(stage: Stage) -> None:
    stage.configure(masks=True)
    stage.run()
    stage.run()
    keys = [f"{stage.cats.id}/{stage.ids[19]}/mask-m1-1.png", f"{stage.cats.id}/{stage.ids[19]}.json", f"{stage.cats.id}/{stage.ids[0]}.json"]
    whole = stage.rig.files()
    for key in keys:
        (stage.folder / "backup" / key).unlink()
    stage.clock.wait(1)
    with closing(sqlite.open(stage.rig.state)) as checkpoint, closing(stage.rig.open_target()) as target:
        job = stage.rig.job(checkpoint, target)
        mended = repair(job, verify(job))
        assert mended.report.kind is Kind.INCREMENTAL
    files = stage.rig.files()
    assert {key: files.get(key) is not None for key in keys} == dict.fromkeys(keys, True)
    assert files[keys[0]] == whole[keys[0]]
    assert stage.held() == stage.truth()
    assert stage.box.count("mask") == 2
    assert stage.run().status is Status.OK


SPOILED = st.sampled_from(
    [
        b"\xff",
        b"\x00",
        b"\n ",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\ud800",
        b"\\u12",
        b"NaN",
        b"1e",
        b"01",
        b"e",
        b"-",
        b"\xed\xa0\x80",
    ]
)


@given(st.integers(0, 400), st.integers(0, 3), SPOILED | st.just(b""))
def test_no_line_is_kept_that_readers_would_refuse(at: int, cut: int, put: bytes) -> None:
    line = b'{"data_row":{"id":"r1","details":{"last_activity_at":"2024-01-01T00:00:00.000+00:00"}},"n":[1,-2.50,3e4,true,null],'
    line += b'"projects":{"p":{"labels":[{"id":"l","annotations":{"objects":[{"name":"\xc3\xbc \\u00fc","mask":{"url":"https://x/tasks/t/masks/m"}}]}}]}},"media_attributes":{}}'
    spoiled = line[:at] + put + line[at + cut :]
    try:
        expected: Any = orjson.loads(spoiled)
    except ValueError:
        with pytest.raises(TaskError):
            row_of(spoiled, masks=True)
        return
    try:
        row = row_of(spoiled, masks=True)
    except TaskError:
        assert not isinstance(expected, dict) or not isinstance(expected.get("data_row"), dict) or not isinstance(expected["data_row"].get("id"), str)
    else:
        assert (row.task.id, row.task.body) == (expected["data_row"]["id"], spoiled + b"\n")


def rows(change: Callable[[list[Any]], list[Any]]) -> Any:
    """The rows of an export, changed as values."""
    return faults.lines(lambda lines: [orjson.dumps(row) + b"\n" for row in change([orjson.loads(line) for line in lines])])


def header(**numbers: object) -> Any:
    return faults.edited(lambda _: {"task": {"exportMetadataHeader": numbers}})


def chunk(**parts: object) -> Any:
    def change(data: Any) -> None:
        data["task"]["exportFileFromOffset"].update(parts)

    return faults.edited(change)


# What no server should say. None of it may delete, stop the next healthy Run from being right, or end in a traceback.
NONSENSE: dict[str, Callable[[Stage], object]] = {
    "no rows": lambda s: s.box.plan_export(rows(lambda _: [])),
    "other rows": lambda s: s.box.plan_export(
        rows(lambda all_: [row | {"data_row": row["data_row"] | {"id": "other" + row["data_row"]["id"]}} for row in all_])
    ),
    "one id for all": lambda s: s.box.plan_export(rows(lambda all_: [row | {"data_row": row["data_row"] | {"id": "x"}} for row in all_])),
    "ids as numbers": lambda s: s.box.plan_export(rows(lambda all_: [row | {"data_row": row["data_row"] | {"id": 7}} for row in all_])),
    "no ids": lambda s: s.box.plan_export(rows(lambda all_: [row | {"data_row": None} for row in all_])),
    "lists": lambda s: s.box.plan_export(rows(lambda all_: [[row] for row in all_])),
    "a promise of more": lambda s: s.box.plan("exportMetadataHeader", header(totalSize="9" * 30, totalLines="1")),
    "a negative size": lambda s: s.box.plan("exportMetadataHeader", header(totalSize=-5, totalLines=3)),
    "a size that is a list": lambda s: s.box.plan("exportMetadataHeader", header(totalSize=[1], totalLines=3)),
    "a size that is true": lambda s: s.box.plan("exportMetadataHeader", header(totalSize=True, totalLines=True)),
    "digits of another script": lambda s: s.box.plan("exportMetadataHeader", header(totalSize="\u00b2", totalLines="\u0663")),
    "more digits than a number may have": lambda s: s.box.plan("exportMetadataHeader", header(totalSize="9" * 5000, totalLines=3)),
    "a file before its place": lambda s: s.box.plan("exportFileFromOffset", chunk(offsets={"start": 5, "end": 2})),
    "a file without address": lambda s: s.box.plan("exportFileFromOffset", chunk(file=None)),
    "an address that is none": lambda s: s.box.plan("exportFileFromOffset", chunk(file="http://[:x/"), times=None),
    "an address of another kind": lambda s: s.box.plan("exportFileFromOffset", chunk(file="file:///etc/passwd"), times=None),
    "no file": lambda s: s.box.plan("exportFileFromOffset", faults.edited(lambda _: {"task": {"exportFileFromOffset": None}})),
    "no task": lambda s: s.box.plan("exportMetadataHeader", faults.edited(lambda _: {"task": None})),
    "no id of a task": lambda s: s.box.plan("exportDataRowsInProject", faults.edited(lambda _: {"exportDataRowsInProject": {"taskId": 5}})),
    "data that is a list": lambda s: s.box.plan("graphql", faults.edited(lambda _: [1]), times=3, after=2),
    "no data": lambda s: s.box.plan("graphql", faults.edited(lambda _: {}), times=3, after=2),
    "counts that are null": lambda s: s.box.plan(
        "labelCount", faults.edited(lambda _: {"project": {"dataRowCount": None, "labelCount": None, "lastActivityTime": None}})
    ),
    "a count of none": lambda s: s.box.plan(
        "labelCount", faults.edited(lambda _: {"project": {"dataRowCount": 0, "labelCount": 0, "lastActivityTime": None}}), times=None
    ),
    "a time beyond time": lambda s: s.box.plan(
        "labelCount", faults.edited(lambda _: {"project": {"dataRowCount": 20, "labelCount": 1, "lastActivityTime": "99999-01-01"}})
    ),
    "no projects": lambda s: s.box.plan("projects", faults.edited(lambda _: {"projects": []}), times=None),
    "projects that are null": lambda s: s.box.plan("projects", faults.edited(lambda _: {"projects": None})),
}


@pytest.mark.parametrize("kind", [Kind.INCREMENTAL, Kind.FULL])
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_deletes_nothing_and_is_over_when_it_ends(backed: Stage, nonsense: str, kind: Kind) -> None:
    before = backed.held()
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    NONSENSE[nonsense](backed)
    report = backed.run(kind)
    assert report.deleted == 0
    assert not {line["task"] for line in backed.rig.feeds() if line["op"] == "trash"} & set(backed.ids)
    assert before.keys() <= backed.held().keys()
    heal(backed)
    backed.box._plans._all.clear()
    backed.run()
    healthy = backed.run(Kind.FULL)
    assert healthy.status in {Status.OK, Status.GUARDED}
    assert {key: body for key, body in backed.held().items() if key in before} == backed.truth()


def test_a_key_that_expires_in_the_middle_of_an_export_loses_nothing(backed: Stage) -> None:
    backed.box.files.chunk_size = 5000
    backed.cats.edit_label(backed.ids[0], image("a dog"))
    plan = backed.box.plan("graphql", faults.invalid_key, times=None, after=12)
    before = backed.exports()
    report = backed.run(Kind.FULL)
    assert (report.status, report.exit_code, report.trashed) == (Status.FAILED, 12, 0)
    plan.stop()
    assert backed.run().status is Status.OK
    assert backed.held() == backed.truth()
    assert backed.exports() == before + 1


def test_the_last_of_two_versions_in_one_export_is_kept(backed: Stage) -> None:
    def twice(all_: list[Any]) -> list[Any]:
        return [row | {"media_attributes": {"old": 1}} for row in all_] + all_

    backed.box.plan_export(rows(twice))
    assert backed.run(Kind.FULL).status is Status.OK
    assert backed.held() == backed.truth()


def dying(stage: Stage, k: int, kind: Kind | None, *, after: bool) -> bool:
    """A Run that dies at its k-th effect, and one that does not; whether the first one died."""
    life = Life(k, after=after)
    with suppress(Died):
        stage.rig.run(kind, life)
    stage.clock.wait(1)
    report = stage.rig.run()
    assert (report.status, report.failed) == (Status.OK, []), k
    assert stage.held() == stage.truth(), k
    return life.effects >= k


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_first_run_that_dies_anywhere_is_made_whole_by_the_next(stage: Stage, after: bool) -> None:
    stage.configure(masks=True)
    k, died = 1 + after, True
    while died:
        k += 5
        place = local.Config(type="local", path=stage.folder / f"backup-{k}")
        stage.rig.state = stage.folder / f"state-{k}"
        stage.rig.open_target = lambda place=place: local.open(place, stage.clock)  # type: ignore[misc]
        died = dying(stage, k, None, after=after)
    assert k > 20


@pytest.mark.parametrize("kind", [Kind.INCREMENTAL, Kind.FULL])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_later_run_that_dies_anywhere_is_made_whole_by_the_next(backed: Stage, kind: Kind, after: bool) -> None:
    k, died = 0, True
    while died:
        k += 1
        backed.cats.edit_label(backed.ids[0], image(f"a dog {k}"))
        backed.box.delete(backed.cats.add({}, {})[0])
        if k % 2 and len(backed.ids) > 9:
            backed.box.delete(backed.ids.pop(3))
        backed.clock.wait(HOUR)
        died = dying(backed, k, kind, after=after)
    assert k > 10


@pytest.mark.parametrize(("times", "status"), [(1, Status.PARTIAL), (2, Status.FAILED)])
def test_one_file_that_the_server_fails_on_stops_nothing_and_a_server_that_is_down_does(stage: Stage, times: int, status: Status) -> None:
    stage.cats.add({"labels": [masked("m2")]}, {"labels": [masked("m3")]})
    stage.configure(masks=True, retry_for=0.01)
    stage.box.plan("mask", faults.status(500), times=times)
    report = stage.run()
    assert (report.status, report.trashed) == (status, 0)
    assert stage.run().status is Status.OK
    assert stage.held() == stage.truth()
    assert len([key for key in stage.rig.files() if key.endswith("-1.png")]) == 3
