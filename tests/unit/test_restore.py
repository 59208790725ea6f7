"""`syncd restore` to a folder: what stood then is what comes back, byte for byte, and what can't come back is named; nothing else is touched."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from syncd import encode, keys
from syncd.clock import format_time
from syncd.config import open_folder
from syncd.errors import SyncdError
from syncd.keys import SIDE, Layout
from syncd.model import Kind
from syncd.targets import local
from syncd.upkeep.asof import Found, Question, find
from syncd.upkeep.restore import Restored, to_folder
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.rig import DAY, Rig, TestClock

FOREVER = {"history": {"keep_last": 1000}, "trash_retention": "3650d", "max_delete": {"fraction": 1.0, "at_least": 1000}}


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource()
    source.add("1", 5)
    return source


@pytest.fixture
def rig(source: MemorySource, tmp_path: Path) -> Rig:
    clock = TestClock()
    rig = Rig(source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), clock), tmp_path / "state", clock, FOREVER)
    rig.run()
    return rig


def look(rig: Rig, **question: Any) -> list[Found]:
    with closing(rig.open_target()) as target:
        return list(find(target, Layout(rig.rules.get("key", "{project}/{task}.json")), rig.clock, Question(**question)))


def bodies(found: Sequence[Found]) -> dict[str, Any]:
    """Tasks and settings by key; a side file's bytes."""
    assert all(not one.why for one in found), [one for one in found if one.why]
    return {one.key: one.data if SIDE in (one.task or "") else orjson.loads(one.data or b"") for one in found}


def edit(source: MemorySource, task: str, **fields: object) -> None:
    source.now += SECOND
    source.put("1", task, {"id": int(task), "data": {"text": "a"}, "annotations": [], **fields})


def folder(rig: Rig, path: Path, found: Sequence[Found] | None = None, *, force: bool = False, **question: Any) -> list[Restored]:
    with closing(open_folder(path, rig.clock)) as target:
        same = {name: str(value) for name, value in question.items()}
        return to_folder(look(rig, **question) if found is None else found, target, Layout(), same, force=force, on_progress=None)


