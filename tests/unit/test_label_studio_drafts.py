"""Everybody's drafts: each task that has some is asked for them alone, and whatever the answer is, no draft is lost unseen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import AccessError, SourceError
from syncd.model import Collection
from syncd.sources import label_studio, label_studio_api
from tests.fakes.follower import Follower
from tests.fakes.label_studio import Reply, Request, StandIn, error, html, reply
from tests.fakes.label_studio_project import Project
from tests.fakes.rig import TestClock

START = 1_790_000_000_000_000
EVE = "eve@example.com"


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as server:
        server.clock = TestClock(START).now
        yield server


@pytest.fixture
def cats(studio: StandIn) -> Project:
    """60 tasks; three with drafts, of which the token's own user sees one."""
    project = studio.project("Cats")
    project.add([{"data": {"text": f"task {n}"}} for n in range(1, 61)])
    for task, user in ((5, EVE), (30, EVE), (30, "ann@example.com"), (55, EVE)):
        project.draft(task, user=user)
    return project


@pytest.fixture
def follow(studio: StandIn, tmp_path: Path) -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def start(project: Project, **fields: object) -> Follower:
        config = {"type": "label_studio", "url": studio.url, "token": studio.token, "retry_for": 2.0} | fields
        source = label_studio.open(label_studio.Config.model_validate(config), {}, TestClock(START))
        made.append(Follower(source, tmp_path / str(len(made)), Collection(str(project.id), project.title, project.created_at)))
        return made[-1]

    yield start
    for follower in made:
        follower.source.close()
        follower.close()


def answered(studio: StandIn, task: int, answer: Callable[[], Reply]) -> None:
    """Instead of the drafts of a task."""

    def instead(request: Request) -> Reply | None:
        return answer() if request.path == f"/api/tasks/{task}/drafts" else None

    studio.instead = instead


def users(follower: Follower) -> dict[str, list[str]]:
    return {task: [draft["user"] for draft in body["drafts"]] for task, body in follower.files.items() if body["drafts"]}


def everybody() -> dict[str, list[str]]:
    return {"5": [EVE], "30": [EVE, "ann@example.com"], "55": [EVE]}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("answer", [lambda: html(500), lambda: html(502), lambda: Reply(0, reset=True), lambda: Reply(200, b"[{", cut=True)])
def test_a_task_whose_drafts_cant_be_had_fails_alone(
    answer: Callable[[], Reply], concurrency: int, studio: StandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    answered(studio, 30, answer)
    follower = follow(cats, concurrency=concurrency)
    seen = follower.run()
    assert ([failure.task for failure in seen.failed], len(seen.tasks), seen.missing) == (["30"], 59, [])
    assert follower.cursor is None
    studio.instead = lambda _: None
    follower.run()
    assert users(follower) == everybody()


@pytest.mark.parametrize("body", [{}, {"results": []}, [1], ["x"], [{"id": 1}], None, "", [[]]])
def test_what_is_no_list_of_drafts_stops_the_run(body: object, studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    answered(studio, 30, lambda: reply(body))
    with pytest.raises(SourceError):
        follow(cats).run()


@pytest.mark.parametrize(("answer", "raised"), [(lambda: error(403, "You do not have permission"), AccessError), (lambda: html(200), SourceError)])
def test_a_refusal_or_a_page_is_never_taken_for_no_drafts(
    answer: Callable[[], Reply], raised: type[Exception], studio: StandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    answered(studio, 30, answer)
    with pytest.raises(raised):
        follow(cats).run()


def test_a_task_that_is_gone_since_is_no_failure_and_missed_by_the_next_run(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    def gone() -> Reply:
        cats.delete(30)
        return error(404, "No Task matches the given query.")

    answered(studio, 30, gone)
    follower = follow(cats)
    assert follower.run().failed == []
    studio.instead = lambda _: None
    follower.run()
    assert sorted(map(int, follower.files)) == [n for n in range(1, 61) if n != 30]


def test_thousands_of_drafts_of_a_task_are_all_kept_in_order(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    made = [cats.draft(7, user=EVE) for _ in range(3000)]
    follower = follow(cats)
    follower.run()
    assert [draft["id"] for draft in follower.files["7"]["drafts"]] == made


def test_the_weight_of_drafts_counts(studio: StandIn, cats: Project, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' drafts are not in the page, and yet in memory."""
    monkeypatch.setattr(label_studio_api, "HEAVIEST_PAGE", 300_000)
    heavy = [{"value": {"text": "x" * 50_000}}]
    for task in range(20, 60):
        cats.draft(task, user=EVE, result=heavy)
    pages: list[int] = []
    bodies = label_studio_api.Api.bodies

    def noted(*args: Any, **options: Any) -> label_studio_api.Page:
        page = bodies(*args, **options)
        pages.append(sum(len(str(task["drafts"])) for task in page.tasks))
        return page

    monkeypatch.setattr(label_studio_api.Api, "bodies", noted)
    follower = follow(cats)
    assert follower.run().failed == []
    assert len(users(follower)) == 1 + 40
    assert max(pages) < 400_000


def test_drafts_of_a_quiet_project_cost_one_request_a_task_that_has_some(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    quiet, asked = follower.run(), follower.run(drafts=False)
    assert (asked.requests, asked.tasks) == (2, [])
    assert quiet.requests == asked.requests + 2 + 3
    before = dict(follower.files)
    assert (follower.run(full=True).missing, follower.files) == ([], before)
