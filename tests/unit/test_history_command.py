"""What people see of the history: `syncd history`, `syncd prune`, and what changed from one version of a task to the next."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import syncd.cli.commands  # noqa: F401 - enrols them
from syncd import encode
from syncd.cli.main import app
from syncd.config import load, open_checkpoint
from syncd.config.shape import History
from syncd.errors import ConfigError, TargetError
from syncd.keys import SIDE, Layout, Named, decode
from syncd.keys import encode as part
from syncd.targets import local
from syncd.upkeep.history import Change, compare, versions_of
from tests.fakes.rig import Rig, TestClock
from tests.fakes.worlds import LabelStudioWorld

CONFIG = """\
sources: {drop: {type: files, path: ./exports}}
targets: {disk: {type: local, path: ./backup}, s3: {type: s3, bucket: b}}
syncs:
  cats: {source: drop, target: disk, history: {keep_last: 2}, trash_retention: 10d, max_delete: {at_least: 1}}
"""
ANN, BOB = {"id": 1, "email": "ann@example.com"}, {"id": 2, "email": "bob@example.com"}


# what changed


def annotation(number: int, user: dict[str, Any] = ANN, at: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    return {"id": number, "completed_by": user, "created_at": "2025-12-31T00:00:00Z", "updated_at": at, "result": [], "updated_by": None} | more


def test_annotations_tell_who_and_when() -> None:
    old = {"id": 7, "data": {"a": 1, "b": 2}, "annotations": [annotation(5), annotation(6, BOB)], "updated_at": "x", "total_annotations": 2}
    changed = annotation(6, BOB, "2026-02-01T00:00:00Z", result=[{"id": "r"}], updated_by=1)
    new = {"id": 7, "data": {"a": 1, "b": 3}, "annotations": [changed, annotation(8)], "updated_at": "y", "total_annotations": 3}
    assert compare(old, new) == [
        Change("changed", "annotation", "6", "ann@example.com", "2026-02-01T00:00:00Z", ("result", "updated_by")),
        Change("added", "annotation", "8", "ann@example.com", "2026-01-01T00:00:00Z"),
        Change("removed", "annotation", "5", "ann@example.com", "2026-01-01T00:00:00Z"),
        Change("changed", "field", "data", fields=("b",)),
    ]


def test_predictions_drafts_and_other_fields() -> None:
    old = {"predictions": [{"id": 1, "model_version": "m1", "score": 0.1}], "drafts": [], "meta": {"k": 1}}
    new = {"predictions": [{"id": 1, "model_version": "m2", "score": 0.1}], "drafts": [{"id": 3, "user": "bob@example.com", "created_at": "t"}]}
    assert compare(old, new | {"meta": {"k": 2}, "inner_id": 4}) == [
        Change("changed", "prediction", "1", "m2", "", ("model_version",)),
        Change("added", "draft", "3", "bob@example.com", "t"),
        Change("changed", "field", "meta", fields=("k",)),
        Change("added", "field", "inner_id"),
    ]


def test_labels_of_a_data_row_stand_by_project_and_run() -> None:
    def label(content: str, by: str = "ann@example.com") -> dict[str, Any]:
        return {"id": "L1", "label_details": {"created_by": by, "created_at": "t0", "updated_at": "t1"}, "annotations": {"objects": [content]}}

    old = {"data_row": {"id": "r"}, "projects": {"P": {"name": "Cats", "labels": [label("x")]}}, "experiments": {}}
    new = {
        "data_row": {"id": "r"},
        "projects": {"P": {"name": "Dogs", "labels": [label("y")]}, "Q": {"name": "Q", "labels": [label("z", "bob@example.com")]}},
        "experiments": {"M": {"name": "model", "runs": {"R": {"labels": [label("x")], "predictions": [label("p")], "split": "TRAIN"}}}},
    }
    assert {(change.op, change.kind, change.id, change.by) for change in compare(old, new)} == {
        ("changed", "label", "projects/P/L1", "ann@example.com"),
        ("added", "label", "projects/Q/L1", "bob@example.com"),
        ("added", "label", "experiments/M/runs/R/L1", "ann@example.com"),
        ("added", "prediction", "experiments/M/runs/R/L1", "ann@example.com"),
        ("changed", "field", "projects", ""),
        ("changed", "field", "experiments", ""),
    }


def test_what_only_moves_with_an_annotation_is_no_change_of_its_own() -> None:
    assert compare({"updated_at": "x", "total_annotations": 1}, {"updated_at": "y", "total_annotations": 2}) == []


def test_parts_without_an_id_of_their_own_are_told_apart() -> None:
    old, new = ({"annotations": [{"result": []}, {"id": 1}, {"id": 1, "result": last}]} for last in ([], [1]))
    assert compare(old, new) == [Change("changed", "annotation", "#3", fields=("result",))]


def test_numbers_are_compared_exactly() -> None:
    old, new = (encode.parse(b'{"data":{"n":0.1234567890123456789%d}}' % last) for last in (1, 2))
    assert compare(old, new) == [Change("changed", "field", "data", fields=("n",))]
    assert compare(old, old) == []


texts = st.text(max_size=3)
leaves = st.none() | st.booleans() | st.integers(-9, 9) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5)
names = st.sampled_from(["id", "data", "annotations", "predictions", "drafts", "projects", "labels", "completed_by", "updated_at", "x"])
documents = st.dictionaries(names, values | st.lists(st.dictionaries(names, values, max_size=3), max_size=3), max_size=5)


@given(old=documents, new=documents)
def test_any_two_documents_can_be_compared_and_equal_ones_alone_have_no_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert compare(old, old) == []
    mirrored = {"added": "removed", "removed": "added", "changed": "changed"}
    there = {(change.op, change.kind, change.id) for change in compare(old, new)}
    back = {(mirrored[change.op], change.kind, change.id) for change in compare(new, old)}
    assert there == back
    if encode.dumps(old) == encode.dumps(new):
        assert not there


def test_a_label_studio_tells_who_did_what(tmp_path: Path) -> None:
    world = LabelStudioWorld(tmp_path)
    task = int(world.add("Cats", {"text": "a"})[0])
    cats, source = world._projects["Cats"], world.open({})
    rig = Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), TestClock()), tmp_path / "state")
    rig.rules = {"history": {"keep_last": 9}, "drafts_every": "0s"}
    acts: list[Callable[[], object]] = [
        lambda: None,
        lambda: cats.annotate(task),
        lambda: cats.draft(task),
        lambda: cats.edit(task, data={"text": "b"}),
        lambda: cats.delete_drafts(task),
    ]
    for act in acts:
        act()
        world.wait(60)
        assert rig.run().error == ""
    with closing(rig.open_target()) as target:
        said = [[(change.op, change.kind, change.by) for change in each.changes or ()] for each in versions_of(target, Layout(), "1", str(task))]
    ann = "ann@example.com"
    assert said == [[("removed", "draft", ann)], [("changed", "field", "")], [("added", "draft", ann)], [("added", "annotation", ann)], []]
    source.close()
    world.close()


# keys

ids = st.one_of(st.sampled_from(["", "a.json", "_history", "A", "a", "x" * 300, "a/b", "~", "json"]), st.text(st.characters(codec=None), max_size=6))


@given(project=ids, task=ids, side=st.none() | ids, at=st.integers(0, 4_000_000_000_000_000), kind=st.sampled_from(["", "datasets/"]))
def test_a_version_key_tells_what_it_is_of_and_is_nothing_else(project: str, task: str, side: str | None, at: int, kind: str) -> None:
    if SIDE in project + task + (side or ""):
        return
    for layout in (Layout(), Layout("in/p={project}/t/{task}-x.json")):
        key = layout.history(kind + project, task + (SIDE + side if side is not None else ""), at)
        found, home = layout.named(key), layout.task(kind + project, task + (SIDE + side if side is not None else ""))
        wanted = decode(part(task)) + (SIDE + decode(part(side)) if side is not None else "")
        assert found == Named(kind + decode(part(project)), wanted, home, "history", at)


@pytest.mark.parametrize(
    "key",
    [
        "1/_history/2/20261120T120000.json",
        "1/_history/2/20261320T120000.000000Z.json",
        "1/_history/B/20261120T120000.000000Z.json",  # `encode` spells it b~1
        "1/_history/2/20261120T120000.000000Z/a.json",
        "1/_history/2/20261120T120000.000000Z",
        "_history/2/20261120T120000.000000Z.json",
        "1/x/_history/2/20261120T120000.000000Z.json",
    ],
)
def test_what_syncd_never_writes_is_no_version(key: str) -> None:
    assert Layout().named(key) is None


# the config


def history_of(folder: Path, said: str, target: str = "s3") -> History | None:
    path = folder / "syncd.yaml"
    path.write_text(CONFIG.replace("target: disk", f"target: {target}").replace("{keep_last: 2}", said))
    return load(path, {"MODE": "bucket"}).syncs["cats"].history


def test_history_in_a_config(tmp_path: Path) -> None:
    assert history_of(tmp_path, "{keep_last: 10, keep_within: 90d}") == History(keep_last=10, keep_within=90 * 86400.0)
    assert history_of(tmp_path, "{keep_last: 1}") == History(keep_last=1)
    assert history_of(tmp_path, "bucket") == history_of(tmp_path, "'${MODE}'") == History(bucket=True)
    assert history_of(tmp_path, "''") is None


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("{}", "leave history out to keep none"),
        ("{keep_last: 0}", "greater than or equal to 1"),
        ("{keep_within: 0s}", "greater than 0"),
        ("buckets", "the one word bucket"),
        ("{bucket: true, keep_last: 1}", "or write `history: bucket`"),
    ],
)
def test_a_history_that_means_nothing_is_refused(tmp_path: Path, said: str, means: str) -> None:
    with pytest.raises(ConfigError) as raised:
        history_of(tmp_path, said)
    assert [(problem.line, means in problem.message) for problem in raised.value.problems] == [(4, True)]


def test_a_folder_keeps_no_versions_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        history_of(tmp_path, "bucket", "disk")
    assert [(problem.line, problem.message, problem.hint) for problem in raised.value.problems] == [
        (4, "syncs.cats.history: a local Target keeps no versions of its own", "write how many: history: {keep_last: 10, keep_within: 90d}")
    ]


# the commands


class Desk:
    """A Sync of a folder, and a person typing commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "syncd.yaml"
        self.config.write_text(CONFIG)
        for project in ("a", "b"):
            (folder / "exports" / project).mkdir(parents=True)
            (folder / "exports" / project / "1.json").write_text('{"id": 1}')

    def edit(self, version: int, project: str = "a", task: int = 7) -> None:
        body = {"id": task, "data": {"version": version}, "annotations": [annotation(n) for n in range(version)]}
        (self.folder / f"exports/{project}/{task}.json").write_text(json.dumps(body))
        assert self.type("sync", "--full").exit_code == 0

    def type(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "-c", str(self.config)], catch_exceptions=False)

    def objects(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.type(*words, "--json").stdout.splitlines()]

    def versions(self) -> list[Path]:
        return sorted(self.folder.glob("backup/*/_history/*/*"))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("COLUMNS", "200")
    return Desk(tmp_path)


