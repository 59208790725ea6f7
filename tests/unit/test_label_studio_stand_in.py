"""The stand-in itself: what only it can do (a million tasks, trouble on demand). Its likeness to the real server is compared in tests/live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.label_studio import Request, StandIn, error, html_login
from tests.fakes.label_studio_rows import VIRTUAL_EPOCH, VIRTUAL_STEP, show_time

OLD, NEW = 1_700_000_000_000_000, 1_700_000_600_000_123


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as running:
        running.clock = lambda: OLD
        yield running


def ask(studio: StandIn, path: str, **params: Any) -> httpx.Response:
    return httpx.get(studio.url + path, params=params, headers={"Authorization": f"Token {studio.token}"})


def where(column: str, operator: str, kind: str, value: object) -> dict[str, object]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def tasks(studio: StandIn, *filters: dict[str, object], **params: Any) -> dict[str, Any]:
    query = json.dumps({"filters": {"conjunction": "and", "items": filters}, "ordering": ["tasks:id"]})
    answer = ask(studio, "/api/tasks", **({"project": 1, "query": query, "page": 1} | params))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_million_tasks_answer_ranges_and_totals_without_being_stored() -> None:
    with StandIn.million(1_000_000) as studio:
        page = tasks(studio, where("id", "greater", "Number", 999_997), fields="all")
        assert ([task["id"] for task in page["tasks"]], page["total"]) == ([999_998, 999_999, 1_000_000], 3)
        assert [len(task["annotations"]) for task in page["tasks"]] == [1, 2, 1]
        everything = tasks(studio, page_size=1, include="id")
        assert (everything["total"], everything["total_annotations"], everything["total_predictions"]) == (1_000_000, 1_500_000, 500_000)
        assert studio.projects[1].stored == {}


def test_a_million_tasks_take_the_same_events() -> None:
    with StandIn.million(1_000_000) as studio:
        cats = studio.projects[1]
        cats.delete(10, 11)
        cats.predict_in_bulk(12)
        new = cats.add([{"data": {"text": "new"}}])
        page = tasks(studio, where("id", "greater", "Number", 8), page_size=3, include="id,total_predictions")
        assert (new, [task["id"] for task in page["tasks"]]) == ([1_000_001], [9, 12, 13])
        assert page["tasks"][1]["total_predictions"] == 1
        assert tasks(studio, include="id", page_size=1)["total"] == 1_000_000 - 2 + 1


_ids = st.integers(-3, 25)
_times = st.integers(VIRTUAL_EPOCH - VIRTUAL_STEP, VIRTUAL_EPOCH + 23 * VIRTUAL_STEP) | st.integers(0, 22).map(
    lambda n: VIRTUAL_EPOCH + n * VIRTUAL_STEP
)
_order = st.sampled_from(["greater", "greater_or_equal", "less", "less_or_equal", "equal"])


def _exact(at: int) -> str:
    return (show_time(at) or "").removesuffix("Z") + ("Z" if at % 1_000_000 else ".000000Z")


_filters = st.lists(
    st.one_of(
        st.builds(where, st.just("id"), _order, st.just("Number"), _ids),
        st.builds(where, st.just("id"), st.just("in"), st.just("Number"), st.fixed_dictionaries({"min": _ids, "max": _ids})),
        st.builds(where, st.just("id"), st.sampled_from(["in_list", "not_in_list"]), st.just("Number"), st.lists(_ids, max_size=4)),
        st.builds(where, st.just("updated_at"), _order, st.just("Datetime"), _times.map(_exact)),
        st.builds(where, st.just("total_annotations"), _order, st.just("Number"), st.integers(0, 3)),
        st.builds(where, st.just("draft_exists"), st.just("equal"), st.just("Boolean"), st.booleans()),
    ),
    max_size=3,
)


@given(filters=_filters, size=st.integers(1, 20), gone=st.lists(st.integers(1, 20), max_size=3), down=st.booleans())
def test_virtual_tasks_answer_each_query_as_stored_ones_do(filters: list[dict[str, object]], size: int, gone: list[int], down: bool) -> None:
    studio = StandIn.million(size)
    virtual, stored = studio.projects[1], studio.project("Stored")
    stored.stored = {number: virtual.untouched.make(number) for number in range(1, size + 1)}
    for number in {number for number in gone if number <= size}:
        virtual.delete(number)
        stored.delete(number)
    query = {"filters": {"conjunction": "and", "items": filters}, "ordering": ["-tasks:id" if down else "tasks:id"]}
    expected, found = stored.select(query), virtual.select(query)
    assert (expected.total, expected.annotations, expected.predictions) == (found.total, found.annotations, found.predictions)
    assert expected.rows(0, 99) == found.rows(0, 99)
    studio._server.server_close()


@pytest.mark.parametrize(
    "view",
    [
        {},
        {"include": "id,created_at,updated_at,total_annotations,cancelled_annotations,total_predictions"},
        {"fields": "all", "expand": "annotations.completed_by", "omit": "annotations_results,predictions_results"},
        {"fields": "all", "omit": "created_ago"},
    ],
    ids=str,
)
def test_virtual_tasks_look_as_stored_ones_do(view: dict[str, str]) -> None:
    with StandIn.million(5, projects=2) as studio:
        for project in (1, 2):
            made = tasks(studio, project=project, **view)
            for row in list(studio.projects[project].untouched.rows(studio.projects[project].untouched.all())):
                studio.projects[project].row(row.id)
            stored = tasks(studio, project=project, **view)
            assert len(studio.projects[project].stored) == made["total"] == 5
            for task in (*made["tasks"], *stored["tasks"]):
                for part in (*task.get("annotations", ()), *task.get("predictions", ())):
                    part.pop("created_ago", None)
            assert made == stored


def test_a_late_commit_becomes_visible_behind_its_own_date(studio: StandIn) -> None:
    cats = studio.project("Cats")
    studio.clock = lambda: NEW
    cats.add([{"data": {}}])
    late = cats.add([{"data": {}}], at=OLD)
    assert [task["id"] for task in tasks(studio, where("updated_at", "less", "Datetime", _exact(NEW)))["tasks"]] == late


def test_bulk_predictions_move_the_totals_and_no_date(studio: StandIn) -> None:
    cats = studio.project("Cats")
    ids = cats.add([{"data": {}}] * 2)
    studio.clock = lambda: NEW
    cats.predict_in_bulk(ids[0])
    found = tasks(studio)
    assert (found["total_predictions"], {task["updated_at"] for task in found["tasks"]}) == (1, {show_time(OLD)})


def test_a_reused_id_has_another_creation_date(studio: StandIn) -> None:
    cats = studio.project("Cats")
    first = cats.add([{"data": {"text": "a"}}])
    cats.delete(*first)
    cats.reuse_ids()
    studio.clock = lambda: NEW
    assert (cats.add([{"data": {"text": "b"}}]), tasks(studio)["tasks"][0]["created_at"]) == (first, show_time(NEW))


def test_the_page_with_a_poisoned_task_fails_and_the_flat_listing_does_not(studio: StandIn) -> None:
    cats = studio.project("Cats")
    good, bad = cats.add([{"data": {}}] * 2)
    cats.poison(bad)
    assert ask(studio, "/api/tasks", project=1, fields="all").status_code == 500
    assert ask(studio, f"/api/tasks/{bad}/").status_code == 500
    assert [task["id"] for task in tasks(studio, include="id")["tasks"]] == [good, bad]
    assert [task["id"] for task in tasks(studio, where("id", "less", "Number", bad), fields="all")["tasks"]] == [good]


def test_trouble_replaces_answers_and_every_request_is_recorded(studio: StandIn) -> None:
    studio.instead = lambda request: html_login() if request.path == "/api/users/" else error(503, "busy")
    assert ask(studio, "/api/users/").headers["content-type"].startswith("text/html")
    assert ask(studio, "/api/projects/").status_code == 503
    assert studio.paths() == ["GET /api/users/", "GET /api/projects/"]


@pytest.mark.parametrize("kind", ["reset", "cut"])
def test_a_connection_can_die(studio: StandIn, kind: str) -> None:
    broken = error(200, "x" * 1000)
    setattr(broken, kind, True)

    def instead(request: Request) -> Any:
        return broken

    studio.instead = instead
    with pytest.raises(httpx.TransportError):
        ask(studio, "/api/projects/")


def test_the_date_header_and_the_access_token_follow_the_clock(studio: StandIn) -> None:
    assert ask(studio, "/api/projects/").headers["date"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    access = httpx.post(studio.url + "/api/token/refresh/", json={"refresh": studio.pat}).json()["access"]
    bearer = {"Authorization": f"Bearer {access}"}
    assert httpx.get(studio.url + "/api/projects/", headers=bearer).status_code == 200
    studio.clock = lambda: OLD + 301_000_000
    assert httpx.get(studio.url + "/api/projects/", headers=bearer).status_code == 401
