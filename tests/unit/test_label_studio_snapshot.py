"""A first pass by snapshots: what the list gives, and whatever goes wrong, the list goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from syncd.checkpoint import sqlite
from syncd.clock import format_time
from syncd.errors import Stopped
from syncd.model import Collection
from syncd.run.preview import plan_sync
from syncd.sources import label_studio
from syncd.sources import label_studio_snapshot as snapshots
from syncd.sources.label_studio_snapshot import TITLE
from syncd.targets import local
from tests.fakes.follower import Follower
from tests.fakes.label_studio import Reply, Request, html
from tests.fakes.label_studio_exports import ExportingStandIn
from tests.fakes.label_studio_project import Project
from tests.fakes.rig import Rig, TestClock

START = 1_790_000_000_000_000
RESULT = [{"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": ["good"]}}]
Edit = Callable[[list[dict[str, Any]]], Any]


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[ExportingStandIn]:
    for name, value in {"LARGEST": 40, "SMALLEST": 10, "PORTION": 15, "ODD": 0.2}.items():
        monkeypatch.setattr(snapshots, name, value)
    with ExportingStandIn() as studio:
        studio.clock = TestClock(START).now
        yield studio


@pytest.fixture
def cats(studio: ExportingStandIn) -> Project:
    """150 tasks, some odd: more than the list's first page and three snapshots."""
    cats, dogs = studio.project("Cats"), studio.project("Dogs")
    for n in range(150):
        annotated = [{"result": RESULT, "lead_time": 1.5}] * (n % 3)
        cats.add([{"data": {"text": f"task {n}", "third": 1 / 3}, "annotations": annotated, "predictions": [{"result": RESULT}] * (n % 2)}])
        if n % 10 == 0:
            dogs.add([{"data": {"text": f"dog {n}"}}])
    ids = sorted(cats.stored)
    cats.draft(ids[30])
    cats.draft(ids[99])
    cats.lie(ids[101], is_labeled=True)
    return cats


@pytest.fixture
def follow(studio: ExportingStandIn, tmp_path: Path) -> Iterator[Callable[..., Follower]]:
    with_close: list[Any] = []
    numbers = itertools.count()

    def start(project: Project, clock: TestClock | None = None, **fields: Any) -> Follower:
        config = {"type": "label_studio", "url": studio.url, "token": studio.token, "retry_for": 2.0, "bulk": "auto"} | fields
        source = label_studio.open(label_studio.Config.model_validate(config), {}, clock or TestClock(START))
        follower = Follower(source, tmp_path / str(next(numbers)), Collection(str(project.id), project.title, project.created_at))
        with_close.extend([source, follower])
        return follower

    yield start
    for opened in with_close:
        opened.close()


def listed(studio: ExportingStandIn) -> int:
    """Bodies that the list was asked for, at most."""
    return sum(int(r.params["page_size"]) for r in studio.requests if r.params.get("fields") == "all")


def nothing_left(studio: ExportingStandIn) -> bool:
    return not studio.exports and not studio.views


def as_by_list(cats: Project, follow: Callable[..., Follower], found: Follower) -> bool:
    plain = follow(cats, bulk="list")
    plain.run()
    return found.files == plain.files