def test_history_shows_each_version_and_what_changed(desk: Desk) -> None:
    for version in range(3):
        desk.edit(version)
    shutil.rmtree(desk.folder / ".syncd")
    first, second, third = desk.objects("history", "cats", "7")
    assert [(each["where"], each["project"], each["until"]) for each in (first, second, third)] == [
        ("now", "a", None), ("history", "a", first["since"]), ("history", "a", second["since"]),
    ]  # fmt: skip
    said = [(change["op"], change["kind"], change["id"], change["by"]) for change in first["changes"]]
    assert said == [("added", "annotation", "1", "ann@example.com"), ("changed", "field", "data", "")]
    assert third["changes"] is None
    lines = desk.type("history", "cats", "7", "--project", "a").stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [lines[0], lines[3], lines[6]]
    assert lines[0].startswith("since 20")
    assert " until now  " in lines[0]
    assert lines[1:3] == ["  + annotation 1 by ann@example.com at 2026-01-01T00:00:00Z", "  ~ field data: version"]
    assert lines[6].startswith("until 20")


def test_history_of_a_deleted_task_ends_in_the_trash(desk: Desk) -> None:
    desk.edit(0)
    desk.edit(1)
    (desk.folder / "exports/a/7.json").unlink()
    assert desk.type("sync").exit_code == 0
    trash, history = desk.objects("history", "cats", "7")
    assert (trash["where"], len(trash["until"]), history["where"]) == ("trash", 10, "history")
    assert ", then deleted  " in desk.type("history", "cats", "7").stdout


