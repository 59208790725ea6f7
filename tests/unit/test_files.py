"""A folder of exports as Source: every kind of file, only what changed, and nothing absent without proof (I4). Runs are real, by the pipeline."""

from __future__ import annotations

import contextlib
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.checkpoint.base import Commit, Lease
from syncd.errors import SourceError, TargetError, TaskError
from syncd.model import Collection, Counts, Failure, Kind, Report, Status
from syncd.sources import files, files_folder, rows
from syncd.sources.split import pieces
from syncd.targets import local
from tests.fakes.follower import Follower
from tests.fakes.rig import Rig, TestClock

IDLE = 4  # listings of a Run with one Collection where nothing changed: the root for each question, and the folder
OLD = 1_700_000_000_000_000_000  # nanoseconds


@dataclass
class World:
    """A folder, and a Sync of it into another folder."""

    folder: Path
    rules: dict[str, Any] = field(default_factory=dict)
    clock: TestClock = field(default_factory=TestClock)
    opened: int = 0

    def __post_init__(self) -> None:
        self.root = self.folder / "exports"
        self.root.mkdir()
        self.age = 0

    def write(self, name: str, value: object, *, age: int | None = None) -> Path:
        """Text as it is, anything else as JSON. Each file is a second newer than the one before, or `age` seconds past OLD."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode())
        self.age += 1
        moment = OLD + (self.age if age is None else age) * 1_000_000_000
        os.utime(path, ns=(moment, moment))
        return path

    def source(self, **select: list[str]) -> files.Source:
        return files.open(files.Config(type="files", path=self.root), select, self.clock)

    def run(self, kind: Kind = Kind.INCREMENTAL, **options: Any) -> Report:
        source = self.source()
        rules = {"max_delete": {"fraction": 1.0, "at_least": 1000}, "drafts_every": "0s", **self.rules}
        report = self.rig(source, rules).run(kind, **options)
        self.opened = report.source_requests
        return report

    def rig(self, source: files.Source, rules: dict[str, Any]) -> Rig:
        place = local.Config(type="local", path=self.folder / "backup")
        return Rig(source, lambda: local.open(place, self.clock), self.folder / "state", self.clock, rules)

    def held(self) -> dict[str, Any]:
        return self.rig(self.source(), {}).tasks()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def task(id_: object, text: str = "a", **more: object) -> dict[str, object]:
    return {"id": id_, "data": {"text": text}, "annotations": [], **more}


def row(id_: str, **details: object) -> dict[str, object]:
    return {"data_row": {"id": id_, "external_id": "x.mp3", "details": details}, "projects": {}}


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def ok(report: Report, **counts: int) -> None:
    assert (report.status, report.failed, report.error) == (Status.OK, [], "")
    assert counts == {name: getattr(report, name) for name in counts}


# every kind of file


def test_each_sub_folder_is_a_collection_and_the_roots_own_files_are_default(world: World) -> None:
    world.write("cats/1.json", task(1))
    world.write("cats/deep/er/2.json", task(2))
    world.write("dogs/export.json", [task(1), task("b")])
    world.write("boxes.ndjson", lines(row("cabc"), row("cdef")))
    for ignored in ("cats/.hidden.json", ".git/x.json", "cats/notes.txt", "cats/.deep/3.json"):
        world.write(ignored, task(9))
    ok(world.run(), written=6)
    assert sorted(world.held()) == ["cats/1.json", "cats/2.json", "default/cabc.json", "default/cdef.json", "dogs/1.json", "dogs/b.json"]
    assert world.held()["dogs/b.json"] == task("b")


def test_ids_or_title_patterns_select_collections(world: World) -> None:
    for name in ("cats", "dogs", "cats 2"):
        world.write(f"{name}/1.json", task(1))
    assert [c.id for c in world.source(projects=["dogs", "cats*"]).collections()] == ["cats", "cats 2", "dogs"]
    assert [c.id for c in world.source(projects=["cats"]).collections()] == ["cats"]


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("one.json", json.dumps(task(7)), ["7"]),
        ("pretty.json", json.dumps(task(7), indent=2), ["7"]),
        ("flat.json", json.dumps(task(7), indent=0), ["7"]),
        ("stem.json", '{"text": "no id"}', ["stem"]),
        ("deep/stem.v2.json", '{"text": "no id"}', ["deep%2Fstem.v2"]),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(task(7)).encode(), ["7"]),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps([task(7), task(8)]).encode(), ["7", "8"]),
        ("array.json", json.dumps([task(7), task(8)], indent=1), ["7", "8"]),
        ("array.json", " \n\n [ ] \n", []),
        ("rows.json", json.dumps([row("ca"), row("cb")]), ["ca", "cb"]),
        ("rows.ndjson", lines(row("ca"), row("cb")), ["ca", "cb"]),
        ("rows.json", lines(task(1), task(2)).rstrip("\n"), ["1", "2"]),
        ("rows.jsonl", lines(task(1)) + "\r\n\n" + lines(task(2)), ["1", "2"]),
        ("separators.ndjson", '{"id":1,"t":"a\u2028b\u0085c"}\n{"id":2}\n', ["1", "2"]),
        ("empty.ndjson", "", []),
        ("braces.json", r'[{"id":1,"t":"}{[\"\\"},{"id":2,"t":"\\\"}"}]', ["1", "2"]),
        ("big.json", '{"id":123456789012345678901234567890}', ["123456789012345678901234567890"]),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_content(world: World, name: str, content: str | bytes, keys: list[str]) -> None:
    world.write(f"c/{name}", content)
    ok(world.run(), written=len(keys))
    assert sorted(world.held()) == [f"c/{key}.json" for key in keys]


def test_what_a_body_says_of_itself() -> None:
    body = task(1, created_at="2026-01-02T03:04:05.000006Z", updated_at="2026-02-03T00:00:00Z", predictions=[{}, {}])
    assert rows.created_at(body) == 1_767_323_045_000_006
    assert rows.last_activity(body) == 1_770_076_800_000_000
    assert rows.counts(body) == Counts(1, 0, 2)
    labelbox = row("c1", created_at="2023-10-13T18:17:21.000+00:00", last_activity_at="2023-10-17T16:26:54.000+00:00")
    assert (rows.task_id(labelbox), rows.created_at(labelbox), rows.last_activity(labelbox)) == ("c1", 0, 1_697_560_014_000_000)
    odds: list[dict[str, object]] = [{}, {"id": True}, {"id": 1.5}, {"id": ""}, {"data_row": []}, {"data_row": {"id": 3}}]
    for odd in odds:
        assert rows.task_id(odd) is None
    assert rows.last_activity({"updated_at": "yesterday"}) is None


# bad files


@pytest.mark.parametrize(
    ("content", "good", "says"),
    [
        ('[{"id":1},{"id":2,"x":NaN},{"id":3}]', 2, "c/f.json: element 2: $.x: NaN is no JSON value"),
        ('[{"id":1},{"id":2,"id":2},{"id":3}]', 2, "c/f.json: element 2: $.id: the key is repeated"),
        ('[{"id":1},{"text":"no id"}]', 1, "c/f.json: element 2: no id: neither `id` nor `data_row.id` is there"),
        ('[{"id":1},{"id":2}', 2, "c/f.json: cut off: the array does not end after element 2"),
        ('[{"id":1},{"id":2', 1, "c/f.json: element 2 is cut off: the file ends inside it"),
        ('[{"id":1},{"id":"2', 1, "c/f.json: element 2 is cut off: the file ends inside it"),
        ('[{"id":1} {"id":2}]', 1, "c/f.json: a comma is missing after element 1"),
        ('[{"id":1}, 5]', 1, "c/f.json: not an array of tasks: ',5]' stands after element 1"),
        ("[1, 2]", 0, "c/f.json: not an array of tasks"),
        ('[{"id":1}] x', 1, "c/f.json: not an array of tasks: ']x' stands after element 1"),
        ('{"id":1}\n{"id":2,\n{"id":3}\n', 2, "c/f.json: line 2: not JSON"),
        ('{"id":1\n{"id":2}\n{"id":3}\n', 2, "c/f.json: line 1: not JSON"),
        ('{"id":1}\n[]\n', 1, "c/f.json: line 2: not a task: a JSON object is expected"),
        ('{"id":1}\n{"id":1,"x":2}\n', 1, "c/f.json: id 1 stands twice in this file, and not the same"),
        ('{"id":1', 0, "c/f.json: not JSON"),
        ("<html>", 0, "c/f.json: not JSON"),
        ("", 0, "c/f.json: the file is empty"),
        ('"text"', 0, "c/f.json: not a task: a JSON object is expected"),
    ],
)
def test_one_bad_piece_fails_by_name_and_the_others_go_on(world: World, content: str, good: int, says: str) -> None:
    world.write("c/f.json", content)
    world.write("c/other.json", task("other"))
    for _ in range(2):
        report = world.run()
        assert report.status is Status.PARTIAL
        assert [says in failure.error for failure in report.failed] == [True], report.failed
    assert len(world.held()) == good + 1
    world.write("c/f.json", [task(1)])
    ok(world.run())
    assert sorted(world.held()) == ["c/1.json", "c/other.json"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('[{"id":1},{"id":2,"x":NaN}]', "2"),
        ('[{"id":2,"x":"\\ud800"}]', "2"),
        ('[{"id":2,"x":1,"x":2}]', "2"),
        ('{"data_row":{"id":"cl2"},"x":NaN}\n{"data_row":{"id":"cl3"}}\n', "cl2"),
        ('{"x":NaN}', "f"),
        ('[{"id":1,"x":1},{"id":1,"x":2}]', "1"),
        ('[{"id":2,"id":3}]', None),
        ('[{"id":"\\ud800"}]', None),
        ('[{"x":"\\ud800","id":"\\ud800"}]', None),
        ('[{"x":NaN}]', None),
        ('[{"id":1},{"id":2', None),
        ("<html>", None),
    ],
)
def test_a_task_that_fails_is_named_when_its_id_can_be_told(world: World, content: str, name: str | None) -> None:
    world.write("c/f.json", content)
    assert [name] == [failure.name for failure in world.run().failed]


def test_a_file_that_can_not_be_read_deletes_nothing(world: World) -> None:
    world.write("c/1.json", task(1))
    path = world.write("c/2.json", task(2))
    ok(world.run(), written=2)
    path.unlink()
    path.symlink_to("nowhere.json")
    (world.root / "c/1.json").unlink()
    for kind in (Kind.INCREMENTAL, Kind.FULL):
        report = world.run(kind)
        assert ["c/2.json: can't be read: No such file or directory"] == [failure.error for failure in report.failed]
    assert len(world.held()) == 2
    path.unlink()
    world.write("c/2.json", task(2))
    ok(world.run(), trashed=1)


def test_no_folder_no_deletion(world: World) -> None:
    world.write("c/1.json", task(1))
    ok(world.run(), written=1)
    world.root.rename(world.root.with_name("away"))
    report = world.run()
    assert report.status is Status.FAILED
    assert "can't be listed: No such file or directory" in report.error
    world.root.mkdir()
    assert world.run().status is Status.GUARDED
    assert len(world.held()) == 1


def test_a_folder_called_default_beside_files_is_refused(world: World) -> None:
    world.write("1.json", task(1))
    world.write("default/2.json", task(2))
    with pytest.raises(SourceError, match="would be one Collection"):
        world.source().collections()
    (world.root / "1.json").unlink()
    ok(world.run(), written=1)


def test_a_file_that_changes_while_it_is_read_fails_and_deletes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.write("c/1.json", [task(1), task(2)])
    ok(world.run(), written=2)
    world.write("c/1.json", [task(1)])

    def slowly(stream: BytesIO, **options: bool) -> Iterator[Any]:
        yield from pieces(stream, **options)
        path.write_text(json.dumps([task(1), task(2), task(3)]))

    with monkeypatch.context() as patch:
        patch.setattr(files, "pieces", slowly)
        report = world.run()
    assert ["c/1.json: changed while it was being read; the next Run reads it again"] == [f.error for f in report.failed]
    ok(world.run(), written=1, trashed=0)


def test_a_file_of_lines_that_may_still_grow_proves_nothing(world: World) -> None:
    path = world.write("c/rows.ndjson", lines(row("ca"), row("cb")))
    ok(world.run(), written=2)
    world.write("c/rows.ndjson", lines(row("ca")))
    world.clock.micros = path.stat().st_ctime_ns // 1000
    ok(world.run(), trashed=0)
    world.clock.micros += 10_000_000
    ok(world.run(), trashed=1)


def test_an_array_or_object_is_whole_or_not_so_it_is_believed_at_once(world: World) -> None:
    world.clock.micros = time.time_ns() // 1000
    world.write("c/a.json", [task(1), task(2)])
    world.write("c/3.json", json.dumps(task(3)) + "\n")
    ok(world.run(), written=3)
    world.write("c/a.json", [task(1)])
    world.write("c/3.json", json.dumps(task(3, "edited")) + "\n")
    ok(world.run(), trashed=1, written=1)


def test_a_second_write_that_leaves_the_same_stamp_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_folder, "stamp_of", lambda name, found: b"0123456789abcdef")
    monkeypatch.setattr(files, "stamp_of", lambda name, found: b"0123456789abcdef")
    world.write("c/1.json", task(1, "a"))
    world.clock.micros = time.time_ns() // 1000
    ok(world.run(), written=1)
    world.write("c/1.json", task(1, "b"))
    ok(world.run(), written=1)


# only what changed


def test_an_unchanged_folder_is_listed_and_no_file_is_opened(world: World) -> None:
    for number in range(20):
        world.write(f"c/{number}.json", task(number))
    world.write("c/many.json", [task("a"), task("b")])
    ok(world.run(), written=22)
    assert world.opened == IDLE + 21
    ok(world.run(), written=0)
    assert world.opened == IDLE
    world.write("c/3.json", task(3, "changed"))
    world.write("c/new.json", [task("c"), task("d")])
    ok(world.run(), written=3)
    assert world.opened == IDLE + 2
    ok(world.run(Kind.FULL), written=0, unchanged=24)


def test_a_removed_file_is_found_by_a_listing_and_confirmed_by_reading_the_others(world: World) -> None:
    for number in range(20):
        world.write(f"c/{number}.json", task(number))
    ok(world.run(), written=20)
    (world.root / "c/3.json").unlink()
    ok(world.run(), trashed=1, written=0)
    assert world.opened == IDLE + 3 + 19, "the root is listed again to confirm, the folder twice, and all files are opened"
    assert len(world.held()) == 19
    ok(world.run(), trashed=0)
    ok(world.run(Kind.FULL), trashed=0, unchanged=19)


def test_a_renamed_file_is_no_deletion(world: World) -> None:
    world.write("c/a.json", task(1))
    world.write("c/b.json", [task(2), task(3)])
    ok(world.run(), written=3)
    for name in "ab":
        (world.root / f"c/{name}.json").rename(world.root / f"c/{name}2.json")
        ok(world.run(), written=0, trashed=0)
    ok(world.run(), written=0, trashed=0)
    assert len(world.held()) == 3


def test_a_task_that_left_a_file_of_many_is_missing(world: World) -> None:
    world.write("c/b.json", [task(2), task(3), task(4)])
    ok(world.run(), written=3)
    world.write("c/b.json", [task(2), task(4)])
    ok(world.run(), trashed=1, written=0)
    world.write("c/one.json", task(9))
    ok(world.run(), written=1)
    world.write("c/one.json", task(10))
    ok(world.run(), written=1, trashed=1)
    assert sorted(world.held()) == ["c/10.json", "c/2.json", "c/4.json"]


def test_the_newest_file_gives_a_shared_id_whatever_the_order(world: World) -> None:
    world.write("c/z-old.json", task(1, "old"), age=10)
    ok(world.run(), written=1)
    world.write("c/a-new.json", [task(1, "new"), task(2)], age=20)
    ok(world.run(), written=2)
    assert world.held()["c/1.json"] == task(1, "new")
    for kind in (Kind.INCREMENTAL, Kind.FULL, Kind.INCREMENTAL):
        ok(world.run(kind), written=0)
    world.write("c/z-old.json", task(1, "old but edited"), age=15)
    ok(world.run(), written=0)
    world.write("c/z-old.json", task(1, "newest"), age=30)
    ok(world.run(), written=1)
    (world.root / "c/z-old.json").unlink()
    ok(world.run(), written=1, trashed=0)
    assert world.held()["c/1.json"] == task(1, "new")


def test_of_two_files_of_one_moment_the_last_by_name_gives_the_id(world: World) -> None:
    for name in ("export-1", "export-2", "export"):
        world.write(f"c/{name}.json", task(1, name), age=5)
    ok(world.run(), written=1)
    assert world.held()["c/1.json"] == task(1, "export"), "`export.json` sorts after `export-2.json`"


def test_a_guarded_deletion_stays_known_until_it_is_confirmed(world: World) -> None:
    world.rules = {"max_delete": {"fraction": 0.0, "at_least": 1}}
    for number in range(4):
        world.write(f"c/{number}.json", task(number))
    world.write("c/many.json", [task(n) for n in range(10, 14)])
    ok(world.run(), written=8)
    for number in range(2):
        (world.root / f"c/{number}.json").unlink()
    world.write("c/many.json", [task(10)])
    plans = set()
    for _ in range(3):
        report = world.run()
        assert report.status is Status.GUARDED
        plans.add(report.plan_id)
    assert len(plans) == 1
    world.write("c/1.json", task(1))  # it came back: another Plan
    report = world.run(confirm_deletes=plans.pop())
    assert report.status is Status.GUARDED
    ok(world.run(confirm_deletes=report.plan_id), trashed=4)
    ok(world.run(), trashed=0)
    assert sorted(world.held()) == ["c/1.json", "c/10.json", "c/2.json", "c/3.json"]


def test_a_folder_that_is_gone_is_a_deletion_of_its_collection(world: World) -> None:
    world.write("c/1.json", task(1))
    world.write("d/1.json", task(1))
    ok(world.run(), written=2)
    (world.root / "c/1.json").unlink()
    (world.root / "c").rmdir()
    report = world.run()
    assert report.status is Status.GUARDED
    ok(world.run(confirm_deletes=report.plan_id), trashed=1)
    source = world.source()
    assert [source.confirm_collection(Collection(name, name)) for name in ("c", "d", "default")] == [True, False, True]


def test_what_deletions_need_is_not_held_for_thousands_of_collections_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_HELD", 3, raising=False)
    for name in "abcdefghi":
        world.write(f"{name}/1.json", task(1))
        world.write(f"{name}/2.json", task(2))
    ok(world.run(), written=18)
    for name in "abcdefghi":
        (world.root / name / "2.json").unlink()
    source = world.source()
    ok(world.rig(source, {}).run(), trashed=9)
    assert len(source._given) == 3


def test_nothing_is_confirmed_when_the_files_are_others_than_those_read(world: World) -> None:
    world.write("c/1.json", task(1))
    world.write("c/2.json", task(2))
    ok(world.run(), written=2)
    (world.root / "c/2.json").unlink()
    source = world.source()
    collection = source.collections()[0]
    assert list(source.confirm(collection, ["1", "2"])) == ["2"], "without a reading before it, everything is read"
    rig = world.rig(source, {})
    from syncd.checkpoint import sqlite

    checkpoint = sqlite.open(rig.state)
    missing = [id_ for batch in source.changes(collection, 0, checkpoint.known("cats", "c")) for id_ in batch.missing]
    checkpoint.close()
    assert missing == ["2"]
    opened = source.requests
    assert list(source.confirm(collection, ["1", "2"])) == ["2"]
    assert source.requests == opened + 2, "what the reading proved holds while the files are the same"
    world.write("c/x.json", task(2))
    assert source.confirm(collection, ["2"]) == {}
    world.write("c/y.json", "[")
    (world.root / "c/x.json").unlink()
    assert source.confirm(collection, ["2"]) == {}


def test_a_folder_that_links_to_itself_is_read_once(world: World) -> None:
    world.write("c/1.json", task(1))
    (world.root / "c/again").symlink_to(world.root / "c")
    ok(world.run(), written=1)


def test_names_that_are_no_text_are_read_too(world: World) -> None:
    (world.root / "c").mkdir()
    path = os.fsencode(world.root) + b"/c/\xff\xe9.json"
    with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(b'{"text":"x"}')
    report = world.run()
    assert ["c/\\xff\\xe9.json: no id, and the file's name is not UTF-8, so it can't be the id: rename it"] == [f.error for f in report.failed]
    with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(b'{"id":"x"}')
    ok(world.run(), written=1)
    ok(world.run(), written=0)
    world.write("c/1.json", task(1))
    ok(world.run(), written=1)
    os.unlink(path)  # noqa: PTH108 - a name of bytes
    ok(world.run(), trashed=1)


# pieces


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text('a"\\{}[],\n\u2028', max_size=5) | st.none(), max_size=3), max_size=6), st.integers(1, 9)
)
def test_an_array_is_split_at_its_elements_wherever_a_read_ends(values: list[dict[str, object]], step: int) -> None:
    class Slow(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(step, size or 1) if size != -1 else -1)

    for text in (json.dumps(values), json.dumps(values, indent=1)):
        assert values == [json.loads(piece.data) for piece in pieces(Slow(text.encode()), lines_only=False)]


def test_an_array_of_any_size_takes_the_memory_of_its_largest_element(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    element = json.dumps({"id": 1, "t": "x" * 100_000, "v": [{"a": 1}] * 100}).encode()
    with path.open("wb") as file:
        file.write(b"[" + b",".join([element] * 400) + b"]")  # 40 MB
    tracemalloc.start()
    with path.open("rb") as file:
        assert sum(1 for _ in pieces(file, lines_only=False)) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_the_text_between_elements_is_checked() -> None:
    with pytest.raises(TaskError, match="closed that was never opened"):
        list(pieces(BytesIO(b"[{}}]"), lines_only=False))


# any history


SPOILT = '{"spoilt":'
NAMES = ("a.json", "b.json", "sub/c.json", "d.ndjson")
files_of_ids = st.lists(st.integers(1, 6), max_size=4, unique=True)
steps = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), files_of_ids, st.integers(0, 3)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("spoil"), st.sampled_from(NAMES), files_of_ids),
    st.tuples(st.just("run"), st.sampled_from(["", "", "guarded", "full"])),
    st.tuples(st.just("run"), st.just("killed"), st.integers(1, 5)),
    st.tuples(st.just("spoilt_run"), st.sampled_from(["refused", "broken"]), st.integers(0, 3)),
)


class History:
    """One Collection, changed and followed in any order; `truth` is read from the disk the plain way."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.home = self.world.root / "c"
        (self.home / "sub").mkdir(parents=True)
        self.source = self.world.source()
        self.follower = Follower(self.source, folder / "state", Collection("c", "c"))
        self.version = 0

    def write(self, name: str, ids: list[int], age: int) -> None:
        self.version += 1
        values = [task(id_, "x" * self.version) for id_ in ids]  # each version is longer, so no two have one stamp
        text = lines(*values) if name.endswith(".ndjson") else values[0] if len(values) == 1 else values
        self.world.write(f"c/{name}", text, age=age)

    def remove(self, name: str) -> None:
        (self.home / name).unlink(missing_ok=True)

    def rename(self, name: str, other: str) -> None:
        if (self.home / name).exists() and Path(name).suffix == Path(other).suffix:
            (self.home / name).replace(self.home / other)

    def spoil(self, name: str, ids: list[int]) -> None:
        self.version += 1
        good = "".join(f"{json.dumps(task(id_))}, " for id_ in ids)
        self.world.write(f"c/{name}", f"[{good}{SPOILT}{' ' * self.version}")

    def run(self, how: str = "", stop_after: int = -1) -> None:
        before = dict(self.follower.files)
        if how == "guarded":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.source, "confirm", lambda collection, tasks: {})
                self.follower.run()
        else:
            self.follower.run(full=how == "full", stop_after=stop_after)
        if stop_after >= 0:
            return
        lost = before.keys() - self.follower.files.keys()
        assert not lost & self.truth().keys(), "a task that is there was deleted"
        if self.spoilt():
            assert not lost, "a file that can't be read proves nothing"

    def spoilt_run(self, how: str, at: int) -> None:
        """The Target refuses the first task of a Batch; or it breaks, so that what is durable is recorded, and no note from there on."""
        checkpoint, left = self.follower.checkpoint, at

        def commit(lease: Lease, collection: str, commit: Commit) -> None:
            nonlocal left
            left -= bool(commit.entries) or how == "broken"
            if left == -1 and how == "refused" and commit.entries:
                first, *rest = commit.entries
                commit = replace(commit, entries=rest, failed=[Failure("c", first.task, "refused")], notes={})
                self.follower.files.pop(first.task)
                self.follower.files.update({first.task: before[first.task]} if first.task in before else {})
            if left == -1 and how == "broken":
                real(lease, collection, replace(commit, notes={}))
                raise TargetError("broken")
            real(lease, collection, commit)

        before, real = dict(self.follower.files), checkpoint.commit
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(TargetError):
            patch.setattr(checkpoint, "commit", commit)
            self.follower.run()

    def mend(self, name: str) -> None:
        if (self.home / name) in self.spoilt():
            self.remove(name)

    def spoilt(self) -> list[Path]:
        return [path for path in self.home.rglob("*.*") if SPOILT in path.read_text()]

    def truth(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        paths = set(self.home.rglob("*.*")) - set(self.spoilt())
        for path in sorted(paths, key=lambda p: (p.stat().st_mtime_ns, p.relative_to(self.home).as_posix()), reverse=True):
            text = path.read_text()
            values = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
            for value in values:
                found.setdefault(str(value["id"]), value)
        return found

    def close(self) -> None:
        self.follower.close()


TWO = [("write", "a.json", [1], 0), ("write", "b.json", [2], 1)]


@settings(max_examples=60, deadline=None)
@example(history=[*TWO, ("spoilt_run", "refused", 0), ("remove", "a.json")], page=1000)  # its Entry was recorded, its note was not
@example(history=[*TWO, ("spoilt_run", "broken", 1), ("remove", "b.json")], page=1000)
@example(history=[*TWO, ("run", ""), ("write", "b.json", [1], 2), ("run", "killed", 3), ("remove", "b.json")], page=1)  # the older file was not met
@example(history=[*TWO, ("run", ""), ("remove", "b.json"), ("run", "killed", 2)], page=1)  # its note is forgotten, its task is not
@example(history=[*TWO, ("run", ""), ("spoil", "sub/c.json", [1]), ("run", "")], page=1)  # what a spoilt file gave is another one's again
@given(history=st.lists(steps, max_size=14), page=st.sampled_from([1, 3, 1000]))
def test_after_any_history_of_a_folder_one_run_makes_the_backup_equal(
    history: list[Any], page: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    past = History(tmp_path_factory.mktemp("history"))
    patch = pytest.MonkeyPatch()
    patch.setattr(files, "_ITEMS", page)
    try:
        for name, *arguments in history:
            getattr(past, name)(*arguments)
        for name in NAMES:
            past.mend(name)
        past.run()
        assert past.truth() == past.follower.files
        quiet = past.follower.run()
        assert [*quiet.tasks, *quiet.missing, *quiet.failed] == []
        assert quiet.requests == 4, "the root and two folders are listed, no file is opened"
        seen = past.follower.run(full=True)
        assert [*seen.missing, *seen.failed] == []
        assert past.truth() == past.follower.files
    finally:
        patch.undo()
        past.close()


def test_a_folder_whose_name_is_no_text_is_a_collection_like_any_other(world: World) -> None:
    world.write("c/1.json", task(1))
    folder = os.fsencode(world.root) + b"/raw\xff"
    os.mkdir(folder)  # noqa: PTH102 - a name of bytes
    with open(folder + b"/2.json", "wb") as file:  # noqa: PTH123 - a name of bytes
        file.write(b'{"id":2,"data":{}}')
    ok(world.run(), written=2)
    ok(world.run(), written=0)