@pytest.mark.parametrize(("seed", "key"), [(0, "{project}/{task}.json"), (1, "labels/p-{project}/{task}/t.json")])
def test_each_moment_of_many_weeks_comes_back_as_it_was(rig: Rig, source: MemorySource, tmp_path: Path, seed: int, key: str) -> None:
    """Edits, new tasks, deletions, ids that come again, side files and Runs that change nothing; then every moment between two Runs."""
    rig.rules = FOREVER | {"key": key}
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "other"), rig.clock)
    rig.state = tmp_path / "other state"
    rig.run()
    chance, moments, count = random.Random(seed), list[tuple[int, dict[str, Any]]](), 5
    for week in range(30):
        rig.clock.micros += chance.randrange(DAY // 10, 3 * DAY)
        tasks = source.world["1"].tasks
        for _ in range(chance.randrange(4)):
            source.now += SECOND
            kind, task = chance.random(), chance.choice([*tasks])
            if kind < 0.2 and len(tasks) > 2:
                del tasks[task]
            elif kind < 0.4:
                count += 1
                edit(source, str(chance.randrange(1, count + 1)), week=week)
            elif kind < 0.6:
                source.put("1", task.partition(SIDE)[0] + SIDE + "mask.png", bytes([week]))
            elif SIDE not in task:
                edit(source, task, week=week, big=orjson.Fragment(str(2**70 + week)))
        report = rig.run()
        assert not report.failed
        rig.clock.wait(1)
        moments.append((rig.clock.now(), bodies(look(rig))))
    for at, then in moments:
        assert bodies(look(rig, at=at)) == then


def test_a_time_between_two_runs_is_as_after_the_first(rig: Rig, source: MemorySource) -> None:
    first, now = bodies(look(rig)), rig.clock.now()
    rig.clock.micros += DAY
    edit(source, "2", text="later")
    rig.run()
    assert bodies(look(rig, at=now + DAY // 2)) == first
    assert bodies(look(rig, at=rig.clock.now() + DAY)) != first


def test_a_version_is_found_whatever_time_the_history_has_for_it(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    """A file is replaced before the Run records it; between the two, the feed says the old one stands."""
    first, now = bodies(look(rig)), rig.clock.now()
    for text in ("later", "still later"):
        rig.clock.micros += DAY
        edit(source, "2", text=text)
        rig.run()
    early = min((tmp_path / "backup" / "1" / "_history" / "2").iterdir())
    early.rename(early.with_name("20260101T000000.000000Z.json"))
    assert bodies(look(rig, at=now)) == first


def test_before_the_first_run_there_was_nothing(rig: Rig) -> None:
    with pytest.raises(SyncdError, match="no task there at 2026-"):
        look(rig, at=rig.clock.now() - DAY)


def test_settings_that_were_others_then_are_given_as_they_are_and_said(rig: Rig, source: MemorySource) -> None:
    now = rig.clock.now()
    rig.clock.micros += DAY
    source.world["1"].title = "Dogs"
    rig.run()
    settings, *tasks = look(rig, at=now)
    assert (settings.task, settings.body["title"], "given as it is now" in settings.why) == (None, "Dogs", True)
    assert len(bodies(tasks)) == 5


class TestNamed:
    """What can't be restored is named, and nothing stands in for it."""

    def test_a_version_that_nobody_kept(self, rig: Rig, source: MemorySource) -> None:
        rig.rules = {}
        now = rig.clock.now()
        rig.clock.micros += DAY
        edit(source, "2", text="later")
        rig.run()
        lost = next(one for one in look(rig, at=now) if one.task == "2")
        assert (lost.data, "kept nowhere" in lost.why, format_time(now) in lost.why) == (None, True, True)

    @pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda _: b"", lambda _: b"[1]\n", lambda data: data.replace(b'"id"', b'"id', 1)])
    def test_a_damaged_file(self, rig: Rig, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        path = tmp_path / "backup" / "1" / "3.json"
        path.write_bytes(damage(path.read_bytes()))
        bad = [one for one in look(rig) if one.why]
        assert [(one.task, one.data) for one in bad] == [("3", None)]

    def test_a_file_swapped_for_another_or_changed_when_its_digest_is_known(self, rig: Rig, tmp_path: Path) -> None:
        place = tmp_path / "backup" / "1"
        (place / "3.json").write_bytes((place / "4.json").read_bytes())
        (place / "5.json").write_bytes((place / "5.json").read_bytes().replace(b"task", b"tusk"))
        assert [one.task for one in look(rig, at=rig.clock.now()) if one.data is None] == ["3", "5"]

    def test_a_file_swapped_for_another(self, rig: Rig, tmp_path: Path) -> None:
        place = tmp_path / "backup" / "1"
        (place / "3.json").write_bytes((place / "4.json").read_bytes())
        (bad,) = (one for one in look(rig) if one.why)
        assert (bad.task, bad.data, bad.why) == ("3", None, "it is damaged: it is task 4")

    def test_a_file_of_which_the_feeds_tell_nothing(self, rig: Rig, tmp_path: Path) -> None:
        (tmp_path / "backup" / "1" / "77.json").write_bytes(b'{"id":77}\n')
        (bad,) = (one for one in look(rig, at=rig.clock.now()) if one.why)
        assert (bad.task, bad.data) == ("77", None)
        assert "change feed" in bad.why

    def test_damaged_history_is_not_taken(self, rig: Rig, source: MemorySource, tmp_path: Path) -> None:
        now = rig.clock.now()
        rig.clock.micros += DAY
        edit(source, "2", text="later")
        rig.run()
        (kept,) = (tmp_path / "backup" / "1" / "_history").glob("2/*.json")
        kept.write_bytes(kept.read_bytes().replace(b"task", b"tusk"))
        assert [one.task for one in look(rig, at=now) if one.data is None] == ["2"]

    def test_a_task_that_is_not_there(self, rig: Rig) -> None:
        assert [(one.task, one.data is None) for one in look(rig, tasks=["3", "99"])] == [(None, False), ("3", False), ("99", True)]

    def test_a_project_that_is_not_there(self, rig: Rig) -> None:
        with pytest.raises(SyncdError, match=r"no project Birds there; there are: 1 \(Project 1\)"):
            look(rig, projects=["Birds"])


def test_projects_by_id_and_by_title(rig: Rig, source: MemorySource) -> None:
    source.add("2", 2)
    source.world["2"].title = "Cats"
    rig.run()
    for wanted in ("2", "Cats", "C*"):
        assert {one.project for one in look(rig, projects=[wanted])} == {"2"}
    assert len(look(rig, projects=["1", "Cats"])) == 9


class TestTrash:
    def test_a_deleted_task_comes_back_with_its_project(self, rig: Rig, source: MemorySource) -> None:
        before = bodies(look(rig))
        del source.world["1"].tasks["4"]
        rig.run()
        assert bodies(look(rig, trashed=True)) == {key: before[key] for key in ("1/_project.json", "1/4.json")}
        assert bodies(look(rig, trashed=True, tasks=["4"])) == bodies(look(rig, trashed=True))

    def test_the_newest_copy_is_taken(self, rig: Rig, source: MemorySource) -> None:
        for text in ("first", "second", "third"):
            edit(source, "4", text=text, updated_at=format_time(source.now))
            rig.run()
            del source.world["1"].tasks["4"]
            rig.run()
            rig.clock.micros += DAY if text == "first" else 0  # the others came on one day
        assert bodies(look(rig, trashed=True))["1/4.json"]["text"] == "third"

    def test_a_side_file_that_was_deleted_twice_in_a_day(self, rig: Rig, source: MemorySource) -> None:
        mask = f"4{SIDE}mask.png"
        for number in range(2):
            source.put("1", mask, b"\x89PNG" + bytes([number]))
            rig.run()
            del source.world["1"].tasks[mask]
            rig.run()
        (found,) = look(rig, trashed=True)[1:]
        assert (found.task, (found.data or b"")[:4], found.why) == (mask, b"\x89PNG", "")

    def test_of_a_project_that_is_gone(self, rig: Rig, source: MemorySource) -> None:
        before = bodies(look(rig))
        del source.world["1"]
        report = rig.run()
        if report.plan_id:
            rig.run(confirm_deletes=report.plan_id)
        assert bodies(look(rig, trashed=True)) == before

    @pytest.mark.parametrize("key", ["{project}/{task}.json", "labels/p-{project}/of/t-{task}/t.json"])
    def test_with_ids_that_keys_shorten(self, rig: Rig, source: MemorySource, tmp_path: Path, key: str) -> None:
        rig.rules, rig.state = FOREVER | {"key": key}, tmp_path / "other state"
        rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "other"), rig.clock)
        long = "x" * 300
        source.put(long, long, {"id": long})
        source.world[long].title = "Long"
        rig.run()
        before = look(rig, projects=["Long"])
        source.world[long].tasks.clear()
        rig.run(confirm_deletes=rig.run().plan_id)
        found = look(rig, trashed=True, tasks=[long])
        assert [(one.key, one.data, one.why) for one in found] == [(one.key, one.data, "") for one in before]

    def test_a_damaged_copy_is_named(self, rig: Rig, source: MemorySource, tmp_path: Path) -> None:
        del source.world["1"].tasks["4"]
        rig.run()
        (copy,) = (tmp_path / "backup" / "1" / "_trash").glob("*/4.*.json")
        copy.write_bytes(copy.read_bytes().replace(b"task", b"tusk"))
        (bad,) = (one for one in look(rig, trashed=True) if one.why)
        assert (bad.task, bad.data) == ("4", None)


class TestFolder:
    def test_it_holds_the_files_and_a_list_of_the_tasks_in_order(self, rig: Rig, source: MemorySource, tmp_path: Path) -> None:
        source.add("1", 7, first=6)
        source.put("1", f"2{SIDE}mask.png", b"\x89PNG")
        source.now += SECOND
        source.put("1", "tasks", {"id": "tasks", "data": {}, "meta": None})
        rig.run()
        (done,) = folder(rig, tmp_path / "out")
        assert (done.title, done.tasks, done.files, done.failed) == ("Project 1", 13, 15, [])
        out, backup = tmp_path / "out", tmp_path / "backup"
        files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        kept = {str(path.relative_to(backup)) for path in (backup / "1").rglob("*") if path.is_file()}
        assert files == kept | {"1/_tasks.json"}
        assert all((out / name).read_bytes() == (backup / name).read_bytes() for name in kept)
        listed = json.loads((out / "1" / "_tasks.json").read_bytes())
        assert [task["id"] for task in listed] == [*range(1, 13), "tasks"]
        assert all("meta" not in task for task in listed)

    def test_no_list_takes_the_place_of_a_task(self, rig: Rig, source: MemorySource, tmp_path: Path) -> None:
        project = "x" * 300
        source.put(project, "tasks", {"id": "tasks", "data": {}})
        rig.run()
        (done,) = folder(rig, tmp_path / "out", projects=[project])
        assert done.failed == []
        assert {key: data for key, data in rig.files().items() if "/tasks" in key}.items() <= {
            str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.json")
        }.items()

    def test_an_unfinished_one_goes_on_and_others_are_refused(self, rig: Rig, tmp_path: Path) -> None:
        def dies(found: Sequence[Found]) -> Iterator[Found]:
            yield from found[:3]
            raise KeyboardInterrupt

        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            folder(rig, out, dies(look(rig)))  # type: ignore[arg-type]  # streamed, as `find` does
        with pytest.raises(SyncdError, match="neither empty nor an unfinished restore"):
            folder(rig, out, tasks=["1"])
        assert folder(rig, out)[0].tasks == 5
        assert not (out / "_syncd" / "restore.json").exists()
        with pytest.raises(SyncdError, match="--force"):
            folder(rig, out)
        assert folder(rig, out, force=True)[0].tasks == 5

    def test_a_folder_with_other_files_is_left_alone(self, rig: Rig, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(SyncdError):
            folder(rig, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]

    def test_labelbox_rows_become_what_its_import_takes(self, rig: Rig, tmp_path: Path) -> None:
        box = {"name": "cat", "annotation_kind": "ImageBoundingBox", "bounding_box": {"top": 1, "left": 2, "height": 3, "width": 4}}
        mask = {"name": "sky", "composite_mask": {"url": "https://x"}}
        answers = [{"name": "mood", "radio_answer": {"name": "good", "classifications": []}}, {"name": "n", "text_answer": {"content": "x"}}]
        label = {"annotations": {"objects": [box, mask], "classifications": answers, "relationships": []}}
        row = {
            "data_row": {"id": "c1", "row_data": "https://media.example.com/1.jpg", "external_id": "one"},
            "metadata_fields": [{"schema_id": "s", "schema_name": "tag", "value": "v"}],
            "projects": {"p": {"labels": [label]}, "other": {"labels": [label]}},
        }
        (done,) = folder(rig, tmp_path / "out", [Found("p", "c1", "p/c1.json", orjson.dumps(row))])
        rows, labels = (
            [json.loads(line) for line in (tmp_path / "out" / "p" / f"labelbox-{name}.ndjson").read_text().splitlines()]
            for name in ("data-rows", "labels")
        )
        assert rows == [
            {
                "row_data": "https://media.example.com/1.jpg",
                "external_id": "one",
                "global_key": "c1",
                "metadata_fields": [{"name": "tag", "value": "v"}],
            }
        ]
        home = {"dataRow": {"globalKey": "c1"}}
        assert labels == [
            {"name": "mood", "answer": {"name": "good"}} | home,
            {"name": "n", "answer": "x"} | home,
            {"name": "cat", "bbox": {"top": 1, "left": 2, "height": 3, "width": 4}} | home,
        ]
        remarks = ["annotations have no form that Labelbox imports", "labels of other projects"]
        assert done.remarks == {f"{what}: they are in the files of their rows alone": 1 for what in remarks}

    @pytest.mark.parametrize(
        "odd",
        [
            {"projects": []},
            {"projects": {"p": 1}},
            {"projects": {"p": {"labels": ["x"]}}},
            {"attachments": ["x"]},
            {"metadata_fields": 7},
            {"projects": None},
        ],
    )
    def test_a_row_of_somebodys_own_making_stops_no_restore(self, rig: Rig, tmp_path: Path, odd: dict[str, object]) -> None:
        rows = [{"data_row": {"id": id_, "row_data": "x"}} for id_ in ("c1", "c2")]
        found = [Found("p", "c1", "p/c1.json", orjson.dumps(rows[0] | odd)), Found("p", "c2", "p/c2.json", orjson.dumps(rows[1]))]
        (done,) = folder(rig, tmp_path / "out", found)
        assert (done.tasks, done.failed) == (2, [])
        assert b'"c2"' in (tmp_path / "out" / "p" / "labelbox-data-rows.ndjson").read_bytes()
        assert sum(done.remarks.values()) == 1


HOSTILE = [
    "../../up.json",
    "/etc/x.json",
    "1/../../x.json",
    "1//x.json",
    "1/./x.json",
    "1/..json/../x.json",
    "..~~/x.json",
    "1/\0.json",
    "1/..~~a.json",
]


@pytest.mark.parametrize("key", [*HOSTILE, "_syncd/owner.json", "1/_history/x.json", "1/readme.txt"])
def test_keys_that_syncd_never_makes_are_nobodys(key: str) -> None:
    assert Layout().named(key) is None


@pytest.mark.parametrize("key", ["{project}/{task}.json", "x-{project}-y/t/{task}-z.json"])
def test_shortened_ids_and_their_side_files_come_back_as_they_were(rig: Rig, source: MemorySource, key: str) -> None:
    rig.rules = {**FOREVER, "key": key}
    long = "x" * 300
    files = {("p" * 300, long), ("p" * 300, f"{long}{SIDE}json"), ("datasets/d", f"{long}{SIDE}a.json"), ("datasets/d", f"7{SIDE}{long}")}
    files |= {("p" * 300, keys.encode(long))}  # somebody else's id, made to look like it
    stood = []
    for version in range(3):
        source.now += SECOND
        for project, task in files:
            source.put(project, task, f'{{"v":{version}}}'.encode())
        if version == 2:
            source.world["datasets/d"].tasks.clear()
        rig.run(Kind.FULL)
        rig.clock.wait(1)
        stood.append((rig.clock.now(), {Layout(key).task(*file): version for file in files if version < 2 or file[0] != "datasets/d"}))
    for at, versions in stood:
        found = {one.key: (one.why, orjson.loads(one.data or b"{}").get("v")) for one in look(rig, at=at) if one.project[0] in "pd" and one.task}
        assert found == {key: ("", version) for key, version in versions.items()}


def test_hostile_ids_come_back_inside_the_folder(rig: Rig, source: MemorySource, tmp_path: Path) -> None:
    ids = ["..", "../../x", "/", "a/b", "CON", "é", "x" * 300, "\0", "a.json", "_trash", "tasks", " ", "~", "%2e"]
    for number, task in enumerate(ids):
        source.now += SECOND
        source.put("../evil", task, {"id": task, "data": {"n": number}})
    rig.run()
    before = set(tmp_path.rglob("*"))
    done = folder(rig, tmp_path / "out", projects=["../evil"])
    assert sum(one.tasks for one in done) == len(ids)
    assert all(path.is_relative_to(tmp_path / "out") for path in set(tmp_path.rglob("*")) - before)
    restored = {path.read_bytes() for path in (tmp_path / "out").rglob("*.json")}
    assert {data for key, data in rig.files().items() if "evil" in key} <= restored


def test_a_hostile_feed_writes_nothing_outside(rig: Rig, tmp_path: Path) -> None:
    line = {"op": "put", "why": "new", "project": "1", "task": "x", "digest": "00" * 32, "at": "2020-01-01T00:00:00.000000Z", "run_id": "x"}
    feed = tmp_path / "backup" / "_syncd" / "changes" / "2020-01-01" / "20200101-000000-abcdef.ndjson"
    feed.parent.mkdir()
    feed.write_bytes(b"".join(orjson.dumps({**line, "key": key}) + b"\n" for key in HOSTILE))
    before = set(tmp_path.rglob("*"))
    folder(rig, tmp_path / "out", at=rig.clock.now())
    assert all(path.is_relative_to(tmp_path / "out") for path in set(tmp_path.rglob("*")) - before)


@pytest.mark.parametrize("seed", range(8))
def test_each_moment_within_runs_that_die_and_feeds_that_repeat(tmp_path: Path, seed: int) -> None:
    """Puts and deletions a second apart, cut into Runs anywhere; a feed may hold its first lines again, and appear when later Runs have ended."""
    chance, clock, layout = random.Random(seed), TestClock(), Layout()
    with closing(open_folder(tmp_path / "backup", clock)) as target:
        stands, feeds, moments = dict[str, bytes](), [list[dict[str, Any]]()], list[tuple[int, dict[str, bytes]]]()
        for step in range(40):
            task = str(chance.randrange(1, 6))
            key, data = layout.task("1", task), orjson.dumps({"id": int(task), "step": chance.randrange(step + 1)}) + b"\n"
            clock.wait(1)
            old, gone = stands.get(key), key in stands and chance.random() < 0.3
            if old and not gone:
                target.copy(key, layout.history("1", task, clock.now()))  # some time before the put is recorded
            clock.wait(1)
            if gone:
                target.copy(key, layout.trash("1", task, encode.digest(stands.pop(key)), clock.now()))
                target.delete([key])
            else:
                target.put(key, data)
                stands[key] = data
            digest, why = encode.digest(old if gone and old else data).hex(), "deleted" if gone else "changed" if old else "new"
            feeds[-1].append(
                {
                    "op": "trash" if gone else "put",
                    "why": why,
                    "project": "1",
                    "task": task,
                    "key": key,
                    "digest": digest,
                    "at": format_time(clock.now()),
                }
            )
            moments.append((clock.now() + 500_000, dict(stands)))
            if chance.random() < 0.2:
                feeds.append([])
        for number, lines in enumerate(feeds):
            again = [*lines[: chance.randrange(len(lines) + 1)], *lines]
            target.put(keys.feed(f"20260921-{number:06}-abcdef"), b"".join(orjson.dumps(line) + b"\n" for line in again))
        target.flush()
        clock.wait(DAY / 1e6)
        for at, then in moments[3:]:
            found = list(find(target, layout, clock, Question(at=at))) if then else []
            assert {one.key: one.data for one in found} == then


@pytest.mark.parametrize("key", ["{project}/{task}.json", "labels/p-{project}/of/t-{task}/t.json"])
@pytest.mark.parametrize("project", ["p1", "datasets/D1", "slices/datasets", "model_runs/x y"])
def test_every_kind_of_labelbox_collection_comes_back_with_its_side_files(
    rig: Rig, source: MemorySource, tmp_path: Path, project: str, key: str
) -> None:
    rig.rules, rig.state = FOREVER | {"key": key}, tmp_path / "other state"
    rig.open_target = lambda: local.open(local.Config(type="local", path=tmp_path / "other"), rig.clock)
    row: dict[str, object] = {"data_row": {"id": "c1", "row_data": "https://media.example.com/1.jpg"}, "projects": {}}
    source.put(project, "c1", row)
    source.put(project, "c2", row | {"data_row": {"id": "c2"}})
    source.put(project, f"c1{SIDE}mask.json", b"\x89PNG")
    rig.run()
    now, before = rig.clock.now(), look(rig, projects=[project], tasks=["c1"])
    assert [(one.project, one.task) for one in before] == [(project, None), (project, "c1"), (project, f"c1{SIDE}mask.json")]
    with closing(open_folder(tmp_path / "out", rig.clock)) as out:
        (done,) = to_folder(before, out, Layout(key), {}, force=False, on_progress=None)
        rows = out.get(Layout(key).folder(project) + "labelbox-data-rows.ndjson") or b""
        assert all(out.get(one.key) == one.data for one in before)
    assert (done.tasks, done.files, json.loads(rows)["global_key"]) == (1, 3, "c1")
    rig.clock.micros += DAY
    source.world[project].tasks.clear()
    assert rig.run(confirm_deletes=rig.run().plan_id).failed == []
    for found in (look(rig, projects=[project], tasks=["c1"], at=now), look(rig, projects=[project], tasks=["c1"], trashed=True)):
        assert [(one.task, one.key, one.data, one.why) for one in found] == [(one.task, one.key, one.data, "") for one in before]