def test_history_finds_a_task_by_an_id_that_its_key_shortens(desk: Desk) -> None:
    long = "x" * 300
    (desk.folder / "exports" / "a" / "long.json").write_text(json.dumps({"id": long}))
    assert desk.type("sync").exit_code == 0
    assert desk.type("history", "cats", long).exit_code == 0


def test_history_needs_to_know_which_task(desk: Desk) -> None:
    assert desk.type("sync").exit_code == 0
    several = desk.type("history", "cats", "1")
    assert (several.exit_code, "--project: a, b" in " ".join(several.output.split())) == (2, True)
    assert desk.type("history", "cats", "1", "--project", "b").exit_code == 0
    nobody = desk.type("history", "cats", "99")
    assert (nobody.exit_code, "no version of task 99" in nobody.stderr) == (1, True)


def aged(desk: Desk, days: int) -> None:
    """Everything kept becomes that much older, by its name."""
    layout = Layout()
    for path in desk.versions():
        found = layout.named(str(path.relative_to(desk.folder / "backup")))
        assert found is not None
        assert found.task is not None
        path.rename(desk.folder / "backup" / layout.history(found.project, found.task, found.at - days * 86_400_000_000))
    for path in desk.folder.glob("backup/*/_trash/*"):
        path.rename(path.with_name(time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86400))))