def test_bodies_are_those_of_the_list_in_order_and_the_list_is_hardly_asked(
    studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    fast = follow(cats)
    seen = fast.run()
    assert studio.snapshots() == 4
    assert listed(studio) < 20 + 5 * 30 + 3 + 20
    assert (sorted(map(int, seen.tasks)), seen.missing, seen.failed) == (sorted(cats.stored), [], [])
    positions = [int(position) for position in seen.positions if position is not None]
    assert positions == sorted(positions)
    assert positions[-1] == max(cats.stored)
    assert nothing_left(studio)
    assert fast.run(drafts=False).tasks == []
    assert as_by_list(cats, follow, fast)


@pytest.mark.parametrize("personal", [False, True])
def test_several_lanes_and_either_token_do_as_well(personal: bool, studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    fast = follow(cats, concurrency=3, token=studio.pat if personal else studio.token)
    assert sorted(map(int, fast.run().tasks)) == sorted(cats.stored)
    assert (studio.snapshots(), nothing_left(studio)) == (3, True)
    assert as_by_list(cats, follow, fast)


def test_numbers_and_texts_are_exactly_those_of_the_list(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    cats.edit(sorted(cats.stored)[53], data={"text": "\u2028 \U0001f600 \x00", "n": [12345678901234567, 5e-324, 0.1, 1e22, -0.0]})
    fast = follow(cats)
    fast.run()
    assert studio.snapshots() == 4
    assert as_by_list(cats, follow, fast)


def test_the_cursor_is_older_than_every_snapshot(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    clock = TestClock(START)
    studio.clock = clock.now

    def edit(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        clock.wait(3600)
        return tasks

    studio.edit = edit
    assert START - 1_000_000 < (follow(cats).run().cursor or 0) <= START  # the server's clock before it made the first


def test_only_a_first_pass_uses_snapshots(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    before = studio.snapshots()
    follower.run()
    follower.run(full=True)
    assert studio.snapshots() == before
    follow(cats, bulk="list").run()
    follow(cats, labeled_only=True).run()
    assert studio.snapshots() == before


def test_a_plan_writes_nothing_to_the_server(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower], tmp_path: Path) -> None:
    rig = Rig(follow(cats).source, lambda: local.open(local.Config(type="local", path=tmp_path / "backup"), TestClock()), tmp_path / "state")
    with closing(sqlite.open(rig.state)) as checkpoint, closing(rig.open_target()) as target:
        assert sum(line.sign == "+" for line in plan_sync(rig.job(checkpoint, target))) == 165  # of both projects
    assert {request.method for request in studio.requests} == {"GET"}


def test_a_small_project_is_listed(studio: ExportingStandIn, follow: Callable[..., Follower]) -> None:
    small = studio.project("Small")
    small.add([{"data": {"text": str(n)}} for n in range(29)])
    assert len(follow(small).run().tasks) == 29
    assert studio.snapshots() == 0


def test_a_killed_first_pass_goes_on_by_snapshots_behind_its_position(
    studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    follower = follow(cats)
    first = follower.run(stop_after=4)
    begun = studio.snapshots()
    rest = follower.run(position=first.positions[-1])
    assert studio.snapshots() > begun
    assert {*first.tasks, *rest.tasks} == {str(n) for n in cats.stored}
    assert len(first.tasks) + len(rest.tasks) <= len(cats.stored) + 15
    assert as_by_list(cats, follow, follower)


def test_a_snapshot_made_in_the_background_is_waited_for(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    studio.status = ["created", "in_progress", "completed"] * 4
    clock = TestClock(START)
    follower = follow(cats, clock)
    follower.run()
    assert studio.snapshots() == 4
    assert clock.micros >= START + 16_000_000
    assert nothing_left(studio)


EDITS: dict[str, Edit] = {
    "cut short": lambda tasks: tasks[:-1],
    "one twice": lambda tasks: [*tasks[:-1], tasks[0]],
    "empty": lambda _: [],
    "no array": lambda tasks: {"tasks": tasks},
    "no tasks": lambda tasks: [1, 2, 3, *tasks],
    "of another project": lambda tasks: [task | {"project": 2} for task in tasks],
    "ids of others": lambda tasks: [task | {"id": task["id"] + 100_000} for task in tasks],
    "without annotations": lambda tasks: [task | {"annotations": []} for task in tasks],
    "annotations by id": lambda tasks: [task | {"annotations": [a["id"] for a in task["annotations"]]} for task in tasks],
    "predictions by id": lambda tasks: [task | {"predictions": [p["id"] for p in task["predictions"]]} for task in tasks],
    "a field more": lambda tasks: [task | {"reviews": []} for task in tasks],
    "a field less": lambda tasks: [{name: value for name, value in task.items() if name != "meta"} for task in tasks],
    "no id": lambda tasks: [{name: value for name, value in task.items() if name != "id"} for task in tasks],
    "no numbers": lambda tasks: [task | {"total_annotations": None} for task in tasks],
    "no time": lambda tasks: [task | {"updated_at": "yesterday"} if n == 33 else task for n, task in enumerate(tasks)],
    "NaN": lambda tasks: [task | {"data": {"n": float("nan")}} for task in tasks],
}


@pytest.mark.parametrize("trouble", EDITS)
def test_a_snapshot_that_differs_is_not_believed(
    trouble: str, studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower], caplog: pytest.LogCaptureFixture
) -> None:
    studio.edit = EDITS[trouble]
    follower = follow(cats)
    with caplog.at_level("INFO", "syncd.label_studio"):
        seen = follower.run()
    assert "snapshots did not do" in caplog.text
    assert (studio.snapshots(), seen.missing, seen.failed, nothing_left(studio)) == (1, [], [], True)
    assert as_by_list(cats, follow, follower)


LACKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "an annotation": lambda task: task | {"annotations": task["annotations"][:-1]},
    "annotations": lambda task: task | {"annotations": []},
    "predictions": lambda task: task | {"predictions": []},
    "the ids of annotations": lambda task: task | {"annotations": [{"result": []} for _ in task["annotations"]]},
}


@pytest.mark.parametrize("lack", LACKS)
def test_a_task_that_lacks_parts_in_a_snapshot_is_read_from_the_list(
    lack: str, studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    bad = sorted(cats.stored)[53]  # two annotations and a prediction, and in no sample
    studio.edit = lambda tasks: [LACKS[lack](task) if task["id"] == bad else task for task in tasks]
    follower = follow(cats)
    seen = follower.run()
    assert (studio.snapshots(), seen.failed) == (4, [])
    assert as_by_list(cats, follow, follower)


def refuse(studio: ExportingStandIn) -> None:
    studio.allowed = False


def fail(studio: ExportingStandIn) -> None:
    studio.status = "failed"


def hang(studio: ExportingStandIn) -> None:
    studio.status = ["in_progress"] * 1000


def overlook_views(studio: ExportingStandIn) -> None:
    studio.heeds_views = False


def instead(method: str, end: str, answer: Callable[[], Reply]) -> Callable[[ExportingStandIn], None]:
    def meet(request: Request) -> Reply | None:
        return answer() if request.method == method and request.path.endswith(end) else None

    return lambda studio: setattr(studio, "instead", meet)


TROUBLE = {
    "refused": refuse,
    "failed": fail,
    "never ready": hang,
    "the whole project": overlook_views,
    "no such page": instead("POST", "/exports/", lambda: html(404)),
    "gateway": instead("POST", "/exports/", lambda: html(504)),
    "reset": instead("POST", "/exports/", lambda: Reply(0, reset=True)),
    "no views": instead("POST", "/views/", lambda: html(404)),
    "views in pages": instead("GET", "/views/", lambda: Reply(200, b'{"results":[]}')),
    "download refused": instead("GET", "/download", lambda: html(404)),
    "download fails": instead("GET", "/download", lambda: html(502)),
    "download cut": instead("GET", "/download", lambda: Reply(200, b"[" + b'{"id":1},' * 1000, cut=True)),
    "a page": instead("GET", "/download", lambda: html(200)),
    "a strange status": lambda studio: setattr(studio, "status", [{}] * 9),
    "a view without its data": instead("GET", "/views/", lambda: Reply(200, b'[{"id":1,"title":null,"data":null}]')),
    "not removed": instead("DELETE", "", lambda: html(500)),
}


REFUSALS = {"refused", "no such page", "gateway", "reset", "no views", "not removed"}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_no_trouble_with_snapshots_makes_a_run_fail(trouble: str, studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    TROUBLE[trouble](studio)
    follower = follow(cats)
    seen = follower.run()
    assert bool(follower.source.failed.tries) == (trouble in REFUSALS)
    assert (len(seen.tasks), seen.missing, seen.failed) == (150, [], [])
    assert studio.snapshots() <= 1
    assert nothing_left(studio) or trouble in {"not removed", "never ready", "refused"}
    studio.instead, studio.allowed = lambda _: None, True
    assert as_by_list(cats, follow, follower)


class FullDisk:
    """Takes one piece."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def writelines(self, pieces: Iterator[bytes]) -> None:
        next(pieces)
        raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_is_no_reason_to_fail(
    studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "TemporaryFile", FullDisk)
    assert len(follow(cats).run().tasks) == 150
    assert nothing_left(studio)


def test_a_snapshot_far_heavier_than_its_first_tasks_let_expect_fills_no_disk(
    studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "HEAVIEST", 100_000)
    cats.edit(sorted(cats.stored)[53], data={"text": "x" * 500_000})
    follower = follow(cats)
    follower.run()
    assert (studio.snapshots(), nothing_left(studio)) == (1, True)
    assert as_by_list(cats, follow, follower)


def test_a_snapshot_of_the_whole_project_is_not_downloaded(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    overlook_views(studio)
    follow(cats).run()
    assert [path for path in studio.paths() if path.endswith("/download")] == []


def test_tasks_that_change_meanwhile_are_right_after_the_next_reading(
    studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    clock, ids = TestClock(START), sorted(cats.stored)
    studio.clock = clock.now
    happened: list[int] = []

    def edit(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        clock.wait(10)
        if not happened:
            happened.append(1)
            cats.annotate(ids[25])
            cats.draft(ids[26])
            cats.edit(ids[27], data={"text": "new"})
            cats.add([{"data": {"text": "late"}}])
        return tasks

    studio.edit = edit
    follower = follow(cats)
    follower.run()
    assert (studio.snapshots(), follower.files[str(ids[27])]["data"]["text"]) == (4, "task 27")
    follower.run()
    assert as_by_list(cats, follow, follower)


def test_a_task_deleted_while_a_snapshot_is_made_is_not_resurrected(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    gone = sorted(cats.stored)[50]

    def edit(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if gone in cats.stored and any(task["id"] == gone for task in tasks):
            cats.delete(gone)
        return tasks

    studio.edit = edit
    follower = follow(cats)
    follower.run()
    follower.run()
    assert str(gone) not in follower.files
    assert as_by_list(cats, follow, follower)


def test_many_odd_tasks_are_left_to_the_list(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    for number in sorted(cats.stored)[25:40]:
        cats.draft(number)
    follower = follow(cats)
    follower.run()
    assert studio.snapshots() == 0
    assert as_by_list(cats, follow, follower)


@pytest.mark.parametrize("first", [True, False])
def test_what_a_process_left_that_died_is_removed_after_an_hour_and_what_belongs_to_others_never(
    first: bool, studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    follower = follow(cats)
    if not first:  # the pass that it was made for has ended since
        follower.run()
    titles = [TITLE + format_time(START - 2 * snapshots.ABANDONED), TITLE + format_time(START - 60_000_000), "mine", "syncd-2020", "~later"]
    for title in titles:
        studio._make(studio.views, {"project": cats.id, "data": {"title": title}})
        studio._make(studio.exports, {"project": cats.id, "title": title, "status": "in_progress"})
    follower.run(full=True)
    assert [view["data"]["title"] for view in studio.views.values()] == titles[1:]
    assert [made["title"] for made in studio.exports.values()] == titles[1:]


def test_a_stop_while_a_snapshot_is_made_removes_it(studio: ExportingStandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    clock = TestClock(START)
    studio.status = ["created", *["created"] * 50]

    def stop(seconds: float) -> None:
        if seconds:
            raise Stopped

    clock.wait = stop  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        follow(cats, clock).run()
    assert nothing_left(studio)