def refuse(*_: object) -> None:
    raise TargetError("nothing can be deleted there")


def test_prune_shows_and_removes_what_no_rule_keeps(desk: Desk) -> None:
    for version in range(4):
        desk.edit(version)
    desk.edit(0, "b", 8)
    (desk.folder / "exports/b/8.json").unlink()
    assert desk.type("sync").exit_code == 0
    aged(desk, 20)
    desk.config.write_text(CONFIG.replace("keep_last: 2", "keep_last: 1, keep_within: 30d"))
    assert desk.type("prune", "--dry-run").stdout.splitlines()[-1] == "cats: 1 from the trash, 0 from the history would go"
    desk.config.write_text(CONFIG.replace("keep_last: 2", "keep_last: 1, keep_within: 10d"))
    before = desk.versions()
    lines = desk.type("prune", "--dry-run").stdout.splitlines()
    assert ["cats: 1 from the trash, 1 from the history would go"] == lines[-1:]
    assert [f"  - {before[0].relative_to(desk.folder / 'backup')}"] == lines[1:2]
    assert desk.versions() == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.LocalTarget, "delete", refuse)
        failed = desk.type("prune", "--json")
    assert (failed.exit_code, failed.stdout) == (1, "")  # nothing is told to be gone
    pruned = desk.objects("prune", "cats")
    assert ["b/_trash", "a/_history/7"] == [each["key"].rsplit("/", 2 if "_trash" in each["key"] else 1)[0] for each in pruned]
    assert desk.versions() == before[1:]
    assert not any(path.is_file() for path in desk.folder.glob("backup/*/_trash/*/*"))
    assert desk.type("prune").stdout == "cats: 0 from the trash, 0 from the history gone\n"


def test_prune_leaves_the_place_to_its_owner(desk: Desk) -> None:
    for version in range(4):
        desk.edit(version)
    checkpoint = open_checkpoint(load(desk.config, os.environ))
    held = desk.type("prune")
    assert (held.exit_code, str(os.getpid()) in held.stderr) == (11, True)
    assert desk.type("prune", "--dry-run").exit_code == 0
    checkpoint.close()
    (desk.folder / "backup/_syncd/owner.json").write_text('{"checkpoint": "another", "sync": "cats"}')
    desk.config.write_text(CONFIG.replace("keep_last: 2", "keep_last: 1"))
    assert desk.type("prune").exit_code == 11
    assert len(desk.versions()) == 3
